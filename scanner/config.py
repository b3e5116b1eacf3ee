"""One validated tree from a YAML file and the environment; the only reader of `os.environ`.

Defaults make an empty file work, unknown keys are errors, and every problem is one line that names where
it stands, the key and what is wrong. A field's description is its line in docs/configuration.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from scanner.errors import ConfigError

PREFIX = "MEDIA_SCANNER__"

_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_TIME_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z]*)")
_MIB = 2**20
_MAX_PORT = 65535

_YAML_NULL = "tag:yaml.org,2002:null"
_YAML_KINDS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")

# In an operator's words, by pydantic's names.
_PROBLEMS = {
    "extra_forbidden": "there is no such key",
    "model_type": "must be a section of keys",
    "string_type": "must be text",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "greater_than": "must be greater than 0",
    "too_short": "must not be empty",
}

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


def _of_form(pattern: str, example: str) -> AfterValidator:
    form = re.compile(pattern)

    def check(value: str) -> str:
        match = form.fullmatch(value)
        if match is None or int(match.groupdict().get("port") or 0) > _MAX_PORT:
            raise ValueError(f"must be {example}")
        return value

    return AfterValidator(check)


Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0)]
Listen = Annotated[str, _of_form(_HOST + _PORT, "host:port, like 127.0.0.1:8080")]
RedirectHost = Annotated[str, _of_form(f"{_HOST}(?:{_PORT})?", "host or host:port")]
HttpUrl = Annotated[
    str,
    _of_form(rf"https?://{_HOST}(?:{_PORT})?/?", "a URL without a path, like http://127.0.0.1:8008"),
    AfterValidator(lambda url: url.rstrip("/")),
]
ClamdAddress = Annotated[
    str, _of_form(f"embedded|unix:/.+|tcp:{_HOST}{_PORT}", "embedded, unix:/path or tcp:host:port")
]
MimeType = Annotated[
    str, _of_form(r"[a-z0-9.+-]+/(?:\*|[A-Za-z0-9.+_-]+)", "a type like image/png or image/*")
]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network), PlainSerializer(str)]
Handling = Literal["deliver", "withhold"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Section):
    """Where we listen, and how long a request may take."""

    listen: Listen = Field("127.0.0.1:8080", description="Address of the scanner API, for clients.")
    ops_listen: Listen = Field(
        "127.0.0.1:8081", description="Address of metrics and readiness with reasons, for operators only."
    )
    request_timeout: Duration = Field(28.0, description="One deadline per request. Clients give up at 30 s.")
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="Networks of reverse proxies whose X-Forwarded-For is believed."
    )


class Homeserver(_Section):
    """The one media repository that is ever asked."""

    url: HttpUrl = Field("http://127.0.0.1:8008", description="Base URL of the homeserver, without a path.")
    first_byte_timeout: Duration = Field(
        25.0, description="Until the head of its answer is complete. Synapse waits 20 s for pending media."
    )
    idle_timeout: Duration = Field(5.0, description="Between two pieces of a body.")
    total_timeout: Duration = Field(25.0, description="For a whole body.")
    redirect_hosts: tuple[RedirectHost, ...] = Field(
        (), description="host[:port] that it may redirect to (a CDN). The token never goes there."
    )


class Crypto(_Section):
    """Secrets, each 32 bytes in base64, as matrix-content-scanner has them."""

    secret_file: Path | None = Field(
        None, description="Opens sealed request bodies. Null: generated once in `state_dir`."
    )
    retired_secret_files: tuple[Path, ...] = Field(
        (),
        description="Earlier secrets, which clients may still seal to: Element X never asks for it again.",
    )
    index_secret_file: Path | None = Field(
        None, description="Keys the names of remembered content. Null: generated once in `state_dir`."
    )


class Limits(_Section):
    """What one request, and all together, may take."""

    media_size: Size = Field(20 * _MIB, description="Larger media are refused with 413.")
    memory: Size = Field(
        256 * _MIB,
        validate_default=True,
        description="Budget for bodies under way; an eighth is for those up to 1 MiB.",
    )
    queue_wait: Duration = Field(10.0, description="How long to wait for memory or a scan slot before 503.")

    @field_validator("memory")
    @classmethod
    def _a_share_holds_one_media(cls, memory: int, others: ValidationInfo) -> int:
        media_size = others.data.get("media_size", 0)
        least = max(media_size + media_size // 7 + 1, 8 * _MIB)
        if memory < least:
            raise ValueError(f"must be at least {-(-least // _MIB)}MiB to hold one limits.media_size")
        return memory


class ClamAV(_Section):
    """Where the antivirus is."""

    addresses: tuple[ClamdAddress, ...] = Field(
        ("embedded",),
        min_length=1,
        description="`embedded` (a clamd of our own), `unix:/path` or `tcp:host:port`; several for failover.",
    )
    scan_timeout: Duration = Field(25.0, description="For one scan, connection included.")
    signature_poll: Duration = Field(5.0, description="How often versions and database files are looked at.")
    max_signature_age: Duration | None = Field(
        7 * 86400.0, description="Older signatures make us not ready. Null: any set will do."
    )
    accept_test_signatures: bool = Field(
        False,  # noqa: FBT003 - pydantic takes the default by position
        description="Scan with the embedded test set, which knows EICAR and little else. For trying only.",
    )


class Policy(_Section):
    """Which media are handed over."""

    allowed_types: tuple[MimeType, ...] | None = Field(
        None, description="If set, only these types, judged by content. `image/*` stands for all images."
    )
    blocked_types: tuple[MimeType, ...] | None = Field(None, description="If set, these types are refused.")
    encrypted_archives: Handling = Field("withhold", description="Archives with a password.")
    encrypted_documents: Handling = Field("withhold", description="Documents with a password.")
    unscannable: Handling = Field("withhold", description="Whatever else cannot be inspected.")


class VerdictCache(_Section):
    """What is remembered."""

    url: Literal["sqlite", "memory"] = Field("sqlite", description="`sqlite` (in `state_dir`) or `memory`.")
    clean_ttl: Duration = Field(86400.0, description="How long a verdict is remembered at most.")


class Log(_Section):
    """JSON lines on standard output."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="`debug` has a line for every request. Detections are always logged."
    )


