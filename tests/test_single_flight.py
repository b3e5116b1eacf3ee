from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scanner.single_flight import SingleFlight


class Work:
    """Work that ends when it is told, and counts how often it was begun, cancelled and its value disposed."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.disposed: list[str] = []
        self.joined = 0
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.flights = SingleFlight[str, str](dispose=self.disposed.append, joined=self._count_joined)

    def _count_joined(self) -> None:
        self.joined += 1

    async def __call__(self) -> str:
        self.begun += 1
        try:
            return await self.end
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def once(self, key: str = "key") -> str:
        """What one caller gets."""
        with self.flights.join(key, self) as flight:
            return await flight.value()

    def caller(self, key: str = "key") -> asyncio.Task[str]:
        return asyncio.create_task(self.once(key))


@pytest.fixture
async def work() -> Work:
    return Work()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_callers_of_one_key_share_one_piece_of_work(work: Work) -> None:
    callers = [work.caller() for _ in range(5)]
    await settle()
    work.end.set_result("value")
    assert await asyncio.gather(*callers) == ["value"] * 5
    assert (work.begun, work.joined, work.disposed) == (1, 4, ["value"])


async def test_callers_of_different_keys_share_nothing(work: Work) -> None:
    callers = [work.caller("a"), work.caller("b")]
    await settle()
    work.end.set_result("value")
    await asyncio.gather(*callers)
    assert (work.begun, work.joined) == (2, 0)


async def test_follower_survives_cancelled_leader(work: Work) -> None:
    leader, follower = work.caller(), work.caller()
    await settle()
    leader.cancel()
    await settle()
    assert leader.cancelled()
    work.end.set_result("value")
    assert await follower == "value"
    assert (work.begun, work.cancelled, work.disposed) == (1, 0, ["value"])


async def test_follower_survives_a_leader_that_is_cancelled_in_the_same_moment(work: Work) -> None:
    """Before the work has even begun."""
    leader = work.caller()
    await asyncio.sleep(0)
    follower = work.caller()
    leader.cancel()
    await settle()
    work.end.set_result("value")
    assert await follower == "value"
    assert work.begun == 1


async def test_last_caller_that_leaves_cancels_the_work(work: Work) -> None:
    callers = [work.caller() for _ in range(3)]
    await settle()
    for caller in callers:
        assert work.cancelled == 0
        caller.cancel()
        await settle()
    assert (work.cancelled, work.disposed) == (1, [])


async def test_caller_that_leaves_at_once_leaves_nothing_running(work: Work) -> None:
    caller = work.caller()
    await asyncio.sleep(0)
    caller.cancel()
    await settle()
    assert work.cancelled == work.begun
    assert work.disposed == []


async def test_caller_after_an_abandoned_flight_starts_a_new_one(work: Work) -> None:
    caller = work.caller()
    await settle()
    caller.cancel()
    await settle()
    work.end = asyncio.get_running_loop().create_future()
    again = work.caller()
    await settle()
    work.end.set_result("second")
    assert await again == "second"
    assert (work.begun, work.joined) == (2, 0)


async def test_failure_reaches_everybody_who_waited_and_nobody_after(work: Work) -> None:
    callers = [work.caller() for _ in range(3)]
    await settle()
    work.end.set_exception(OSError("gone"))
    failures = await asyncio.gather(*callers, return_exceptions=True)
    assert [str(failure) for failure in failures] == ["gone"] * 3
    work.end = asyncio.get_running_loop().create_future()
    work.end.set_result("value")
    assert await work.once() == "value"
    assert (work.begun, work.disposed) == (2, ["value"])


async def test_failure_that_nobody_waits_for_any_more_is_nobodys_business(work: Work) -> None:
    """No 'exception was never retrieved' either: warnings and such lines are errors here."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("while being cancelled") from None
        return ""

    async def call() -> None:
        with work.flights.join("key", stubborn) as flight:
            await flight.value()

    caller = asyncio.create_task(call())
    await settle()
    caller.cancel()
    await settle()
    del caller
    assert complaints == []


async def test_value_that_comes_in_spite_of_cancellation_is_disposed(work: Work) -> None:
    async def stubborn() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "unwanted"

    async def call() -> None:
        with work.flights.join("key", stubborn) as flight:
            await flight.value()

    caller = asyncio.create_task(call())
    await settle()
    caller.cancel()
    await settle()
    assert work.disposed == ["unwanted"]


