"""Synapse's side: whatever Synapse is about to store, the scanner judges first (docs/synapse-module.md).

A module for Synapse. It imports no sibling and nothing that Synapse lacks, so that this package can be
installed into Synapse's environment without its dependencies. The rules of this module: files are read,
hashed and sent in threads of its own, so that neither the reactor nor Synapse's threads ever wait for the
scanner; no file is in memory as a whole; what the scanner did not decide in time is not stored, unless the
operator wants it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlencode, urlsplit

from synapse.module_api import NOT_SPAM, ModuleApi
from synapse.module_api.errors import Codes, ConfigError, SynapseError
from twisted.internet import reactor
from twisted.python.threadpool import ThreadPool

if TYPE_CHECKING:
    from synapse.media._base import FileInfo
    from synapse.media.media_storage import ReadableFileWrapper

logger = logging.getLogger(__name__)

_ROUTE = "/_media_scanner/v1/inspect"
_SECRET_BYTES = 32
_PIECE = 256 * 1024
_MAX_ANSWER = 64 * 1024
_THREADS = 16  # files in hand at once; the others wait
_TRIES = 2
_RETRY_AFTER = 5  # seconds


@dataclass(frozen=True, slots=True)
class Settings:
    """The module's `config` in homeserver.yaml. `timeout` is in seconds, for all that one file takes."""

    host: str
    port: int | None
    tls: bool
    secret: str = field(repr=False)
    timeout: float = 25.0
    deliver_unjudged: bool = False

    @classmethod
    def parse(cls, config: dict[str, Any]) -> Self:
        """Reads the secret file, too. Raises Synapse's ConfigError."""
        for key in config.keys() - {"url", "secret_file", "timeout", "when_unavailable"}:
            raise ConfigError("there is no such key", (str(key),))
        host, port, tls = _address(config.get("url"))
        timeout = config.get("timeout", 25)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ConfigError("must be a number of seconds greater than 0", ("timeout",))
        unavailable = config.get("when_unavailable", "withhold")
        if unavailable not in ("withhold", "deliver"):
            raise ConfigError("must be withhold or deliver", ("when_unavailable",))
        secret = _secret(config.get("secret_file"))
        return cls(host, port, tls, secret, float(timeout), unavailable == "deliver")


def _address(url: object) -> tuple[str, int | None, bool]:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("must be a URL", ("url",)) from None
    bare = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    if parts.scheme not in {"http", "https"} or not host or not bare:
        raise ConfigError("must be like http://127.0.0.1:8081, without a path", ("url",))
    return host, port, parts.scheme == "https"


def _secret(file: object) -> str:
    """In the form in which it is sent."""
    if not isinstance(file, str) or not file:
        raise ConfigError("must be the path of a file", ("secret_file",))
    try:
        text = Path(file).read_text(encoding="ascii").strip().rstrip("=")
        secret = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except OSError as problem:
        raise ConfigError(f"{file}: {problem.strerror}", ("secret_file",)) from None
    except ValueError:
        secret = b""
    if len(secret) != _SECRET_BYTES:
        raise ConfigError(f"{file}: must hold {_SECRET_BYTES} bytes in base64", ("secret_file",))
    return b64encode(secret).decode()


class Undecided(Exception):
    """The scanner gave no decision; `retry_after` is in seconds, None where it would give none then."""

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Decision:
    """What the scanner's policy makes of a file, and why; `sha256` is in hexadecimal digits."""

    deliver: bool
    why: str
    sha256: str