class Config(_Section):
    """The whole tree."""

    server: Server = Server()
    state_dir: Path = Field(
        Path("/var/lib/media-scanner"), description="Generated secrets and remembered verdicts."
    )
    homeserver: Homeserver = Homeserver()
    crypto: Crypto = Crypto()
    limits: Limits = Limits()
    clamav: ClamAV = ClamAV()
    policy: Policy = Policy()
    verdict_cache: VerdictCache = VerdictCache()
    log: Log = Log()

    @classmethod
    def load(cls, path: Path | None, environ: Mapping[str, str] = os.environ) -> Self:
        """The file (none: defaults) under the environment; raises ConfigError."""
        tree = _read(path) if path is not None else {}
        origin = _overlay(tree, environ)
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(_first_problem(error, origin, path)) from None


class _Loader(yaml.SafeLoader):
    """YAML without its traps: a scalar is text or null (no dates, no base 60), and a key stands once."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [rule for rule in rules if rule[0] == _YAML_NULL]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012 - as PyYAML has it
        tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (_YAML_NULL, *_YAML_KINDS, None)
    }

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - as PyYAML has it
    ) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep)
        given = set()
        for key, _ in node.value:
            if key.value in given:
                raise _GivenTwice(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            given.add(key.value)
        return mapping


class _GivenTwice(yaml.MarkedYAMLError):
    """One key twice in one mapping; YAML forbids it, PyYAML takes the last."""


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_bytes(), _Loader)  # noqa: S506 - safer than the safe one
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        problem = error.problem if isinstance(error, _GivenTwice) else "not valid YAML"
        raise ConfigError(f"{path}:{line} {problem}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must be a mapping of sections")
    return {section: keys for section, keys in tree.items() if keys is not None}


def _overlay(tree: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Put MEDIA_SCANNER__SECTION__KEY into the tree; returns which variable set which key."""
    origin = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        *sections, key = variable.removeprefix(PREFIX).lower().split("__")
        node: Any = tree
        for section in sections:
            node = node.setdefault(section, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise ConfigError(f"{variable}: there is no such key")
        node[key] = _value(environ[variable])
        origin[".".join([*sections, key])] = variable
    return origin


def _value(text: str) -> Any:  # noqa: ANN401 - whatever stands there
    """YAML; plain text where it is none, such as [::1]:8080."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - safer than the safe one
    except (yaml.YAMLError, RecursionError):
        return text


def _first_problem(error: ValidationError, origin: Mapping[str, str], path: Path | None) -> str:
    """One line: where it stands, which key, what is wrong; never the value, it may be a secret."""
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    message = _PROBLEMS.get(first["type"], first["msg"].removeprefix("Value error, "))
    message = message.replace("Input should be", "must be")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{_source(key, origin) or path or 'defaults'}: {key}: {message}{more}"


def _source(key: str, origin: Mapping[str, str]) -> str | None:
    """The variable that set `key`, its section or something in it; the one that says most."""
    about = [k for k in origin if f"{key}.".startswith(f"{k}.") or k.startswith(f"{key}.")]
    return origin[max(about, key=len)] if about else None
