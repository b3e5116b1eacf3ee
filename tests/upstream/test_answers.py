from __future__ import annotations

import gzip

import pytest

from scanner.errors import (
    AccessDenied,
    MediaNotFound,
    MediaTooLarge,
    NotYetUploaded,
    ScannerError,
    Throttled,
    UpstreamFailed,
)
from tests.fake_homeserver import (
    CHUNKED_HEAD,
    LAST_CHUNK,
    PNG,
    FakeHomeserver,
    Script,
    Step,
    Then,
    chunk,
    head,
    media_head,
    refusing,
    saying,
    serving,
)
from tests.upstream.rig import (
    ALICE,
    Rig,
    fetched,
    refused,
    soon,
    wanted,
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (refusing("400 Bad Request", "M_INVALID_PARAM"), MediaNotFound),
        (refusing("403 Forbidden", "M_FORBIDDEN"), MediaNotFound),
        (refusing("404 Not Found"), MediaNotFound),
        (refusing("413 Payload Too Large", "M_TOO_LARGE"), MediaTooLarge),
        (refusing("429 Too Many Requests", "M_LIMIT_EXCEEDED"), Throttled),
        (refusing("504 Gateway Timeout", "M_NOT_YET_UPLOADED"), NotYetUploaded),
        (refusing("504 Gateway Timeout", "M_UNKNOWN"), UpstreamFailed),
        (refusing("500 Internal Server Error", "M_UNKNOWN"), UpstreamFailed),
        (refusing("502 Bad Gateway", "M_TOO_LARGE"), UpstreamFailed),
        (refusing("206 Partial Content"), UpstreamFailed),
        (refusing("304 Not Modified"), UpstreamFailed),
    ],
)
async def test_each_status_has_its_error(rig: Rig, answer: Script, expected: type[ScannerError]) -> None:
    upstream = await rig.upstream(answer)
    assert type(await refused(fetched(upstream))) is expected


@pytest.mark.parametrize(
    ("authorization", "code", "expected"),
    [
        (ALICE, "M_MISSING_TOKEN", "M_MISSING_TOKEN"),
        (ALICE, "M_UNKNOWN_TOKEN", "M_UNKNOWN_TOKEN"),
        (ALICE, "M_UNAUTHORIZED", "M_UNKNOWN_TOKEN"),
        (ALICE, None, "M_UNKNOWN_TOKEN"),
        (None, None, "M_MISSING_TOKEN"),
        (None, "M_UNKNOWN_TOKEN", "M_UNKNOWN_TOKEN"),
    ],
)
async def test_a_401_has_the_code_of_the_homeserver(
    rig: Rig, authorization: str | None, code: str | None, expected: str
) -> None:
    upstream = await rig.upstream(refusing("401 Unauthorized", code))
    error = await refused(fetched(upstream, wanted(authorization)))
    assert isinstance(error, AccessDenied)
    assert error.code == expected


async def test_an_errcode_may_arrive_in_pieces(rig: Rig) -> None:
    body = b'{"error": "wait", "errcode": "M_NOT_YET_UPLOADED"}'
    start = head("504 Gateway Timeout", [("Content-Length", str(len(body)))])
    upstream = await rig.upstream(saying(start + body[:20], 0.05, body[20:]))
    assert isinstance(await refused(fetched(upstream)), NotYetUploaded)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"errcode": 5}', b'"M_FORBIDDEN"', b"\xff", b"", b'{"errcode": "m x"}']
)
async def test_an_odd_error_body_is_no_code(rig: Rig, body: bytes) -> None:
    start = head("401 Unauthorized", [("Content-Length", str(len(body)))])
    upstream = await rig.upstream(saying(start, body))
    error = await refused(fetched(upstream))
    assert isinstance(error, AccessDenied)
    assert error.code == "M_UNKNOWN_TOKEN"


