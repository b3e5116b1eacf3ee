"""A bucket on moto's server, behind a proxy that misbehaves on demand, and what an analyst finds in it."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.session import get_session
from moto.server import ThreadedMotoServer

from scanner.crypto.envelope import public_key_of
from scanner.quarantine.records import DetectionRecord
from scanner.stores.s3 import S3, Bucket
from tests.connections import Connections
from tests.quarantine.test_outbox import PRIVATE, opened

CREDENTIALS = {name: uuid.uuid4().hex for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
_REFUSAL_BODY = b"<Error><Code>AccessDenied</Code><Message>No</Message></Error>"
_REFUSAL = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_REFUSAL_BODY), _REFUSAL_BODY)
)
_LATE = 3.0


class Fault(Enum):
    """What the server does instead of its work."""

    STOPPED = auto()
    STALLED = auto()
    REFUSING = auto()
    RESETTING = auto()
    LATE = auto()  # with `100 Continue`, and everything after it
    DEAF = auto()  # stores, and hangs up instead of saying so


@contextmanager
def moto() -> Iterator[str]:
    """The URL of a server."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Proxy:
    """Before the server at `upstream`; `refuses` says of which requests it is always so."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = parts.hostname or "", parts.port or 0
        self._fault: Fault | None = None
        self._connections = Connections(self._serve)
        self._server: asyncio.Server | None = None
        self.port = 0
        self.refuses: Callable[[bytes], bool] = lambda head: False

    async def suffer(self, fault: Fault | None) -> None:
        """From now on, on connections that are open as well."""
        self._fault = fault
        await self._connections.close()
        if fault is Fault.STOPPED:
            await self._stop()
        elif self._server is None:
            self._server = await asyncio.start_server(self._connections.accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        await self._stop()
        await self._connections.close()

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await self._answer(head, reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault is Fault.STALLED:
            await asyncio.sleep(3600)
        if self._fault is Fault.REFUSING or self.refuses(head):
            writer.write(_REFUSAL)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        if self._fault in (None, Fault.LATE, Fault.DEAF) and not self.refuses(head):
            await self._forward(head, reader, writer)

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection, so that each is looked at."""
        theirs, ours = await asyncio.open_connection(*self._upstream)
        name, _, rest = head.partition(b"\r\n")
        ours.write(name + b"\r\nConnection: close\r\n" + rest.replace(b"Connection: keep-alive\r\n", b""))
        sending = asyncio.create_task(_pipe(reader, ours))
        try:
            if self._fault is Fault.LATE:
                await asyncio.sleep(_LATE)
            if self._fault is Fault.DEAF:
                await _deaf(theirs, writer)
            else:
                await _pipe(theirs, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            sending.cancel()
            ours.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


async def _deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hands on `100 Continue`, and nothing of the answer."""
    first = await reader.read(65536)
    if first.startswith(b"HTTP/1.1 100"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if first.endswith(b" Continue\r\n\r\n"):
            await reader.read(65536)


class Analyst:
    """Reads a bucket past all faults, with the SOC's private key."""

    def __init__(self, store: S3, proxy: Proxy, name: str) -> None:
        self.proxy = proxy
        self._store = store
        self._name = name

    def settings(self, directory: Path, **quarantine: Any) -> dict[str, Any]:
        """The configuration's section for a scanner that stores here."""
        key = directory / "soc.pub"
        key.write_text(b64encode(public_key_of(PRIVATE)).decode())
        s3 = {"endpoint_url": f"http://127.0.0.1:{self.proxy.port}", "bucket": self._name}
        return {"store": "s3", "public_key_file": str(key), "s3": s3, **quarantine}

    async def names(self, prefix: str = "v1") -> list[str]:
        return [stored.key async for stored in self._store.listing(prefix)]

    async def samples(self) -> list[bytes]:
        """The plaintext of every sealed one; each must open, and be what it is called."""
        plaintexts = []
        for name in await self.names("v1/objects"):
            plaintext = opened(await self._store.get(name) or b"")
            assert name.endswith(hashlib.sha256(plaintext).hexdigest())
            plaintexts.append(plaintext)
        return plaintexts

    async def records(self) -> list[DetectionRecord]:
        return [
            DetectionRecord.from_json(await self._store.get(name) or b"")
            for name in await self.names("v1/detections")
        ]

    async def everything(self) -> bytes:
        """All names and contents."""
        names = await self.names("")
        return b"".join([name.encode() + (await self._store.get(name) or b"") for name in names])


@asynccontextmanager
async def bucket(endpoint: str) -> AsyncIterator[Analyst]:
    """A new one on a server of `moto`; `CREDENTIALS` must be in the environment."""
    name = f"b{uuid.uuid4().hex}"
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1")
        )
        await client.create_bucket(Bucket=name)
        proxy = Proxy(endpoint)
        await proxy.suffer(None)
        stack.push_async_callback(proxy.close)
        yield Analyst(await stack.enter_async_context(S3(Bucket(name, "", endpoint))), proxy, name)
