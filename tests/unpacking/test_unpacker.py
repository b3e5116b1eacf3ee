"""Members come out whole, one by one; whatever a container or its process does stays with that container."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import os
import signal
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

from scanner.containers.readers import Reader
from scanner.unpacking.allowance import Unreadable
from scanner.verdict import Reason
from tests.archives import tar_of, zip_of
from tests.unpacking.scene import (
    MIB,
    PROBING,
    Scene,
    allowed,
    descriptors,
    memory_file,
    scene,
    taken,
)

FILES = {"a": b"first", "b/c": b"second" * 1000}
WHOLE = [(name.encode(), content) for name, content in FILES.items()]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def reading() -> AsyncIterator[Scene]:
    async with scene() as made:
        await made.unpacked(zip_of(FILES))
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def obeying() -> AsyncIterator[Scene]:
    async with scene(template=PROBING) as made:
        await made.unpacked(b"nothing")
        yield made


@pytest.fixture
def stage(reading: Scene) -> Scene:
    """A template takes a while to start: tests share it."""
    reading.sink.events.clear()
    return reading


@pytest.fixture
def probing(obeying: Scene) -> Scene:
    """Its children do what the container says."""
    obeying.sink.events.clear()
    return obeying


@pytest.mark.parametrize("reader", [Reader.LIBARCHIVE, Reader.ZIPFILE])
async def test_members_come_with_path_and_content(stage: Scene, reader: Reader) -> None:
    assert await stage.unpacked(zip_of(FILES), reader) == WHOLE
    assert stage.ends == []


async def test_what_has_no_content_is_counted_and_not_handed_over(stage: Scene) -> None:
    allowance = allowed()
    files = {"folder/": b"", "empty": b"", "full": b"x" * 7, "last/": b""}
    assert await stage.unpacked(zip_of(files), allowance=allowance) == [(b"full", b"x" * 7)]
    assert (allowance.members, allowance.size) == (10_000 - 4, 300 * MIB - 7)


async def test_long_paths_are_cut(stage: Scene) -> None:
    [(path, content)] = await stage.unpacked(tar_of({"x/" * 5000 + "end": b"text"}, tarfile.PAX_FORMAT))
    assert (len(path), content) == (4096, b"text")


async def test_one_layer_is_taken_off(stage: Scene) -> None:
    inner = tar_of(FILES)
    assert await stage.unpacked(gzip.compress(gzip.compress(inner))) == [(b"", gzip.compress(inner))]
    assert await stage.unpacked(inner) == WHOLE


async def test_members_before_a_fault_are_handed_over(stage: Scene) -> None:
    fd = memory_file(tar_of(FILES)[:2000])
    members = stage.unpacker.members(fd, Reader.LIBARCHIVE, allowed(), MIB)
    member = await anext(members)
    assert (member.path, taken(member.fd)) == WHOLE[0]
    with pytest.raises(Unreadable) as caught:
        await anext(members)
    os.close(fd)
    assert caught.value.reason is Reason.DAMAGED
    assert stage.ends == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.DAMAGED),
        (b"no container at all", Reason.AMBIGUOUS),
        (gzip.compress(b"text", mtime=0) + b"more", Reason.AMBIGUOUS),
        (bz2.compress(b"text")[:-3], Reason.DAMAGED),
    ],
)
async def test_what_cannot_be_read_to_its_end_is_unreadable(
    stage: Scene, data: bytes, reason: Reason
) -> None:
    assert await refused(stage, data) is reason


async def refused(stage: Scene, data: bytes, **limits: Any) -> Reason:
    with pytest.raises(Unreadable) as caught:
        await stage.unpacked(data, **limits)
    return caught.value.reason


# -- what is allowed -----------------------------------------------------------------------------


async def test_limits_hold_for_all_containers_of_one_file_together(stage: Scene) -> None:
    allowance = allowed(members=5, size=12_100)
    assert await stage.unpacked(zip_of(FILES), allowance=allowance) == WHOLE
    assert (allowance.members, allowance.size) == (3, 6_095)
    assert await stage.unpacked(zip_of(FILES), allowance=allowance) == WHOLE
    assert await refused(stage, zip_of(FILES), allowance=allowance) is Reason.LIMIT


async def test_a_member_over_the_largest_is_over_the_limit(stage: Scene) -> None:
    data = zip_of({"a": bytes(1000)})
    assert await stage.unpacked(data, largest=1000) == [(b"a", bytes(1000))]
    assert await refused(stage, data, largest=999) is Reason.LIMIT


async def test_more_members_than_allowed_are_over_the_limit(stage: Scene) -> None:
    data = zip_of({f"{number}/": b"" for number in range(10)})
    assert await stage.unpacked(data, allowance=allowed(members=10)) == []
    assert await refused(stage, data, allowance=allowed(members=9)) is Reason.LIMIT


@pytest.mark.slow
async def test_the_ratio_counts_from_50_mib(stage: Scene) -> None:
    fifty, more = (gzip.compress(bytes(size)) for size in (50 * MIB, 50 * MIB + 1))
    assert len((await stage.unpacked(fifty))[0][1]) == 50 * MIB
    assert await refused(stage, more) is Reason.LIMIT
    assert len((await stage.unpacked(more, allowance=allowed(ratio=2000)))[0][1]) == 50 * MIB + 1


@pytest.mark.slow
async def test_time_that_a_member_is_looked_at_can_be_given_back(stage: Scene) -> None:
    """The deadline is read anew for each member."""
    fd = memory_file(zip_of(FILES))
    allowance = allowed(0.3)
    async with aclosing(stage.unpacker.members(fd, Reader.LIBARCHIVE, allowance, MIB)) as members:
        async for member in members:
            os.close(member.fd)
            await asyncio.sleep(1.5)
            allowance.deadline += 1.6
    os.close(fd)
    assert stage.ends == []


# -- processes that do not do their work ---------------------------------------------------------


@pytest.mark.parametrize("probe", ["crash", "fail"])
async def test_a_crash_is_a_damaged_container(probing: Scene, probe: str) -> None:
    assert await refused(probing, probe.encode()) is Reason.DAMAGED
    assert probing.ends == ["crash"]


@pytest.mark.parametrize("probe", ["spin", "sleep"])
async def test_one_that_never_returns_is_killed_at_the_deadline(probing: Scene, probe: str) -> None:
    began = time.monotonic()
    assert await refused(probing, probe.encode(), allowance=allowed(0.5)) is Reason.TIME_LIMIT
    assert time.monotonic() - began < 1
    assert probing.ends == ["timeout"]
    await probing.idle()


@pytest.mark.slow
@pytest.mark.parametrize("probe", ["eat", "eat little by little"])
async def test_memory_has_a_limit(probing: Scene, probe: str) -> None:
    assert await refused(probing, probe.encode()) is Reason.LIMIT


async def test_a_killed_child_is_a_damaged_container(probing: Scene) -> None:
    await probing.idle()
    failing = asyncio.create_task(refused(probing, b"sleep"))
    os.kill(await probing.working(), signal.SIGKILL)
    assert await failing is Reason.DAMAGED
    assert probing.ends == ["crash"]


@pytest.mark.slow
async def test_a_stopped_child_is_killed_at_the_deadline(probing: Scene) -> None:
    await probing.idle()
    failing = asyncio.create_task(refused(probing, b"sleep", allowance=allowed(1.0)))
    os.kill(await probing.working(), signal.SIGSTOP)
    assert await failing is Reason.TIME_LIMIT
    await probing.idle()


@pytest.mark.slow
async def test_a_child_that_is_stopped_as_soon_as_it_is_there_is_killed_too(probing: Scene) -> None:
    await probing.idle()
    failing = asyncio.create_task(refused(probing, b"nothing", allowance=allowed(1.0)))
    while not (processes := probing.processes()):  # noqa: ASYNC110 - not a moment later
        await asyncio.sleep(0)
    os.kill(processes[0], signal.SIGSTOP)
    assert await failing is Reason.TIME_LIMIT
    await probing.idle()
    assert probing.ends == ["timeout"]


@pytest.mark.parametrize(
    "lie",
    [
        *("a file that can change", "a file of another size", "an empty file", "a socket as a file"),
        *("no file", "two files", "more than allowed", "a file at the end"),
        *("no such message", "half a message", "a long message", "a verdict of its own"),
    ],
)
async def test_a_lie_is_a_damaged_container(probing: Scene, lie: str) -> None:
    before = descriptors()
    limits = {"largest": 2 * MIB, "allowance": allowed(5.0)}
    assert await refused(probing, lie.encode(), **limits) is Reason.DAMAGED
    assert probing.ends == ["protocol"]
    assert descriptors() == before


async def test_a_child_that_counts_more_than_it_may_is_over_the_limit(probing: Scene) -> None:
    assert await refused(probing, b"many members") is Reason.LIMIT


async def test_a_child_can_keep_only_little_on_the_way_to_us(probing: Scene) -> None:
    await probing.idle()
    fd = memory_file(b"much")
    async with aclosing(probing.unpacker.members(fd, Reader.LIBARCHIVE, allowed(), MIB)) as members:
        os.close((await anext(members)).fd)
        await asyncio.sleep(0.5)
        assert len(os.listdir(f"/proc/{await probing.working()}/fd")) < 10  # noqa: PTH208
    os.close(fd)


# -- under load, and when nobody waits any more --------------------------------------------------


async def test_whoever_stops_asking_leaves_nothing_behind(stage: Scene) -> None:
    before = descriptors()
    fd = memory_file(zip_of(FILES))
    async with aclosing(stage.unpacker.members(fd, Reader.LIBARCHIVE, allowed(), MIB)) as members:
        os.close((await anext(members)).fd)
    os.close(fd)
    await stage.idle()
    assert descriptors() == before


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.003, 0.01, 0.05])
async def test_cancelling_ends_the_process_wherever_it_is(probing: Scene, seconds: float) -> None:
    before = descriptors()
    tasks = [asyncio.create_task(probing.unpacked(b"sleep")) for _ in range(4)]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    await probing.idle()
    assert (descriptors(), probing.ends) == (before, [])


@pytest.mark.slow
async def test_many_at_once_are_all_served_and_leave_nothing_behind(stage: Scene) -> None:
    before = descriptors()
    found = await asyncio.gather(*(stage.unpacked(zip_of(FILES)) for _ in range(100)))
    assert found == [WHOLE] * 100
    await stage.idle()
    assert (descriptors(), stage.ends) == (before, [])


@pytest.mark.slow
async def test_faults_of_some_do_not_touch_others(probing: Scene) -> None:
    """Under load: crashes, hangs, lies and kills; whoever is none of these gets his answer."""
    before = descriptors()

    async def faulty(number: int) -> Reason:
        probe = (b"crash", b"spin", b"no such message", b"fail")[number % 4]
        return await refused(probing, probe, allowance=allowed(20.0 if number % 4 != 1 else 3.0))

    async with asyncio.TaskGroup() as group:
        bad = [group.create_task(faulty(number)) for number in range(24)]
        good = [group.create_task(probing.unpacked(b"nothing")) for _ in range(40)]
    assert {task.result() for task in bad} == {Reason.DAMAGED, Reason.TIME_LIMIT}
    assert all(task.result() == [] for task in good)
    await probing.idle()
    assert descriptors() == before


async def test_only_so_many_work_at_once() -> None:
    """A paused one does not count: archives in archives need several."""
    async with scene(at_once=1) as stage:
        inner = zip_of(FILES)
        outer = memory_file(zip_of({"inner.zip": inner}))
        async with aclosing(stage.unpacker.members(outer, Reader.LIBARCHIVE, allowed(), MIB)) as members:
            async for member in members:
                assert await stage.unpacked(taken(member.fd)) == WHOLE
        os.close(outer)


@pytest.mark.slow
async def test_the_event_loop_is_never_held(stage: Scene) -> None:
    longest = 0.0

    async def measure() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)

    measuring = asyncio.create_task(measure())
    big = zip_of({str(number): bytes(3 * MIB) for number in range(6)})
    fd = memory_file(big)
    async with aclosing(stage.unpacker.members(fd, Reader.LIBARCHIVE, allowed(), MIB * 4)) as members:
        async for member in members:
            await asyncio.get_running_loop().run_in_executor(None, os.close, member.fd)
    os.close(fd)
    measuring.cancel()
    assert longest < BUSY_MACHINE * 0.005


# Tests run on machines that do other things: a step that waits for another process takes far longer.
BUSY_MACHINE = 8
