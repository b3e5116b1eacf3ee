"""Configurations of other scanners as ours: matrix-content-scanner 1.x, and the Node scanner before it.

What has a counterpart becomes ours, and only if it is valid there. About the rest, and about whatever means
something else here, there is a note: nothing is left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scanner.config import Config
from scanner.errors import ConfigError
from scanner.strict_yaml import read_mapping

# Where `keys import-pickle` is to write the secret: beside the pickle.
_SECRET = "request_secret"

# The units of matrix-content-scanner (those of humanfriendly) in ours.
_UNITS = {
    name: unit
    for unit, names in {
        (1, "ms"): "ms millisecond milliseconds",
        (1, "s"): "s sec secs second seconds",
        (1, "m"): "m min mins minute minutes",
        (1, "h"): "h hour hours",
        (1, "d"): "d day days",
        (7, "d"): "w week weeks",
        (364, "d"): "y year years",
    }.items()
    for name in names.split()
}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


@dataclass(frozen=True)
class Note:
    """What there is to say about one key: of the file that was imported, or one of ours that it lacks."""

    key: str
    note: str


@dataclass(frozen=True)
class Imported:
    """Sections as they stand in a configuration file of ours, and what there is to say about them."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)


def import_config(file: Path) -> Imported:
    """What `file` means here. Raises ConfigError if it is no configuration of one of those scanners."""
    dialect, given = _read(file)
    draft = _Draft(file)
    draft.listen(dialect.listen, given)
    for key, value in given.items():
        if key in dialect.converted:
            dialect.converted[key](draft, key, value)
        elif key not in dialect.listen:
            draft.note(key, dialect.left_out.get(key, f"not a key of {dialect.name}; left out"))
    if "url" not in draft.imported.sections.get("homeserver", {}):
        draft.note(dialect.homeserver, _ONE_HOMESERVER)
    draft.note("limits.media_size", _LIMIT)
    return draft.imported


def pickled_secret(file: Path) -> tuple[Path, str]:
    """The pickle and the pickle key that `file` names. Raises ConfigError if it does not."""
    dialect, given = _read(file)
    draft = _Draft(file)
    path, pickle_key = (draft.text(key, given.get(key)) for key in dialect.pickle)
    return draft.beside(path), pickle_key


# -- what is written -----------------------------------------------------------------------------


