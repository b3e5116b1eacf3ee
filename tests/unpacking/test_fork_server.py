"""There is always a template when one is needed, and never anything left of it."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from scanner.errors import EngineError
from scanner.events import ProcessChanged
from scanner.unpacking.allowance import Unreadable
from tests.archives import zip_of
from tests.unpacking.scene import PROBING, Scene, allowed, children, command, descriptors, scene, until

CONTAINER = zip_of({"a": b"content"})
WHOLE = [(b"a", b"content")]
ROOT = Path(__file__).parents[2]


def told(stage: Scene) -> list[tuple[str, str]]:
    return [(event.state, event.detail) for event in stage.sink.of(ProcessChanged)]


async def test_no_process_is_there_before_it_is_needed() -> None:
    before = children(os.getpid())
    async with scene():
        assert children(os.getpid()) == before


async def test_one_template_serves_all_and_leaves_nothing() -> None:
    before = descriptors(), children(os.getpid())
    async with scene() as stage:
        assert await stage.unpacked(CONTAINER) == WHOLE
        template = stage.template()
        assert await asyncio.gather(*(stage.unpacked(CONTAINER) for _ in range(2))) == [WHOLE] * 2
        assert stage.template() == template
        [(state, detail)] = told(stage)
        assert state == "ready"
        assert re.fullmatch(r"libarchive 3\.\d+\.\d+, with seccomp", detail)
    assert (descriptors(), children(os.getpid())) == before


async def test_a_template_that_ends_is_replaced_at_once() -> None:
    async with scene() as stage:
        await stage.unpacked(CONTAINER)
        first = stage.template()
        os.kill(first, signal.SIGKILL)
        await until(lambda: stage.ends == ["template_ended"] and stage.templates() not in ([], [first]))
        assert await stage.unpacked(CONTAINER) == WHOLE
        assert stage.ends == ["template_ended"]


async def test_where_none_can_be_started_the_next_one_who_needs_it_tries_again() -> None:
    """A template may well be the first to die where the machine has nothing left to start another with."""
    async with scene() as stage:
        assert await stage.unpacked(CONTAINER) == WHOLE
        first = stage.template()
        with no_descriptor_left():
            os.kill(first, signal.SIGKILL)
            await until(lambda: stage.ends == ["template_ended"])
        assert stage.templates() == []
        assert await stage.unpacked(CONTAINER) == WHOLE
        assert stage.ends == ["template_ended"]


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """For anything new."""
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
async def test_a_template_that_stands_still_is_replaced_when_somebody_needs_it() -> None:
    async with scene() as stage:
        await stage.unpacked(CONTAINER)
        first = stage.template()
        os.kill(first, signal.SIGSTOP)
        began = time.monotonic()
        assert await asyncio.gather(*(stage.unpacked(CONTAINER) for _ in range(8))) == [WHOLE] * 8
        assert time.monotonic() - began < 10
        assert stage.ends == ["template_stalled"]
        assert stage.template() != first


@pytest.mark.slow
async def test_a_template_that_stands_still_while_it_starts_is_replaced_though_nobody_waits_long() -> None:
    async with scene() as stage:
        first = asyncio.create_task(stage.unpacked(CONTAINER, allowance=allowed(1.0)))
        await until(lambda: stage.templates() != [])
        os.kill(stage.template(), signal.SIGSTOP)
        with pytest.raises(Unreadable):
            await first
        await asyncio.sleep(4)
        assert await stage.unpacked(CONTAINER, allowance=allowed(4.0)) == WHOLE
        assert stage.ends == ["timeout", "template_stalled"]


async def test_children_outlive_their_template() -> None:
    async with scene(template=PROBING) as stage:
        await stage.unpacked(b"nothing")
        await stage.idle()
        failing = asyncio.create_task(stage.unpacked(b"sleep"))
        child = await stage.working()
        os.kill(stage.template(), signal.SIGKILL)
        await until(lambda: stage.ends == ["template_ended"])
        assert await stage.unpacked(b"nothing") == []
        assert is_unpacking(child)
        failing.cancel()
        await until(lambda: not is_unpacking(child))


@pytest.mark.slow
async def test_templates_that_are_killed_again_and_again_fail_nobody() -> None:
    async with scene() as stage:
        await stage.unpacked(CONTAINER)

        async def kill() -> None:
            for _ in range(6):
                await whole(stage)
                os.kill(stage.template(), signal.SIGKILL)

        async with asyncio.TaskGroup() as group:
            group.create_task(kill())
            for _ in range(60):
                await asyncio.sleep(0.02)
                group.create_task(whole(stage))
        await until(lambda: len(stage.ends) == 6)


async def whole(stage: Scene) -> None:
    assert await stage.unpacked(CONTAINER) == WHOLE


async def test_without_seccomp_it_works_and_says_so() -> None:
    async with scene(template="tests.unpacking.without_seccomp") as stage:
        assert await stage.unpacked(CONTAINER) == WHOLE
        [(state, detail)] = told(stage)
        assert state == "problem"
        assert detail.endswith(", without seccomp")


async def test_without_libarchive_the_engine_fails_and_says_why() -> None:
    before = descriptors()
    async with scene(template="tests.unpacking.without_libarchive") as stage:
        with pytest.raises(EngineError, match="archives cannot be unpacked: no-such-library"):
            await stage.unpacked(CONTAINER)
        assert told(stage)[0][0] == "problem"
    assert descriptors() == before


async def test_a_template_that_never_starts_is_tried_a_few_times() -> None:
    async with scene(template="tests.unpacking.no_such_module") as stage:
        with pytest.raises(EngineError, match="no process for unpacking"):
            await stage.unpacked(CONTAINER)
        assert stage.ends == ["template_ended"] * 3


@pytest.mark.parametrize("stopped", [False, True])
def test_nothing_outlives_the_service(stopped: bool) -> None:
    """Not the template, stopped or not; and not a child that stands in the middle of its work."""
    arguments = [sys.executable, "-m", "tests.unpacking.service"]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        template, child = map(int, service.stdout.readline().split())
        if stopped:
            os.kill(template, signal.SIGSTOP)
        service.kill()
    try:
        asyncio.run(until(lambda: not is_unpacking(template)))
    finally:
        for pid in (template, child):
            if is_unpacking(pid):
                os.kill(pid, signal.SIGKILL)


def is_unpacking(pid: int) -> bool:
    try:
        return b"unpacking" in command(pid)
    except FileNotFoundError:
        return False


def test_uvloop_will_do() -> None:
    async def main() -> None:
        before = descriptors()
        async with scene() as stage:
            await asyncio.gather(*(whole(stage) for _ in range(10)))
            os.kill(stage.template(), signal.SIGKILL)
            await until(lambda: stage.ends == ["template_ended"])
            await whole(stage)
        assert descriptors() == before

    uvloop.run(main())
