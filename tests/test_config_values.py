"""What stands in the JSON Schema of a type is what the type accepts."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from scanner.config_values import (
    ClamdAddress,
    Duration,
    DurationOrNone,
    HeaderName,
    Headers,
    HttpUrl,
    Listen,
    MimeType,
    Mirror,
    Network,
    Size,
)

CASES: list[tuple[Any, list[object], list[object]]] = [
    (Size, ["20MiB", "1.5 gib", 5, "5", "5b"], ["MiB", "1e3", "20 MiBs", 0, [], None]),
    (Duration, ["2.5s", "7D", 0.5, "10 m"], ["1w", "s", -1, {}]),
    (DurationOrNone, ["30d", 0, "0", "0d"], ["d", -1, None]),
    (Listen, ["[::1]:8080", "a:1"], ["a", "a:", "http://a:1", 8080]),
    (HttpUrl, ["https://a", "http://[::1]:80/"], ["a", "https://a/b", "https://u:p@a"]),
    (ClamdAddress, ["embedded", "unix:/c", "tcp:a:1"], ["/c", "unix:c", "tcp:a"]),
    (MimeType, ["image/*", "image/png"], ["image", "*/*", "Image/png"]),
    (Mirror, ["a", "https://a:1/b"], ["a b", "https://a/?b"]),
    (HeaderName, ["X-Tag", "Cookie", "user-agent"], ["", "a b", "a:", "é"]),
]


@pytest.mark.parametrize(("kind", "accepted", "refused"), CASES, ids=lambda case: str(case)[:30])
def test_schema_accepts_what_we_accept(kind: Any, accepted: list[object], refused: list[object]) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    schema = Draft202012Validator(adapter.json_schema())
    for value in accepted:
        adapter.validate_python(value)
        assert schema.is_valid(value), value
    for value in refused:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
        assert not schema.is_valid(value), value


def test_network_is_text_in_the_schema() -> None:
    assert TypeAdapter(Network).json_schema() == {"type": "string"}


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "AUTHORIZATION", "accept-encoding", "Content-Length", "Content-Anything", "Connection"),
        *("TE", "Transfer-Encoding", "Range", "If-None-Match", "X-Forwarded-For", "Proxy-Authorization"),
    ],
)
def test_headers_that_only_the_scanner_sets_are_refused(name: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Headers)
    with pytest.raises(ValidationError, match=f"must not be {name}: the scanner alone decides about it"):
        adapter.validate_python({name: "x"})


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0", "é", "\x7f", "a\tb"])
def test_value_of_a_header_that_is_no_printable_ascii_is_refused(value: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Headers)
    with pytest.raises(ValidationError, match="must be printable ASCII"):
        adapter.validate_python({"X-Tag": value})


def test_value_of_a_header_is_shown_nowhere() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Headers)
    headers = adapter.validate_python({"X-Gate": "let-me-in"})
    assert headers["X-Gate"].get_secret_value() == "let-me-in"
    assert "let-me-in" not in repr(headers) + adapter.dump_json(headers).decode()
