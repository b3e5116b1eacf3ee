"""One validated tree from a YAML file and the environment; the only reader of `os.environ`.

Defaults make an empty file work, unknown keys are errors, and every problem is one line that names where
it stands, the key and what is wrong. A field's description is its line in docs/configuration.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from scanner.config_quarantine import Quarantine
from scanner.config_values import (
    ClamdAddress,
    Count,
    Duration,
    HeaderName,
    Headers,
    HttpUrl,
    Listen,
    MimeType,
    Mirror,
    Network,
    RedirectHost,
    Section,
    Size,
)
from scanner.errors import ConfigError
from scanner.strict_yaml import read_mapping, read_value

PREFIX = "MEDIA_SCANNER__"
_MIB = 2**20

# In an operator's words, by pydantic's names.
_PROBLEMS = {
    "extra_forbidden": "there is no such key",
    "model_type": "must be a section of keys",
    "string_type": "must be text",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "dict_type": "must be a section of keys",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "greater_than": "must be greater than 0",
    "too_short": "must not be empty",
}

Handling = Literal["deliver", "withhold"]


class Origin(StrEnum):
    """Where the value of a setting comes from."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


class Server(Section):
    """Where we listen, and how long a request may take."""

    listen: Listen = Field("127.0.0.1:8080", description="Address of the scanner API, for clients.")
    ops_listen: Listen = Field(
        "127.0.0.1:8081", description="Address of metrics and readiness with reasons, for operators only."
    )
    request_timeout: Duration = Field(28.0, description="One deadline per request. Clients give up at 30 s.")
    trusted_proxies: tuple[Network, ...] = Field(
        (), description="Networks of reverse proxies whose X-Forwarded-For is believed."
    )
    inspect_secret_file: Path | None = Field(
        None,
        description="The secret of the Synapse module and `scan --remote`. Null: nobody can use `inspect`.",
    )


class Homeserver(Section):
    """The one media repository that is ever asked."""

    url: HttpUrl = Field("http://127.0.0.1:8008", description="Base URL of the homeserver, without a path.")
    ca_file: Path | None = Field(
        None, description="Certificates (PEM) to trust for an https homeserver. Null: the system's."
    )
    proxy: HttpUrl | None = Field(None, description="HTTP proxy on the way to it.")
    first_byte_timeout: Duration = Field(
        25.0, description="Until the head of its answer is complete. Synapse waits 20 s for pending media."
    )
    idle_timeout: Duration = Field(5.0, description="Between two pieces of a body.")
    total_timeout: Duration = Field(25.0, description="For a whole body.")
    admin_token_file: Path | None = Field(
        None, description="Access token of an admin, with which infected media are quarantined in Synapse."
    )
    redirect_hosts: tuple[RedirectHost, ...] = Field(
        (), description="host[:port] that it may redirect to (a CDN). The token never goes there."
    )
    additional_headers: Headers = Field(
        {}, description="Headers that every request to it carries, such as a User-Agent."
    )
    headers_to_forward: tuple[HeaderName, ...] = Field(
        (), description="Headers of the client's request that go to it as they are."
    )


class Crypto(Section):
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


