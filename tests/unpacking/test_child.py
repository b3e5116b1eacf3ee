"""What a child costs: bounded time and memory, whatever it is given."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from scanner.containers.readers import Reader
from scanner.unpacking.allowance import Allowance, Unreadable
from scanner.verdict import Reason
from tests.unpacking import bombs
from tests.unpacking.scene import MIB, Scene, allowed, scene

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

# A child starts with what the template has, about 25 MiB, most of which they share.
_SHARED = 30


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage() -> AsyncIterator[Scene]:
    async with scene() as made:
        with suppress(Unreadable):
            await made.unpacked(b"starts a template")
        yield made


class Cost:
    """Seconds, and the most MiB that one child had in memory, its container and what it shares included."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.memory = 0

    def look_at(self, pid: int) -> None:
        with suppress(FileNotFoundError, ProcessLookupError, IndexError):
            status = Path(f"/proc/{pid}/status").read_text()
            self.memory = max(self.memory, int(status.split("VmHWM:")[1].split()[0]) // 1024)


@asynccontextmanager
async def measured(stage: Scene) -> AsyncIterator[Cost]:
    cost = Cost()

    async def watch() -> None:
        while True:
            for pid in stage.processes():
                cost.look_at(pid)
            await asyncio.sleep(0.002)

    watching, began = asyncio.create_task(watch()), time.monotonic()
    try:
        yield cost
    finally:
        watching.cancel()
        cost.seconds = time.monotonic() - began


async def exploded(
    stage: Scene, data: bytes, reader: Reader, allowance: Allowance, depth: int = 8
) -> Reason | None:
    """Why it is not opened to its innermost member, eight levels deep."""
    try:
        contents = [content for _, content in await stage.unpacked(data, reader, allowance=allowance)]
    except Unreadable as problem:
        return problem.reason
    for content in contents:
        if content.startswith((b"PK", b"\x1f\x8b")):
            reason = await exploded(stage, content, reader, allowance, depth - 1) if depth else Reason.LIMIT
            if reason is not None:
                return reason
    return None


@pytest.mark.parametrize(
    ("make", "reasons", "memory"),
    [
        (lambda: bombs.zeros(1024 * MIB), {Reason.LIMIT}, _SHARED),
        (bombs.forty_two, {Reason.LIMIT}, _SHARED),
        (bombs.overlapping, {None}, _SHARED),
        (bombs.wide_zstd, {Reason.DAMAGED}, _SHARED),
        (lambda: bombs.wide_zstd(27), {None}, _SHARED + 128),
        (bombs.wide_xz, {Reason.LIMIT, Reason.DAMAGED}, _SHARED),
        (bombs.sparse_tar, {Reason.LIMIT}, _SHARED),
        (lambda: bombs.gzip_chain(20), {Reason.LIMIT}, _SHARED),
        (bombs.million_members, {Reason.LIMIT}, _SHARED + 84 + 256),
    ],
    ids=[
        "zeros",
        "42.zip",
        "overlapping",
        "wide zstd",
        "128 MiB zstd",
        "wide xz",
        "sparse",
        "chain",
        "million",
    ],
)
async def test_bombs_cost_libarchive_little(
    stage: Scene, make: Callable[[], bytes], reasons: set[Reason | None], memory: int
) -> None:
    data = make()
    async with measured(stage) as cost:
        reason = await exploded(stage, data, Reader.LIBARCHIVE, allowed(10.0))
    assert reason in reasons
    assert cost.seconds < 11
    assert cost.memory < memory


@pytest.mark.parametrize(
    ("make", "memory"),
    [(bombs.forty_two, _SHARED), (bombs.overlapping, _SHARED), (bombs.million_members, _SHARED + 84 + 256)],
    ids=["42.zip", "overlapping", "million"],
)
async def test_bombs_cost_zipfile_little(stage: Scene, make: Callable[[], bytes], memory: int) -> None:
    data = make()
    async with measured(stage) as cost:
        reason = await exploded(stage, data, Reader.ZIPFILE, allowed(10.0))
    assert reason in {Reason.LIMIT, Reason.DAMAGED, Reason.TIME_LIMIT}
    assert cost.seconds < 11
    assert cost.memory < memory


async def test_a_member_costs_no_memory_of_the_child_itself(stage: Scene) -> None:
    """It goes to the memory file piece by piece."""
    async with measured(stage) as cost:
        [(_, content)] = await stage.unpacked(bombs.zeros(200 * MIB), allowance=allowed(ratio=2000))
    assert len(content) == 200 * MIB
    assert cost.memory < _SHARED
