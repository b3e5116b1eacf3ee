"""An HTTP proxy on loopback: CONNECT and absolute URIs, and a list of what it was asked."""

from __future__ import annotations

import asyncio
from typing import Self
from urllib.parse import SplitResult, urlsplit

from tests.connections import Connections


class FakeProxy:
    """`asked` has the first line of every request, `heads` all of each; `refuses` is an answer to all."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.refuses: bytes | None = None
        self._connections = Connections(self._answer)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connections.accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._connections.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, url = self._noted(head)
        if self.refuses is not None:
            writer.write(self.refuses)
            return
        there, onward = await asyncio.open_connection(url.hostname, url.port or 80)
        back = asyncio.create_task(_pass(there, writer))
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await _pass(reader, onward)
                return
            while True:
                origin = f"{url.scheme}://{url.netloc}"
                onward.write(head.replace(target.encode(), target.removeprefix(origin).encode(), 1))
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, url = self._noted(head)
        finally:
            onward.close()
            back.cancel()

    def _noted(self, head: bytes) -> tuple[str, str, SplitResult]:
        self.heads.append(head)
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
        self.asked.append(f"{method} {target}")
        return method, target, urlsplit(f"//{target}" if method == "CONNECT" else target)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
