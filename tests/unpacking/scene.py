"""An unpacker at work, and what can be seen of its processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

from scanner.containers.readers import Reader
from scanner.events import ProcessChanged
from scanner.unpacking.allowance import Allowance
from scanner.unpacking.fork_server import NAME, TEMPLATE
from scanner.unpacking.unpacker import Unpacker
from tests.fakes import RecordingSink

MIB = 2**20
PROBING = "tests.unpacking.probing"


def allowed(
    seconds: float = 20.0, *, members: int = 10_000, size: int = 300 * MIB, ratio: int = 200
) -> Allowance:
    """As the configuration's defaults, but for the time."""
    return Allowance(members, size, ratio, asyncio.get_running_loop().time() + seconds)


def memory_file(data: bytes) -> int:
    fd = os.memfd_create("container")
    os.write(fd, data)
    return fd


class Scene:
    """An unpacker, and all that it published."""

    def __init__(self, unpacker: Unpacker, sink: RecordingSink, module: str) -> None:
        self.unpacker = unpacker
        self.sink = sink
        self._module = module.encode()

    async def unpacked(
        self,
        data: bytes,
        reader: Reader = Reader.LIBARCHIVE,
        *,
        allowance: Allowance | None = None,
        largest: int = 300 * MIB,
    ) -> list[tuple[bytes, bytes]]:
        """Path and content of each member that has any."""
        fd = memory_file(data)
        try:
            found = self.unpacker.members(fd, reader, allowance or allowed(), largest)
            async with aclosing(found) as members:
                return [(member.path, taken(member.fd)) async for member in members]
        finally:
            os.close(fd)

    @property
    def ends(self) -> list[str]:
        """Why processes had to be replaced."""
        return [event.detail for event in self.sink.of(ProcessChanged) if event.state == "ended"]

    def template(self) -> int:
        """The process ID of the template."""
        [pid] = self.templates()
        return pid

    def templates(self) -> list[int]:
        """None while one starts."""
        return [pid for pid in children(os.getpid()) if self._module in command(pid)]

    def processes(self) -> list[int]:
        """Those of its children."""
        return children(self.template())

    async def idle(self) -> None:
        """Until none of them is left."""
        await until(lambda: self.processes() == [])

    async def working(self) -> int:
        """The one that comes next, confined."""
        await until(lambda: any(map(is_confined, self.processes())))
        [pid] = self.processes()
        return pid


@asynccontextmanager
async def scene(at_once: int = 4, template: str = TEMPLATE) -> AsyncIterator[Scene]:
    sink = RecordingSink()
    async with Unpacker(sink, at_once, template) as unpacker:
        yield Scene(unpacker, sink, template)
    assert {event.process for event in sink.of(ProcessChanged)} <= {NAME}


def taken(fd: int) -> bytes:
    """The content of a memory file, which is closed."""
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def descriptors() -> set[str]:
    """Of this process, but for the one that reads this."""
    found = set()
    for link in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):
            found.add(f"{link.name} {link.readlink()}")
    return found


def children(pid: int) -> list[int]:
    """Process IDs, zombies included."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def is_confined(pid: int) -> bool:
    return "\nSeccomp:\t2" in Path(f"/proc/{pid}/status").read_text()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # another process's event
            await asyncio.sleep(0.005)
