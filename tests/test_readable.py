"""On both event loops: the service runs on uvloop."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from scanner.readable import readable

RUN = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
Run = Callable[[Coroutine[Any, Any, None]], None]


@RUN
def test_waits_until_there_is_something_and_at_the_end_no_more(run: Run) -> None:
    async def wait() -> None:
        reading, writing = os.pipe()
        waiting = asyncio.create_task(readable(reading))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        os.write(writing, b"x")
        await asyncio.wait_for(waiting, 5)
        assert os.read(reading, 10) == b"x"
        os.close(writing)
        await asyncio.wait_for(readable(reading), 5)
        assert os.read(reading, 10) == b""
        os.close(reading)

    run(wait())


@RUN
def test_a_file_is_refused(run: Run) -> None:
    async def wait() -> None:
        with tempfile.TemporaryFile() as file, pytest.raises(PermissionError):
            await readable(file.fileno())

    run(wait())


@RUN
def test_whoever_is_cancelled_leaves_the_number_to_the_next(run: Run) -> None:
    async def wait() -> None:
        first, writing_first = os.pipe()
        waiting = asyncio.create_task(readable(first))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        os.close(first)
        second, writing = os.pipe()
        assert second == first
        os.write(writing, b"x")
        await asyncio.wait_for(readable(second), 5)
        for fd in (second, writing, writing_first):
            os.close(fd)

    run(wait())