async def test_an_error_body_is_not_decompressed(rig: Rig) -> None:
    body = gzip.compress(b'{"errcode": "M_NOT_YET_UPLOADED"}')
    fields = [("Content-Encoding", "gzip"), ("Content-Length", str(len(body)))]
    upstream = await rig.upstream(saying(head("504 Gateway Timeout", fields), body))
    assert type(await refused(fetched(upstream))) is UpstreamFailed


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("17", 17),
        ("0", 0),
        ("", None),
        ("-1", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("9" * 99, None),
    ],
)
async def test_retry_after_is_kept_if_it_is_a_number(rig: Rig, value: str, seconds: int | None) -> None:
    upstream = await rig.upstream(
        refusing("429 Too Many Requests", "M_LIMIT_EXCEEDED", Retry_After=value),
    )
    error = await refused(fetched(upstream))
    assert isinstance(error, Throttled)
    assert error.retry_after == seconds


async def test_type_and_disposition_are_as_declared(rig: Rig) -> None:
    upstream = await rig.upstream(serving(PNG, "Image/PNG", Content_Disposition="inline; filename=a"))
    async with upstream.fetch(wanted(), soon()) as media:
        assert (media.body.content_type, media.body.disposition) == ("Image/PNG", "inline; filename=a")


async def test_media_without_a_type_is_an_octet_stream(rig: Rig) -> None:
    upstream = await rig.upstream(serving(PNG, None))
    async with upstream.fetch(wanted(), soon()) as media:
        assert media.body.content_type == "application/octet-stream"


async def test_empty_media_is_media(rig: Rig) -> None:
    assert await fetched(await rig.upstream(serving(b""))) == b""


async def test_identity_is_no_encoding(rig: Rig) -> None:
    assert await fetched(await rig.upstream(serving(PNG, Content_Encoding="identity"))) == PNG


def _with(*headers: tuple[str, str]) -> bytes:
    return head(headers=headers)


BROKEN: dict[str, tuple[Step, ...]] = {
    "two content types": (
        _with(("Content-Type", "image/png"), ("Content-Type", "text/html"), ("Content-Length", "1")),
        b"x",
    ),
    "gzip": (_with(("Content-Encoding", "gzip"), ("Content-Length", "1")), b"x"),
    "two encodings": (
        _with(("Content-Encoding", "identity"), ("Content-Encoding", "gzip"), ("Content-Length", "1")),
        b"x",
    ),
    "truncated": (media_head(10), b"12345", Then.HANG_UP),
    "reset": (media_head(10), b"12345", Then.RESET),
    "truncated chunk": (CHUNKED_HEAD, b"a\r\n12345", Then.HANG_UP),
    "no last chunk": (CHUNKED_HEAD, chunk(b"12345"), Then.HANG_UP),
    "chunk size": (CHUNKED_HEAD, b"zz\r\n12345\r\n", LAST_CHUNK),
    "negative chunk": (CHUNKED_HEAD, b"-5\r\n12345\r\n", LAST_CHUNK),
    "two lengths": (_with(("Content-Length", "5"), ("Content-Length", "6")), b"123456"),
    "odd length": (_with(("Content-Length", "0x5")), b"12345"),
    "no answer": (Then.HANG_UP,),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", Then.HANG_UP),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Then.HANG_UP),
    "endless header": (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n", Then.HANG_UP),
}


@pytest.mark.parametrize("steps", BROKEN.values(), ids=BROKEN)
async def test_a_broken_answer_is_a_failure(rig: Rig, steps: tuple[Step, ...]) -> None:
    upstream = await rig.upstream(saying(*steps))
    assert type(await refused(fetched(upstream))) is UpstreamFailed


async def test_an_absent_homeserver_is_a_failure_until_it_is_there(rig: Rig) -> None:
    async with FakeHomeserver() as gone:
        pass
    upstream = await rig.upstream(url=gone.url)
    assert type(await refused(fetched(upstream))) is UpstreamFailed
    assert rig.codes() == ["error"]
