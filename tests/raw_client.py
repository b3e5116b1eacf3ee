"""An HTTP client that sends exactly the bytes it is given, and holds every answer to what all must have."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

# Of the scanner API, and of the homeserver's own routes.
_METHODS = ("GET, POST, OPTIONS", "GET, POST, PUT, OPTIONS")


@dataclass(frozen=True)
class Reply:
    """One complete answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def parse_head(cls, raw: bytes) -> Self:
        """Every answer of ours allows every origin, once, and does not say what serves it."""
        line, *rest = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        headers = [(name.lower(), value) for name, _, value in (header.partition(": ") for header in rest)]
        reply = cls(int(line.split(" ")[1]), headers, b"")
        assert reply.header("access-control-allow-origin") == "*"
        assert reply.header("access-control-allow-methods") in _METHODS
        assert reply.header("x-content-type-options") == "nosniff"
        assert {"authorization", "content-type"} <= set(
            (reply.header("access-control-allow-headers") or "").lower().split(", ")
        )
        assert reply.header("server") is None
        return reply

    def header(self, name: str) -> str | None:
        """The value of a header, which may stand there once at most."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} stands there {len(values)} times"
        return values[0] if values else None

    @property
    def length(self) -> int:
        """The declared length: always declared, but for what has no body."""
        declared = self.header("content-length")
        assert (declared is None) == (self.status in (204, 304))
        assert self.header("transfer-encoding") is None
        return int(declared or 0)

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object in the body."""
        assert self.header("content-type") == "application/json"
        assert self.header("cache-control") == "no-store"
        return dict(json.loads(self.body))

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and reason of an error of the scanner API: never with an `errcode` (facts/wire.md)."""
        assert self.content.keys() == {"reason", "info"}
        assert self.content["info"]
        return self.status, self.content["reason"]

    @property
    def matrix_error(self) -> tuple[int, str]:
        """Status and errcode of an error on the homeserver's routes."""
        assert self.header("access-control-allow-methods") == _METHODS[1]
        assert self.content["error"]
        assert "reason" not in self.content
        return self.status, self.content["errcode"]

    @property
    def unrecognized(self) -> bool:
        """Whether it is the one error that has the Matrix form."""
        return self.content.keys() == {"errcode", "error"} and self.content["errcode"] == "M_UNRECOGNIZED"


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with suppress(ConnectionError):
            await self.writer.drain()

    async def ask(self, data: bytes) -> Reply:
        await self.send(data)
        return await self.reply(to_head=data.startswith(b"HEAD "))

    async def reply(self, *, to_head: bool = False, within: float = 5.0) -> Reply:
        """The next answer."""
        async with asyncio.timeout(within):
            head = Reply.parse_head(await self._reader.readuntil(b"\r\n\r\n"))
            body = b"" if to_head else await self._reader.readexactly(head.length)
        return Reply(head.status, head.headers, body)

    async def interim(self) -> bytes:
        """The next interim answer, whole."""
        async with asyncio.timeout(5):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        async with asyncio.timeout(5):
            return await self._reader.read(size)

    async def ends(self, seconds: float = 5.0) -> bool:
        """Whether the other side closes, without another byte, in so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                return not await self._reader.read(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def half_close(self) -> None:
        self.writer.write_eof()

    def vanish(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def connected(port: int, *, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
    """A connection; a small `receive_buffer` (bytes) makes a reader slow that does not read."""
    with socket.socket() as sock:
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 64 * 1024)
        try:
            yield RawClient(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def request(
    target: str, token: str | None = None, *, method: str = "GET", body: bytes | None = None, **headers: str
) -> bytes:
    """A well-formed request; underscores in the names of headers stand for hyphens."""
    lines = [f"{method} {target} HTTP/1.1", "Host: scanner.example"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + (body or b"")