class Scanner:
    """Asks the scanner. It blocks; `deadline` is in the time of `time.monotonic`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def decide(self, path: str, mxc: str | None, deadline: float) -> Decision:
        """The decision on the file at `path`, which is sent only where its hash is unknown.

        Raises Undecided.
        """
        try:
            with Path(path).open("rb") as file:
                return self._decide(file, mxc, deadline)
        except TimeoutError:
            raise Undecided("no answer in time") from None
        except (OSError, HTTPException) as problem:
            raise Undecided(f"{type(problem).__name__}: {problem}") from None

    def _decide(self, file: BufferedReader, mxc: str | None, deadline: float) -> Decision:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
        # All that Synapse asks about goes to it, remote media as well: whether clients may have
        # ciphertexts without a key (`policy.opaque_downloads`) is decided where they ask for them.
        asked = {"sha256": sha256, "size": size, "purpose": "upload"} | ({"mxc": mxc} if mxc else {})
        target = f"{_ROUTE}?{urlencode(asked)}"
        with closing(self._connection(deadline)) as connection:
            told = self._ask(connection, target, None, deadline)
            if told.get("known") is False:
                told = self._ask(connection, target, (file, size), deadline)
        if not isinstance(told.get("deliver"), bool):
            raise Undecided("answered something else than a decision")
        named = [told.get("outcome"), told.get("reason"), *told.get("signatures", ())]
        return Decision(told["deliver"], ", ".join(str(word) for word in named if word), sha256)

    def _connection(self, deadline: float) -> HTTPConnection:
        kind = HTTPSConnection if self._settings.tls else HTTPConnection
        return kind(self._settings.host, self._settings.port, timeout=_remaining(deadline))

    def _ask(
        self,
        connection: HTTPConnection,
        target: str,
        body: tuple[BufferedReader, int] | None,
        deadline: float,
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._settings.secret}", "Content-Length": "0"}
        pieces = None
        if body is not None:
            file, size = body
            headers["Content-Length"] = str(size)
            pieces = _pieces(file, connection, deadline)
        connection.request("POST", target, pieces, headers)
        _set_timeout(connection, deadline)
        return _content(connection.getresponse())


def _pieces(file: BufferedReader, connection: HTTPConnection, deadline: float) -> Iterator[bytes]:
    """Of the whole file, each to be taken before the deadline."""
    file.seek(0)
    while piece := file.read(_PIECE):
        _set_timeout(connection, deadline)
        yield piece


def _set_timeout(connection: HTTPConnection, deadline: float) -> None:
    if connection.sock is not None:
        connection.sock.settimeout(_remaining(deadline))


def _remaining(deadline: float) -> float:
    """Seconds; raises TimeoutError where there are none."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _content(answer: HTTPResponse) -> dict[str, Any]:
    raw = answer.read(_MAX_ANSWER)
    try:
        content = json.loads(raw)
    except ValueError:
        content = None
    if answer.status == 200 and isinstance(content, dict):
        return content
    error = content.get("error", "") if isinstance(content, dict) else ""
    retry_after = answer.headers.get("Retry-After", "")
    later = float(retry_after) if answer.status == 503 and retry_after.isdecimal() else None
    raise Undecided(f"answered {answer.status} {error}".rstrip(), later)


class MediaScanner:
    """The module, as `modules` in homeserver.yaml names it."""

    def __init__(self, settings: Settings, api: ModuleApi) -> None:
        self._settings = settings
        self._api = api
        self._scanner = Scanner(settings)
        # Synapse's own threads also write files and resolve names. Without `minthreads` none starts before
        # Synapse has become a daemon.
        self._threads = ThreadPool(minthreads=0, maxthreads=_THREADS, name="media-scanner")
        self._threads.start()
        reactor.addSystemEventTrigger("during", "shutdown", self._threads.stop)  # type: ignore[arg-type]
        api.register_spam_checker_callbacks(check_media_file_for_spam=self.check_media_file_for_spam)

    @staticmethod
    def parse_config(config: dict[str, Any]) -> Settings:
        """Called by Synapse. Raises its ConfigError."""
        return Settings.parse(config)

    async def check_media_file_for_spam(
        self, file_wrapper: ReadableFileWrapper, file_info: FileInfo
    ) -> Literal["NOT_SPAM"] | Codes:
        """Called by Synapse for what it is about to store. Raises SynapseError where there is no decision."""
        try:
            decision = await self._decision(file_wrapper.path, self._mxc(file_info))
        except Undecided as problem:
            return self._without_decision(file_info, problem)
        if decision.deliver:
            return NOT_SPAM
        logger.warning("Withheld %s: %s; sha256 %s", _named(file_info), decision.why, decision.sha256)
        return Codes.FORBIDDEN

    async def _decision(self, path: str, mxc: str | None) -> Decision:
        """Where the scanner is busy, it is asked once more."""
        deadline = time.monotonic() + self._settings.timeout
        for left in reversed(range(_TRIES)):
            try:
                return await self._api.defer_to_threadpool(
                    self._threads, self._scanner.decide, path, mxc, deadline
                )
            except Undecided as problem:
                wait = problem.retry_after
                if not left or wait is None or time.monotonic() + wait >= deadline:
                    raise
            await self._api.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _without_decision(self, file_info: FileInfo, problem: Undecided) -> Literal["NOT_SPAM"]:
        if self._settings.deliver_unjudged:
            logger.error("Stored UNSCANNED %s: the scanner: %s", _named(file_info), problem)
            return NOT_SPAM
        logger.error("Not stored %s: the scanner: %s", _named(file_info), problem)
        raise SynapseError(
            503,
            "This file cannot be checked for malware now, try again later",
            Codes.UNKNOWN,
            headers={"Retry-After": str(_RETRY_AFTER)},
        )

    def _mxc(self, file_info: FileInfo) -> str | None:
        """Of remote media Synapse tells only the name of its own copy."""
        return None if file_info.server_name else f"mxc://{self._api.server_name}/{file_info.file_id}"


def _named(file_info: FileInfo) -> str:
    kind = "thumbnail of " if file_info.thumbnail else "URL preview " if file_info.url_cache else ""
    origin = f"remote media of {file_info.server_name}, file" if file_info.server_name else "local media"
    return f"{kind}{origin} {file_info.file_id}"
