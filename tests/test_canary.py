from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from scanner.canary import Canary
from scanner.clamd.backend import Clamd as ClamdSettings
from scanner.clamd.protocol import ClamdAddress
from scanner.engines.clamav import ClamAV
from scanner.errors import EngineError
from scanner.events import BackendChanged, CanaryRan, EngineAnswered, Event
from scanner.media import Sample
from scanner.verdict import Outcome, Report
from tests.real_clamd import EICAR, Clamd

Judge = Callable[[bytes], Outcome]


def rightly(content: bytes) -> Outcome:
    return Outcome.INFECTED if content == EICAR else Outcome.CLEAN


def nothing_found(content: bytes) -> Outcome:
    return Outcome.CLEAN


def everything_found(content: bytes) -> Outcome:
    return Outcome.INFECTED


def failed(content: bytes) -> Outcome:
    return Outcome.FAILED


def unreachable(content: bytes) -> Outcome:
    raise EngineError("clamd is gone", "unavailable")


def broken(content: bytes) -> Outcome:
    raise KeyError("a bug")


class Backend:
    """Judges as `judge` does, and notes what it was asked and told."""

    def __init__(self, judge: Judge = rightly, name: str = "one") -> None:
        self.name = name
        self.judge = judge
        self.asked: list[bytes] = []
        self.told: list[bool] = []

    async def scan(self, sample: Sample) -> Report:
        content = sample.head(sample.size)
        self.asked.append(content)
        return Report("clamav", self.judge(content))

    def trust(self, passed: bool) -> None:
        self.told.append(passed)


@asynccontextmanager
async def running(
    *backends: Backend, interval: float = 60.0, retry: float = 0.01
) -> AsyncIterator[tuple[Canary, list[Event]]]:
    events: list[Event] = []
    canary = Canary(backends, events.append, interval, retry)
    task = asyncio.create_task(canary.run())
    try:
        yield canary, events
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - lists cannot wake us
        await asyncio.sleep(0.005)


async def test_right_answers_are_trusted_and_said() -> None:
    backend = Backend()
    async with running(backend) as (canary, events):
        assert not canary.healthy
        assert canary.last_success == 0
        await until(lambda: events)
        assert canary.healthy
        assert canary.last_success == pytest.approx(time.time(), abs=5)
    assert backend.told == [True]
    assert [(event.backend, event.passed) for event in events if isinstance(event, CanaryRan)] == [
        ("one", True)
    ]


async def test_backend_gets_the_bare_eicar_and_another_clean_file_each_time() -> None:
    backend = Backend()
    async with running(backend, interval=0.02):
        await until(lambda: len(backend.asked) >= 4)
    assert backend.asked[0] == backend.asked[2] == EICAR
    assert len(EICAR) == 68
    assert backend.asked[1] != backend.asked[3]


@pytest.mark.parametrize("wrongly", [nothing_found, everything_found, lambda _: Outcome.UNSCANNABLE])
async def test_backend_that_lies_is_out_until_it_answers_rightly(wrongly: Judge) -> None:
    backend = Backend(wrongly)
    async with running(backend) as (canary, events):
        await until(lambda: len(events) >= 2)
        assert not canary.healthy
        assert set(backend.told) == {False}
        backend.judge = rightly
        await until(lambda: canary.healthy)
    assert backend.told[-1] is True


@pytest.mark.parametrize("silently", [unreachable, broken, failed])
async def test_no_answer_changes_no_trust_and_is_tried_again(silently: Judge) -> None:
    backend = Backend(silently)
    async with running(backend) as (canary, events):
        await until(lambda: len(events) >= 2)
        assert not canary.healthy
        assert backend.told == []
        assert {event.passed for event in events if isinstance(event, CanaryRan)} == {None}
        backend.judge = rightly
        await until(lambda: backend.told == [True])


async def test_one_good_backend_is_enough_to_be_healthy() -> None:
    liar, good = Backend(nothing_found, "liar"), Backend(name="good")
    async with running(liar, good) as (canary, _):
        await until(lambda: liar.told and good.told)
        assert canary.healthy
        assert not any(liar.told)


async def test_hanging_backend_delays_no_other() -> None:
    hanging, liar = Backend(name="hanging"), Backend(nothing_found, "liar")
    never = asyncio.Event()

    async def hang(sample: Sample) -> Report:
        await never.wait()
        raise AssertionError

    hanging.scan = hang  # type: ignore[method-assign]
    async with running(hanging, liar):
        await until(lambda: len(liar.told) >= 3)


async def test_silence_for_two_intervals_is_unhealthy() -> None:
    backend = Backend()
    async with running(backend, interval=0.2) as (canary, _):
        await until(lambda: canary.healthy)
        last = canary.last_success
        backend.judge = unreachable
        await until(lambda: not canary.healthy)
        assert canary.last_success >= last > 0


async def test_change_wakes_the_canary_but_not_more_often_than_the_retries() -> None:
    backend = Backend()
    async with running(backend, retry=0.05) as (canary, events):
        await until(lambda: events)
        first = canary.last_success
        for _ in range(5):
            canary.wake()
            await asyncio.sleep(0)
        await until(lambda: len(events) == 2)
        assert canary.last_success - first >= 0.05
        await asyncio.sleep(0.1)
        assert len(events) == 2


def test_canary_without_backends_is_not_healthy() -> None:
    assert not Canary([], lambda event: None).healthy


@pytest.mark.real
async def test_real_clamd_passes(clamd: Clamd) -> None:
    events: list[Event] = []
    settings = ClamdSettings(ClamdAddress.parse(f"unix:{clamd.socket}"), database=lambda: clamd.database)
    async with ClamAV([settings], publish=events.append, accept_test_signatures=True) as clamav:
        canary = Canary(clamav.backends, events.append)
        task = asyncio.create_task(canary.run())
        await until(lambda: canary.healthy)
        task.cancel()
    assert {type(event) for event in events} <= {BackendChanged, EngineAnswered, CanaryRan}
