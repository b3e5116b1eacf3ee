"""A homeserver that misbehaves on demand: real sockets, raw bytes, nothing between them and a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import inf
from ssl import SSLContext
from typing import Self

from tests.connections import Connections

FOREVER = inf
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


class Then(Enum):
    """What ends a connection."""

    HANG_UP = auto()
    RESET = auto()


# Bytes are sent as they are, a number is a pause in seconds.
Step = bytes | float | Then


@dataclass(frozen=True)
class Heard:
    """One request, as it came: its head, and its body if it has a length."""

    raw: bytes
    connection: int
    body: bytes = b""

    @property
    def method(self) -> str:
        return self._line[0]

    @property
    def target(self) -> str:
        return self._line[1]

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.raw.decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def header(self, name: str) -> str | None:
        """The value of a header that may stand there once at most."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2
        return values[0] if values else None

    @property
    def _line(self) -> list[str]:
        return self.raw.decode("latin-1").split("\r\n")[0].split(" ")


Script = Callable[[Heard], Iterable[Step]]


class FakeHomeserver:
    """`script` says what goes out after each request, `heard` has all requests.

    `sent` counts the bytes that were taken from it, `abandoned` the clients that left during a script.
    `port` 0 is any that is free; with `tls` it speaks https.
    """

    def __init__(self, port: int = 0, tls: SSLContext | None = None) -> None:
        self.port = port
        self._tls = tls
        self.script: Script = serving(PNG, content_type="image/png")
        self.heard: list[Heard] = []
        self.reads_bodies = True
        self.sent = 0
        self.abandoned = 0
        self._connections = Connections(self._serve)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connections.accept, "127.0.0.1", self.port, backlog=1024, ssl=self._tls
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._connections.close()

    @property
    def lines(self) -> list[str]:
        """Method and target of every request."""
        return [f"{heard.method} {heard.target}" for heard in self.heard]

    @property
    def asked(self) -> list[str]:
        """The endpoint of every request: `GET client/v1`."""
        return [" ".join(_endpoint(heard)) for heard in self.heard]

    async def until_heard(self, number: int) -> None:
        """Wait until so many requests have come in."""
        await until(lambda: len(self.heard) >= number)

    async def until_abandoned(self, number: int = 1) -> None:
        """Wait until so many clients have left in the middle; within the second that is promised."""
        await until(lambda: self.abandoned >= number)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._answer_all(reader, writer, id(asyncio.current_task()))

    async def _answer_all(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> None:
        while True:
            try:
                raw = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            heard = Heard(raw.removesuffix(b"\r\n\r\n"), connection)
            if self.reads_bodies:
                length = int(heard.header("content-length") or 0)
                heard = replace(heard, body=await reader.readexactly(length))
            self.heard.append(heard)
            for step in self.script(heard):
                if not await self._take(step, reader, writer):
                    return

    async def _take(self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        if isinstance(step, Then):
            if step is Then.RESET:
                writer.transport.abort()
            return False
        if isinstance(step, bytes):
            return await self._send(step, writer)
        return not await self._left_within(step, reader)

    async def _send(self, piece: bytes, writer: asyncio.StreamWriter) -> bool:
        try:
            writer.write(piece)
            await writer.drain()
        except ConnectionError:
            self.abandoned += 1
            return False
        self.sent += len(piece)
        return True

    async def _left_within(self, seconds: float, reader: asyncio.StreamReader) -> bool:
        try:
            async with asyncio.timeout(None if seconds == FOREVER else seconds):
                assert not await reader.read(1), "a request before the answer to the last one"
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        self.abandoned += 1
        return True


async def until(holds: Callable[[], bool], seconds: float = 1.0) -> None:
    """Wait for something that nobody announces."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - it may be the kernel that makes it true
            await asyncio.sleep(0.005)


def _endpoint(heard: Heard) -> tuple[str, str]:
    parts = heard.target.split("/")
    return heard.method, "/".join(parts[2:4]).removesuffix("/media").replace("media/", "")


# -- what goes out -------------------------------------------------------------------------------


def head(status: str = "200 OK", headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """A response's head."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def media_head(length: int, content_type: str | None = "image/png", **headers: str) -> bytes:
    """The head of media of `length` bytes; underscores in the names of headers stand for hyphens."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    types = [] if content_type is None else [("Content-Type", content_type)]
    return head(headers=[*types, ("Content-Length", str(length)), *named])


def chunk(piece: bytes) -> bytes:
    """One chunk of a body whose length is not declared."""
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


CHUNKED_HEAD = head(headers=[("Content-Type", "image/png"), ("Transfer-Encoding", "chunked")])
LAST_CHUNK = b"0\r\n\r\n"


# -- scripts -------------------------------------------------------------------------------------


def saying(*steps: Step) -> Script:
    """The same to everybody."""
    return lambda heard: steps


def serving(content: bytes, content_type: str | None = "image/png", **headers: str) -> Script:
    """Media, to GET and HEAD alike."""
    answer = media_head(len(content), content_type, **headers)
    return lambda heard: [answer] if heard.method == "HEAD" else [answer, content]


def refusing(status: str, code: str | None = None, **headers: str) -> Script:
    """An error in the Matrix form; without a code, in no form at all."""
    body = b"<html>" if code is None else json.dumps({"errcode": code, "error": "No"}).encode()
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    answer = head(status, [("Content-Length", str(len(body))), *named])
    return lambda heard: [answer] if heard.method == "HEAD" else [answer, body]


def redirecting(location: str, status: str = "307 Temporary Redirect") -> Script:
    return saying(head(status, [("Location", location), ("Content-Length", "0")]))


def by_method(**scripts: Script) -> Script:
    return lambda heard: scripts[heard.method](heard)


def by_token(scripts: Mapping[str | None, Script]) -> Script:
    """One script for each `Authorization`."""
    return lambda heard: scripts[heard.header("authorization")](heard)


def by_endpoint(**scripts: Script) -> Script:
    """One script for each of `client`, `v3` and `r0`."""
    return lambda heard: scripts[_endpoint(heard)[1].partition("/")[0]](heard)


def in_turn(*scripts: Script) -> Script:
    """The first request gets the first one, and so on; the last one goes on for ever."""
    waiting = list(scripts)

    def script(heard: Heard) -> Iterable[Step]:
        current = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return current(heard)

    return script