async def test_abandoned_work_that_ends_late_leaves_the_next_flight_alone(work: Work) -> None:
    late = asyncio.Event()

    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            await late.wait()
        return ""

    async def call() -> None:
        with work.flights.join("key", stubborn) as flight:
            await flight.value()

    abandoned = asyncio.create_task(call())
    await settle()
    abandoned.cancel()
    await settle()
    callers = [work.caller()]
    await settle()
    late.set()
    await settle()
    callers.append(work.caller())
    await settle()
    work.end.set_result("value")
    assert await asyncio.gather(*callers) == ["value"] * 2
    assert work.begun == 1


async def test_value_is_disposed_only_after_its_last_user(work: Work) -> None:
    work.end.set_result("value")
    with work.flights.join("key", work) as one:
        value = await one.value()
        with work.flights.join("key", work) as other:
            assert await other.value() is value
        assert work.disposed == []
    assert work.disposed == ["value"]
    assert work.begun == 1


async def test_value_is_disposed_when_its_user_breaks(work: Work) -> None:
    work.end.set_result("value")

    async def call() -> None:
        with work.flights.join("key", work) as flight:
            await flight.value()
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        await call()
    assert work.disposed == ["value"]


async def test_caller_cancelled_in_the_moment_of_landing_leaves_no_value_behind(work: Work) -> None:
    caller = work.caller()
    await settle()
    work.end.set_result("value")
    caller.cancel()
    await settle()
    assert caller.cancelled()
    assert work.disposed in ([], ["value"])
    assert len(work.disposed) + work.cancelled == 1


async def test_caller_that_times_out_is_a_caller_that_leaves(work: Work) -> None:
    follower = work.caller()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await work.once()
    work.end.set_result("value")
    assert await follower == "value"


@dataclass(eq=False)
class Flight:
    """One run of the work."""

    key: int
    end: asyncio.Future[None]
    value: object = field(default_factory=object)
    stubborn: bool = False


@dataclass(eq=False)
class Caller:
    """One who asked, and perhaps uses the value now."""

    task: asyncio.Task[None] | None = None
    using: object | None = None
    leave: asyncio.Event = field(default_factory=asyncio.Event)


class EveryInterleaving(RuleBasedStateMachine):
    """Callers come, leave and are cancelled, work ends, fails and is stubborn, in any order and at any step.

    No value is disposed while somebody uses it, every value is disposed exactly once, and no work goes on
    that nobody waits for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.disposed: Counter[object] = Counter()
        self.made: list[object] = []
        self.running: list[Flight] = []
        self.callers: list[Caller] = []
        self.flights = SingleFlight[int, object](dispose=self._dispose)

    def _dispose(self, value: object) -> None:
        assert all(caller.using is not value for caller in self.callers), "disposed while in use"
        self.disposed[value] += 1

    async def _work(self, key: int, stubborn: bool) -> object:
        flight = Flight(key, self.loop.create_future(), stubborn=stubborn)
        self.running.append(flight)
        try:
            await flight.end
        except asyncio.CancelledError:
            if not flight.stubborn:
                raise
        finally:
            self.running.remove(flight)
        self.made.append(flight.value)
        return flight.value

    async def _call(self, caller: Caller, key: int, stubborn: bool) -> None:
        with (
            suppress(ZeroDivisionError),
            self.flights.join(key, lambda: self._work(key, stubborn)) as flight,
        ):
            value = await flight.value()
            assert not self.disposed[value], "given out after it was disposed"
            caller.using = value
            try:
                await caller.leave.wait()
            finally:
                caller.using = None

    @rule(key=st.integers(0, 1), stubborn=st.booleans())
    def come(self, key: int, stubborn: bool) -> None:
        caller = Caller()
        caller.task = self.loop.create_task(self._call(caller, key, stubborn))
        self.callers.append(caller)

    @rule(count=st.integers(1, 4))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.loop.run_until_complete(asyncio.sleep(0))

    @precondition(lambda self: self.callers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.callers)).task
        assert task is not None
        task.cancel()

    @precondition(lambda self: self.callers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.callers)).leave.set()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        end = data.draw(st.sampled_from(self.running)).end
        if end.done():
            return
        if fails:
            end.set_exception(ZeroDivisionError())
        else:
            end.set_result(None)

    @invariant()
    def no_value_is_disposed_twice(self) -> None:
        assert all(count == 1 for count in self.disposed.values())

    def teardown(self) -> None:
        for caller in self.callers:
            caller.leave.set()
            assert caller.task is not None
            caller.task.cancel()
        self.step(10)
        try:
            assert self.running == [], "work that nobody waits for"
            assert self.disposed == Counter(self.made)
            for caller in self.callers:
                assert caller.task is not None
                assert caller.task.done()
                assert caller.task.cancelled() or caller.task.exception() is None
        finally:
            self.loop.close()


TestEveryInterleaving = pytest.mark.slow(EveryInterleaving.TestCase)
TestEveryInterleaving.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