class Limits(Section):
    """What one request, and all together, may take."""

    media_size: Size = Field(20 * _MIB, description="Larger media are refused with 413.")
    memory: Size = Field(
        256 * _MIB,
        validate_default=True,
        description="Budget for media under way. A quarter is for uploads, an eighth for small downloads.",
    )
    queue_wait: Duration = Field(10.0, description="How long to wait for memory or a scan slot before 503.")

    @field_validator("memory")
    @classmethod
    def _each_share_holds_one_media(cls, memory: int, others: ValidationInfo) -> int:
        """Downloads, uploads, and what the homeserver has inspected, beside an eighth for small ones."""
        media_size = others.data.get("media_size", 0)
        least = max(-(-3 * media_size * 8 // 7), 8 * _MIB)
        if memory < least:
            raise ValueError(f"must be at least {-(-least // _MIB)}MiB to hold one limits.media_size")
        return memory


class ClamAV(Section):
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
    freshclam: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Keep the embedded clamd's signatures fresh. `auto`: unless another freshclam does.",
    )
    mirrors: tuple[Mirror, ...] = Field(
        (),
        description="Mirrors of ClamAV's signatures, and URLs of database files. None: database.clamav.net.",
    )
    mirror_proxy: HttpUrl | None = Field(None, description="HTTP proxy on the way to the mirrors.")
    accept_test_signatures: bool = Field(
        False,  # noqa: FBT003 - pydantic takes the default by position
        description="Scan with the embedded test set, which knows EICAR and little else. For trying only.",
    )

    @field_validator("freshclam")
    @classmethod
    def _has_a_clamd_of_ours(cls, freshclam: str, others: ValidationInfo) -> str:
        if freshclam == "on" and "embedded" not in others.data.get("addresses", ("embedded",)):
            raise ValueError("must not be on without embedded among clamav.addresses")
        return freshclam


class Archives(Section):
    """How far we unpack what clamd does not see into: [archives](archives.md)."""

    depth: Count = Field(8, description="Archives inside of each other, in the file itself.")
    members: Count = Field(10_000, description="In one file, those of the archives in it included.")
    unpacked: Size = Field(300 * _MIB, description="What they may come to.")
    time: Duration = Field(10.0, description="For unpacking one file. What clamd takes does not count.")
    ratio: Count = Field(200, description="Of unpacked to packed bytes, for what comes to more than 50 MiB.")


class Policy(Section):
    """Which media are handed over."""

    mode: Literal["enforce", "observe"] = Field(
        "enforce", description="`observe` hands over everything and tells what it would have withheld."
    )
    language: Literal["en", "fr"] = Field("en", description="Of the texts that users see.")
    allowed_types: tuple[MimeType, ...] | None = Field(
        None, description="If set, only these types, judged by content. `image/*` stands for all images."
    )
    blocked_types: tuple[MimeType, ...] | None = Field(None, description="If set, these types are refused.")
    types_in_archives: bool = Field(
        False,  # noqa: FBT003 - pydantic takes the default by position
        description="Whether both lists hold for what is in archives, too.",
    )
    encrypted_archives: Handling = Field("withhold", description="Archives with a password.")
    encrypted_documents: Handling = Field("withhold", description="Documents with a password.")
    unscannable: Handling = Field("withhold", description="Whatever else cannot be inspected.")
    opaque_uploads: Handling = Field(
        "deliver", description="Uploads that may be encrypted: the homeserver's routes carry no key."
    )
    opaque_downloads: Handling = Field(
        "deliver",
        description="The same on download there. `withhold` makes clients ask the scanner API, with the key.",
    )


class VerdictCache(Section):
    """What is remembered."""

    url: Literal["sqlite", "memory"] = Field("sqlite", description="`sqlite` (in `state_dir`) or `memory`.")
    clean_ttl: Duration = Field(86400.0, description="How long a verdict is remembered at most.")


class Log(Section):
    """JSON lines on standard output."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="`debug` has a line for every request. Detections are always logged."
    )


def _null_is_as_good_as_none(schema: dict[str, Any]) -> None:
    """As `_sections` has it; a section whose keys are all comments is null in YAML."""
    sections = schema["properties"]
    for name, section in sections.items():
        sections[name] = {"anyOf": [section, {"type": "null"}]}


class Config(Section):
    """The whole tree."""

    model_config = ConfigDict(json_schema_extra=_null_is_as_good_as_none)

    server: Server = Server()
    state_dir: Path = Field(
        Path("/var/lib/media-scanner"), description="Generated secrets, remembered verdicts, quarantine."
    )
    homeserver: Homeserver = Homeserver()
    crypto: Crypto = Crypto()
    limits: Limits = Limits()
    clamav: ClamAV = ClamAV()
    archives: Archives = Archives()
    policy: Policy = Policy()
    verdict_cache: VerdictCache = VerdictCache()
    quarantine: Quarantine = Quarantine()
    log: Log = Log()

    @field_validator("quarantine")
    @classmethod
    def _is_no_more_open_than_the_media(cls, quarantine: Quarantine, others: ValidationInfo) -> Quarantine:
        homeserver = others.data.get("homeserver")
        plain = (quarantine.s3.endpoint_url or "").startswith("http:")
        if plain and homeserver is not None and homeserver.url.startswith("https:"):
            raise ValueError("s3.endpoint_url must be https, as homeserver.url is")
        return quarantine

    @classmethod
    def load(cls, path: Path | None, environ: Mapping[str, str] = os.environ) -> Self:
        """The file (none: defaults) under the environment; raises ConfigError."""
        return cls.load_with_origins(path, environ)[0]

    @classmethod
    def load_with_origins(
        cls, path: Path | None, environ: Mapping[str, str] = os.environ
    ) -> tuple[Self, dict[str, Origin]]:
        """As `load`, and where each setting comes from, by its dotted name."""
        tree = _sections(path) if path is not None else {}
        variables = _overlay(tree, environ)
        try:
            config = cls.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(_first_problem(error, variables, path)) from None
        return config, {key: _origin(key, given, variables) for key, _, given in _settings(config)}

    def settings(self) -> dict[str, object]:
        """The value of every setting, by its dotted name."""
        return {key: value for key, value, _ in _settings(self)}

    @classmethod
    def problem_with(cls, section: str, key: str, value: object) -> str | None:
        """What is wrong with one setting, if something is, in an operator's words."""
        try:
            cls.model_validate({section: {key: value}})
        except ValidationError as error:
            return _problem(error)
        return None


def _settings(section: Section, prefix: str = "") -> Iterator[tuple[str, object, bool]]:
    """Dotted name and value of every setting, and whether it was given."""
    for name, value in section:
        if isinstance(value, Section):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, name in section.model_fields_set


def _origin(key: str, given: bool, variables: Mapping[str, str]) -> Origin:  # noqa: FBT001 - from `_settings`
    if not given:
        return Origin.DEFAULT
    return Origin.FILE if _variable(key, variables) is None else Origin.ENVIRONMENT


def _sections(path: Path) -> dict[str, Any]:
    """Of a file; an empty one is as good as none."""
    return {section: keys for section, keys in read_mapping(path).items() if keys is not None}


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
        node[key] = read_value(environ[variable])
        origin[".".join([*sections, key])] = variable
    return origin


def _first_problem(error: ValidationError, variables: Mapping[str, str], path: Path | None) -> str:
    """One line: where it stands, which key, what is wrong; never the value, it may be a secret."""
    key = ".".join(str(part) for part in error.errors()[0]["loc"] if part != "[key]")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{_variable(key, variables) or path or 'defaults'}: {key}: {_problem(error)}{more}"


def _problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    message = _PROBLEMS.get(first["type"], first["msg"].removeprefix("Value error, "))
    return message.replace("Input should be", "must be")


def _variable(key: str, variables: Mapping[str, str]) -> str | None:
    """The variable that set `key`, its section or something in it; the one that says most."""
    about = [k for k in variables if f"{key}.".startswith(f"{k}.") or k.startswith(f"{key}.")]
    return variables[max(about, key=len)] if about else None
