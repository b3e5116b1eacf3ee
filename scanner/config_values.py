"""What a value of the configuration may look like: quantities with units, and text of a given form.

Each type knows its part of the JSON Schema, so that an editor accepts what we accept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    WithJsonSchema,
)
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_TIME_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]*)")
_MAX_PORT = 65535

# Of our requests to the homeserver: the caller's identity and address, the connection, and what the body is.
_OWN_HEADERS = frozenset(
    {"authorization", "x-forwarded-for", "forwarded", "host", "connection", "keep-alive", "expect", "upgrade"}
    | {"proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"accept-encoding", "range", "if-range", "if-match", "if-none-match"}
    | {"if-modified-since", "if-unmodified-since"}
)

_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
_PORT = r":(?P<port>[0-9]{1,5})"


def _quantity(value: object, units: Mapping[str, float], example: str) -> float:
    match = _QUANTITY.fullmatch(str(value).strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(f"must be a number with a unit, like {example}")
    return float(match[1]) * units[match[2].lower()]


def _size(value: object) -> int:
    return int(_quantity(value, _SIZE_UNITS, "20MiB"))


def _duration(value: object) -> float:
    return _quantity(value, _TIME_UNITS, "2.5s, 10m or 7d")


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(value))
    except ValueError:
        raise ValueError("must be a network like 10.0.0.0/8, with no bits set beyond its length") from None


def _quantity_schema(units: Mapping[str, float], least: str = "exclusiveMinimum") -> WithJsonSchema:
    """Of `_quantity`, for editors: any case of a unit will do."""
    any_case = ("".join(f"[{letter}{letter.upper()}]" for letter in unit) for unit in units)
    pattern = rf"^[0-9]{{1,15}}(\.[0-9]{{1,15}})?\s*({'|'.join(any_case)})$"
    number = {"type": "number", least: 0}
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": pattern}]}, "validation")


@dataclass(frozen=True)
class _Form:
    """Text that all of `pattern` matches; "must be `example`" is said of any other."""

    pattern: str
    example: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        return no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        # JavaScript, in which editors check it, has no (?P<name>...).
        return handler(core) | {"pattern": f"^(?:{self.pattern.replace('?P<port>', '')})$"}

    def _checked(self, value: str) -> str:
        match = re.fullmatch(self.pattern, value)
        if match is None or int(match.groupdict().get("port") or 0) > _MAX_PORT:
            raise ValueError(f"must be {self.example}")
        return value


def _free_header(name: str) -> str:
    if name.lower() in _OWN_HEADERS or name.lower().startswith("content-"):
        raise ValueError(f"must not be {name}: the scanner alone decides about it")
    return name


def _printable(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("must be printable ASCII")
    return value


Count = Annotated[int, Field(gt=0)]
Size = Annotated[int, BeforeValidator(_size), Field(gt=0), _quantity_schema(_SIZE_UNITS)]
Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0), _quantity_schema(_TIME_UNITS)]
DurationOrNone = Annotated[
    float, BeforeValidator(_duration), Field(ge=0), _quantity_schema(_TIME_UNITS, "minimum")
]
Listen = Annotated[str, _Form(_HOST + _PORT, "host:port, like 127.0.0.1:8080")]
RedirectHost = Annotated[str, _Form(f"{_HOST}(?:{_PORT})?", "host or host:port")]
HttpUrl = Annotated[
    str,
    _Form(rf"https?://{_HOST}(?:{_PORT})?/?", "a URL without a path, like http://127.0.0.1:8008"),
    AfterValidator(lambda url: url.rstrip("/")),
]
ClamdAddress = Annotated[
    str, _Form(f"embedded|unix:/.+|tcp:{_HOST}{_PORT}", "embedded, unix:/path or tcp:host:port")
]
MimeType = Annotated[str, _Form(r"[a-z0-9.+-]+/(?:\*|[A-Za-z0-9.+_-]+)", "a type like image/png or image/*")]
Mirror = Annotated[
    str, _Form(rf"(?:https?://)?{_HOST}(?:{_PORT})?(?:/[^\s?#]*)?", "a host or a URL of a mirror")
]
HeaderName = Annotated[
    str, _Form(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "the name of a header"), AfterValidator(_free_header)
]
# Masked wherever it is printed: it may be what lets us in.
HeaderValue = Annotated[SecretStr, AfterValidator(_printable)]
Headers = dict[HeaderName, HeaderValue]
Network = Annotated[
    IPv4Network | IPv6Network, PlainValidator(_network, json_schema_input_type=str), PlainSerializer(str)
]
PublicKey = Annotated[
    str,
    _Form(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=?", "a public key as `keys generate` prints it"),
]


def _free_name(name: str) -> str:
    if name.startswith("scanner-"):
        raise ValueError("must not begin with scanner-: so scanners are called")
    return name


class Section(BaseModel):
    """Keys of the configuration; unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Analyst(Section):
    """Whose signatures on actions count, and for what."""

    name: Annotated[
        str,
        _Form(r"[a-z0-9][a-z0-9._-]{0,63}", "a name of a-z, 0-9, dots and dashes"),
        AfterValidator(_free_name),
    ]
    role: Literal["analyst", "approver", "former"]
    public_key: PublicKey


def _different_people(analysts: tuple[Analyst, ...]) -> tuple[Analyst, ...]:
    for member in ("name", "public_key"):
        if len({str(getattr(analyst, member)).rstrip("=") for analyst in analysts}) < len(analysts):
            raise ValueError(f"must not have the same {member} twice")
    return analysts


Analysts = Annotated[tuple[Analyst, ...], AfterValidator(_different_people)]
