"""A cheap HTTP/1.1 client: bodies are counted and hashed, not collected."""

from __future__ import annotations

import asyncio
import hashlib
from typing import cast

_BUFFER = 1 << 18
_KEPT = 4096  # bytes: longer bodies are not kept


class Response:
    """Status, length, the last 64 bytes, and the body where it is short."""

    def __init__(self, *, hashed: bool) -> None:
        self.status = 0
        self.length = 0
        self.last = b""
        self.body = b""
        self._digest = hashlib.sha256() if hashed else None

    @property
    def digest(self) -> bytes | None:
        """SHA-256 of the body, where it was wanted."""
        return self._digest.digest() if self._digest else None

    def take(self, data: memoryview | bytes) -> None:
        self.length += len(data)
        self.last = bytes(data[-64:]) if len(data) >= 64 else (self.last + bytes(data))[-64:]
        if self.length <= _KEPT:
            self.body += bytes(data)
        if self._digest is not None:
            self._digest.update(data)


class _Wire(asyncio.BufferedProtocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER))
        self._answered: asyncio.Future[Response] | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answered and not self._answered.done():
            self._answered.set_exception(ConnectionError("closed by the server"))

    def ask(self, request: bytes, *, hashed: bool) -> asyncio.Future[Response]:
        self._response = Response(hashed=hashed)
        self._head: bytes | None = b""
        self._left = 0
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answered

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data: memoryview | bytes = self._buffer[:nbytes]
        if self._head is not None:
            head, end, data = (self._head + bytes(data)).partition(b"\r\n\r\n")
            self._head = None if end else head
            if not end:
                return
            self._read(head)
        self._response.take(data)
        self._left -= len(data)
        if self._left <= 0 and self._answered and not self._answered.done():
            self._answered.set_result(self._response)

    def _read(self, head: bytes) -> None:
        status, *lines = head.split(b"\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines)
        }
        self._response.status = int(status.split(b" ", 2)[1])
        self._left = int(headers[b"content-length"])  # chunks are for servers that none of the targets is
        self.closed = headers.get(b"connection", b"").lower() == b"close"


class Client:
    """One connection, opened again when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._wire: _Wire | None = None

    async def request(
        self, method: str, path: str, headers: str = "", body: bytes = b"", *, hashed: bool = False
    ) -> Response:
        """Raises OSError. What a server closed while it was idle is asked once more."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n{headers}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        content = head.encode() + b"\r\n" + body
        if self._wire and not self._wire.closed:
            try:
                return await self._wire.ask(content, hashed=hashed)
            except ConnectionError:
                self.close()
        return await (await self._connected()).ask(content, hashed=hashed)

    async def _connected(self) -> _Wire:
        self.close()
        loop = asyncio.get_running_loop()
        _, self._wire = await loop.create_connection(_Wire, "127.0.0.1", self._port)
        return self._wire

    def close(self) -> None:
        if self._wire:
            self._wire.transport.abort()
        self._wire = None
