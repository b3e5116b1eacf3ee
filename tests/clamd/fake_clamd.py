"""A clamd that misbehaves, on real sockets: for the faults that a real one cannot be made to have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from scanner.clamd.protocol import ClamdAddress
from tests.connections import Connections

VERSION = b"ClamAV 1.4.6/27800/Wed Nov 18 09:31:00 2026"


class Connection:
    """One client's connection, after its command was read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: str) -> None:
        self.command = command
        self.reader = reader
        self._writer = writer

    async def receive_sample(self) -> bytes:
        """All frames of an INSTREAM; the byte that comes with a FILDES's descriptor."""
        if self.command == "FILDES":
            return await self.reader.readexactly(1)
        sample = b""
        while length := int.from_bytes(await self.reader.readexactly(4), "big"):
            sample += await self.reader.readexactly(length)
        return sample

    async def say(self, text: bytes) -> None:
        """`PREFIX` stands for what a real clamd would put before its statement."""
        prefix = b"fd[10]" if self.command == "FILDES" else b"stream"
        self._writer.write(text.replace(b"PREFIX", prefix))
        await self._writer.drain()


Behaviour = Callable[[Connection], Awaitable[None]]


class FakeClamd:
    """Listens on a unix socket and a TCP port; `behaviour` has what it does with a scan.

    `version` is what it answers to VERSION, None: nothing. `commands` are those it was sent.
    """

    def __init__(self, directory: Path, behaviour: Behaviour, version: bytes | None = VERSION) -> None:
        self.behaviour = behaviour
        self.version = version
        self.commands: list[str] = []
        self._path = directory / "fake.sock"
        self._connections = Connections(self._answer)

    async def __aenter__(self) -> Self:
        unix = await asyncio.start_unix_server(self._connections.accept, self._path)
        tcp = await asyncio.start_server(self._connections.accept, "127.0.0.1", 0)
        self._servers = unix, tcp
        self.unix = ClamdAddress(path=str(self._path))
        self.tcp = ClamdAddress(host="127.0.0.1", port=tcp.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *exception: object) -> None:
        for server in self._servers:
            server.close()
        await self._connections.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = b"\0" if await reader.readexactly(1) == b"z" else b"\n"
        command = (await reader.readuntil(end))[:-1].decode()
        self.commands.append(command)
        connection = Connection(reader, writer, command)
        if command in {"FILDES", "INSTREAM"}:
            await self.behaviour(connection)
        elif command == "RELOAD":
            await connection.say(b"RELOADING\n")
        elif self.version is None:
            await stall(connection)
        else:
            await connection.say(self.version + b"\n")


def says(*pieces: bytes) -> Behaviour:
    """Takes the whole sample, then sends these pieces, one by one."""

    async def behave(connection: Connection) -> None:
        await connection.receive_sample()
        for piece in pieces:
            await connection.say(piece)
            await asyncio.sleep(0)

    return behave


def says_early(text: bytes) -> Behaviour:
    """Says its piece at once, and only then takes the sample."""

    async def behave(connection: Connection) -> None:
        await connection.say(text)
        await connection.receive_sample()

    return behave


def says_and_stays(text: bytes) -> Behaviour:
    """Takes the sample, says its piece, and leaves the connection open."""

    async def behave(connection: Connection) -> None:
        await connection.receive_sample()
        await connection.say(text)
        await stall(connection)

    return behave


async def stall(connection: Connection) -> None:
    """Reads nothing (more), says nothing, for ever."""
    await asyncio.Event().wait()


async def stall_after_sample(connection: Connection) -> None:
    """Takes the sample and says nothing, for ever."""
    await connection.receive_sample()
    await stall(connection)


async def hang_up(connection: Connection) -> None:
    """Closes without a word, before the sample."""


ok = says(b"PREFIX: OK\0")
found = says(b"PREFIX: Eicar-Test-Signature FOUND\0")