class _Draft:
    """What `file` becomes."""

    def __init__(self, file: Path) -> None:
        self.imported = Imported()
        self.file = file

    def note(self, key: str, text: str) -> None:
        self.imported.notes.append(Note(key, text))

    def put(self, key: str, ours: str, value: object) -> bool:
        """Set `ours` (section.name), unless our own rules refuse `value`."""
        section, name = ours.split(".")
        problem = Config.problem_with(section, name, value)
        if problem is None:
            self.imported.sections.setdefault(section, {})[name] = value
        else:
            self.note(key, f"left out: {ours} {problem}")
        return problem is None

    def add(self, key: str, ours: str, items: list[str]) -> None:
        """Add to a list, each item that our own rules do not refuse."""
        section, name = ours.split(".")
        kept = [*self.imported.sections.get(section, {}).get(name, ())]
        kept += [item for item in items if self.put(key, ours, [item])]
        self.imported.sections.setdefault(section, {})[name] = kept

    def listen(self, keys: tuple[str, str], given: Mapping[str, object]) -> None:
        host, port = (self.text(key, given.get(key)) for key in keys)
        self.put(keys[0], "server.listen", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise ConfigError(f"{self.file}: {key}: {'is missing' if value is None else 'must be text'}")
        return value

    def texts(self, key: str, value: object) -> list[str]:
        if not isinstance(value, list):
            raise ConfigError(f"{self.file}: {key}: must be a list")
        return [self.text(key, item) for item in value]

    def mapping(self, key: str, value: object) -> dict[str, str]:
        if not isinstance(value, dict):
            raise ConfigError(f"{self.file}: {key}: must be a section of keys")
        return {self.text(key, name): self.text(f"{key}.{name}", item) for name, item in value.items()}

    def beside(self, path: str) -> Path:
        """Where it is if the other scanner was started in the folder of its configuration."""
        return self.file.absolute().parent / path


Convert = Callable[[_Draft, str, object], None]


def _text_to(ours: str) -> Convert:
    def convert(draft: _Draft, key: str, value: object) -> None:
        draft.put(key, ours, draft.text(key, value))

    return convert


def _texts_to(ours: str) -> Convert:
    def convert(draft: _Draft, key: str, value: object) -> None:
        draft.add(key, ours, draft.texts(key, value))

    return convert


def _headers(draft: _Draft, key: str, value: object) -> None:
    ours = "homeserver.additional_headers"
    headers = draft.mapping(key, value)
    draft.put(key, ours, {n: v for n, v in headers.items() if draft.put(f"{key}.{n}", ours, {n: v})})


def _secret(draft: _Draft, key: str, value: object) -> None:
    written = draft.text(key, value)
    path = draft.beside(written)
    if not Path(written).is_absolute():
        draft.note(key, f"taken as {path}, beside this file")
    draft.put(key, "crypto.secret_file", str(path))


def _pickle(draft: _Draft, key: str, value: object) -> None:
    secret = draft.beside(draft.text(key, value)).with_name(_SECRET)
    draft.note(key, f"turn it into the secret file: media-scanner keys import-pickle {draft.file} {secret}")
    draft.put(key, "crypto.secret_file", str(secret))


def _lifetime(draft: _Draft, key: str, value: object) -> None:
    match = _DURATION.fullmatch(draft.text(key, value).strip())
    number, unit = _UNITS.get(match[2].lower() or "s", (0, "")) if match else (0, "")
    if match is None or not unit:
        draft.note(key, "left out: no duration")
    else:
        quantity = f"{float(match[1]) * number:.3f}".rstrip("0").rstrip(".")
        draft.put(key, "verdict_cache.clean_ttl", quantity + unit)


def _user_agent(draft: _Draft, key: str, value: object) -> None:
    if draft.text(key, value) == "origin":
        draft.add(key, "homeserver.headers_to_forward", ["User-Agent"])
    else:
        draft.put(key, "homeserver.additional_headers", {"User-Agent": value})


def _direct(draft: _Draft, key: str, value: object) -> None:
    if draft.text(key, value).lower() == "true":
        draft.note(key, _ONE_HOMESERVER)


# -- what is read --------------------------------------------------------------------------------

_ONE_HOMESERVER = "remote homeservers are never asked: set homeserver.url to your own"
_LIMIT = (
    "larger media are refused, 20 MiB unless it is set: there was no such limit; set it to what your "
    "homeserver takes (Synapse: max_upload_size)"
)
_SCRIPT = "no script is run: clamd is asked directly, see clamav.addresses"
_NO_FILES = "media are held in memory: there are no files to place or remove"
_EXIT_CODES = "there are no exit codes; what could not be scanned is never remembered"
_ADDRESS = "the client's address always goes along; see server.trusted_proxies"


@dataclass(frozen=True)
class _Dialect:
    """One scanner's keys: those of its address, what becomes of others, and why some are left out."""

    name: str
    listen: tuple[str, str]
    homeserver: str
    pickle: tuple[str, str]
    converted: Mapping[str, Convert]
    left_out: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        return *self.listen, *self.converted, *self.left_out


_PYTHON = _Dialect(
    name="matrix-content-scanner",
    listen=("web.host", "web.port"),
    homeserver="download.base_homeserver_url",
    pickle=("crypto.pickle_path", "crypto.pickle_key"),
    converted={
        "scan.allowed_mimetypes": _texts_to("policy.allowed_types"),
        "scan.blocked_mimetypes": _texts_to("policy.blocked_types"),
        "download.base_homeserver_url": _text_to("homeserver.url"),
        "download.proxy": _text_to("homeserver.proxy"),
        "download.additional_headers": _headers,
        "download.headers_to_forward": _texts_to("homeserver.headers_to_forward"),
        "crypto.request_secret_path": _secret,
        "crypto.pickle_path": _pickle,
        "result_cache.ttl": _lifetime,
    },
    left_out={
        "scan.script": _SCRIPT,
        "scan.temp_directory": _NO_FILES,
        "scan.removal_command": _NO_FILES,
        "crypto.pickle_key": "only needed by media-scanner keys import-pickle",
        "result_cache.max_size": "the number of verdicts that are remembered is fixed",
        "result_cache.max_file_size": "verdicts are remembered, media are not",
        "result_cache.exit_codes_to_ignore": _EXIT_CODES,
    },
)

_NODE = _Dialect(
    name="the Node scanner",
    listen=("server.host", "server.port"),
    homeserver="scan.baseUrl",
    pickle=("middleware.encryptedBody.picklePath", "middleware.encryptedBody.pickleKey"),
    converted={
        "scan.baseUrl": _text_to("homeserver.url"),
        "scan.directDownload": _direct,
        "proxy": _text_to("homeserver.proxy"),
        "requestHeader.userAgent": _user_agent,
        "middleware.encryptedBody.picklePath": _pickle,
        "acceptedMimeType": _texts_to("policy.allowed_types"),
    },
    left_out={
        "scan.script": _SCRIPT,
        "scan.tempDirectory": _NO_FILES,
        "scan.doNotCacheExitCodes": _EXIT_CODES,
        "altRemovalCmd": _NO_FILES,
        "requestHeader.xForward": _ADDRESS,
        "middleware.encryptedBody.pickleKey": "only needed by media-scanner keys import-pickle",
    },
)


def _read(file: Path) -> tuple[_Dialect, dict[str, object]]:
    tree = read_mapping(file)
    if "web" in tree:
        dialect = _PYTHON
    elif "server" in tree and "scan" in tree:
        dialect = _NODE
    else:
        raise ConfigError(f"{file}: no configuration of matrix-content-scanner or of the Node scanner")
    try:
        return dialect, dict(_given(tree, dialect))
    except _NoSection as key:
        raise ConfigError(f"{file}: {key}: must be a section of keys") from None


class _NoSection(Exception):
    """A key that has keys in it, there; here it has a value."""


def _given(tree: Mapping[str, object], dialect: _Dialect, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted name and value of all that is not null; what is unknown counts as one value."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if value is None:
            continue
        if not any(known.startswith(f"{key}.") for known in dialect.keys):
            yield key, value
        elif isinstance(value, dict):
            yield from _given(value, dialect, f"{key}.")
        else:
            raise _NoSection(key)
