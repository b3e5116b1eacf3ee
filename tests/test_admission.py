from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scanner.admission import LEAST_RATE, Budget, Reader, Reservation, Share, Slots
from scanner.errors import Unavailable

MIB = 2**20


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Holders:
    """Callers of a share; `served` is who got room, in order."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.served: list[str] = []

    def ask(self, name: str, size: int, caller: str | None = None) -> asyncio.Task[Reservation]:
        return asyncio.create_task(self._reserve(name, size, caller or name))

    async def _reserve(self, name: str, size: int, caller: str) -> Reservation:
        room = await self.share.reserve(size, str(caller))
        self.served.append(name)
        return room


# -- shares --------------------------------------------------------------------------------------


async def test_what_fits_is_reserved_at_once() -> None:
    share = Share(100, wait=0)
    rooms = [await share.reserve(50, "a") for _ in range(2)]
    assert share.reserved == 100
    for room in rooms:
        room.close()
    assert share.reserved == 0


async def test_nobody_overtakes_the_queue_by_asking_for_little() -> None:
    share = Share(100, wait=5)
    held = await share.reserve(60, "a")
    holders = Holders(share)
    waiting = holders.ask("b", 80)
    await settle()
    assert share.reserve_at_once(1) is None
    held.close()
    (await waiting).close()
    small = share.reserve_at_once(1)
    assert small is not None
    small.close()


async def test_waiting_too_long_is_overload() -> None:
    share = Share(100, wait=0.01)
    room = await share.reserve(100, "a")
    with pytest.raises(Unavailable) as refused:
        await share.reserve(1, "b")
    assert refused.value.cause == "overload"
    room.close()
    assert share.reserved == 0
    (await share.reserve(100, "c")).close()


async def test_callers_take_turns() -> None:
    """One with many requests does not shut out the rest."""
    share = Share(1, wait=5)
    held = await share.reserve(1, "x")
    holders = Holders(share)
    asked = [holders.ask(f"greedy{i}", 1, "greedy") for i in range(4)]
    asked += [holders.ask("b", 1), holders.ask("c", 1)]
    await settle()
    held.close()
    for task in (asked[0], asked[4], asked[5], asked[1], asked[2], asked[3]):
        (await task).close()
    assert holders.served == ["greedy0", "b", "c", "greedy1", "greedy2", "greedy3"]


async def test_caller_whose_earlier_request_gave_up_keeps_his_turn() -> None:
    share = Share(1, wait=5)
    held = await share.reserve(1, "x")
    holders = Holders(share)
    first = holders.ask("a", 1)
    gone, stays = holders.ask("b1", 1, "b"), holders.ask("b2", 1, "b")
    last = holders.ask("c", 1)
    await settle()
    gone.cancel()
    await settle()
    held.close()
    for task in (first, stays, last):
        (await task).close()
    assert holders.served == ["a", "b2", "c"]


async def test_big_one_at_the_head_is_not_passed_by_small_ones() -> None:
    share = Share(100, wait=5)
    held = await share.reserve(50, "x")
    holders = Holders(share)
    big, small = holders.ask("big", 100), holders.ask("small", 1)
    await settle()
    assert holders.served == []
    held.close()
    (await big).close()
    (await small).close()
    assert holders.served == ["big", "small"]


async def test_those_behind_a_big_one_are_served_when_it_gives_up() -> None:
    share = Share(100, wait=5)
    held = await share.reserve(50, "x")
    holders = Holders(share)
    big, small = holders.ask("big", 100), holders.ask("small", 50)
    await settle()
    big.cancel()
    (await small).close()
    held.close()
    assert share.reserved == 0


async def test_room_that_is_not_needed_lets_others_in() -> None:
    share = Share(100, wait=5)
    room = await share.reserve(100, "a")
    waiting = Holders(share).ask("b", 60)
    await settle()
    room.shrink(40)
    (await waiting).close()
    room.close()
    room.close()
    assert share.reserved == 0


async def test_cancellation_in_the_moment_of_being_served_gives_the_bytes_back() -> None:
    share = Share(100, wait=5)
    held = await share.reserve(100, "a")
    waiting = Holders(share).ask("b", 100)
    await settle()
    held.close()
    assert share.reserved == 100, "promised already"
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    assert share.reserved == 0


async def test_shares_do_not_wait_for_each_other() -> None:
    budget = Budget(16 * MIB, wait=0.01)
    rooms = [await share.reserve(share.capacity, "a") for share in (budget.small, budget.downloads)]
    half = await budget.uploads.reserve(budget.uploads.capacity // 2, "a")
    assert (budget.capacity, budget.reserved) == (16 * MIB, 14 * MIB)
    for room in (*rooms, half):
        room.close()
    assert budget.reserved == 0
    assert budget.share_for(MIB) is budget.small
    assert budget.share_for(MIB + 1) is budget.downloads


@pytest.mark.parametrize("inspected", [True, False])
@pytest.mark.parametrize("media_size", [1, MIB, 20 * MIB, 20 * MIB + 3])
def test_each_share_of_the_least_memory_that_is_configurable_holds_one_media(
    media_size: int, *, inspected: bool
) -> None:
    least = max(-(-3 * media_size * 8 // 7), 8 * MIB)  # as `config.Limits` has it
    budget = Budget(least, wait=1, media_size=media_size, inspected=inspected)
    for share in (budget.share_for(media_size), budget.uploads, budget.inspections):
        assert share.capacity >= media_size or (share is budget.inspections and not inspected)
    assert budget.capacity == least


async def test_caller_who_holds_as_much_as_one_may_is_passed_over() -> None:
    share = Share(100, wait=5, per_caller=50)
    held = await share.reserve(50, "greedy")
    assert share.reserve_at_once(1, "greedy") is None
    holders = Holders(share)
    greedy, other = holders.ask("greedy", 50), holders.ask("other", 50)
    (await other).close()
    await settle()
    assert not greedy.done()
    held.close()
    (await greedy).close()
    assert holders.served == ["other", "greedy"]
    assert share.reserved == 0


async def test_who_may_hold_no_more_keeps_nobody_waiting_however_much_he_asks_for() -> None:
    share = Share(100, wait=5, per_caller=50)
    held = [await share.reserve(50, "greedy"), await share.reserve(40, "x")]
    greedy = asyncio.create_task(share.reserve(50, "greedy"))
    await settle()
    held.append(await share.reserve(10, "other"))
    greedy.cancel()
    await settle()
    for room in held:
        room.close()
    assert share.reserved == 0


# -- slow readers --------------------------------------------------------------------------------


def lent(share: Share, room: Reservation, cuts: list[str], name: str, *, seconds: float, taken: int) -> None:
    """A reader that began `seconds` ago."""
    reader = Reader(lambda: cuts.append(name))
    reader.began -= seconds
    reader.taken = taken
    share.enter(reader)


@pytest.mark.slow
async def test_slowest_reader_is_cut_while_others_wait() -> None:
    share = Share(100, wait=5)
    room = await share.reserve(100, "x")
    cuts: list[str] = []
    lent(share, room, cuts, "slow", seconds=10, taken=10 * LEAST_RATE - 100_000)
    lent(share, room, cuts, "slowest", seconds=10, taken=1)
    lent(share, room, cuts, "new", seconds=1, taken=0)
    lent(share, room, cuts, "fast", seconds=10, taken=20 * LEAST_RATE)
    waiting = asyncio.create_task(share.reserve(1, "y"))
    await asyncio.sleep(1.1)
    assert cuts == ["slowest"]
    waiting.cancel()
    await settle()
    await asyncio.sleep(1.1)
    assert cuts == ["slowest"], "nobody waits any more"


@pytest.mark.slow
async def test_slow_reader_is_left_alone_while_nobody_waits() -> None:
    share = Share(100, wait=5)
    room = await share.reserve(50, "x")
    cuts: list[str] = []
    lent(share, room, cuts, "slow", seconds=100, taken=0)
    (await share.reserve(50, "y")).close()
    await asyncio.sleep(1.1)
    assert cuts == []


@pytest.mark.slow
async def test_slow_reader_is_left_alone_while_only_those_wait_who_may_hold_no_more() -> None:
    share = Share(100, wait=5, per_caller=50)
    rooms = [await share.reserve(40, "slow"), await share.reserve(50, "greedy")]
    cuts: list[str] = []
    lent(share, rooms[0], cuts, "slow", seconds=100, taken=0)
    waiting = asyncio.create_task(share.reserve(50, "greedy"))
    await asyncio.sleep(1.1)
    assert cuts == []
    waiting.cancel()
    await settle()


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "who_waits", "expected"),
    [(25, "other", ["slower"]), (25, "greedy", []), (50, "other", ["slower"]), (100, "other", [])],
    ids=["another waits", "only he waits", "two halves", "his only one"],
)
async def test_a_reader_of_who_has_most_is_cut_while_another_waits(
    size: int, who_waits: str, expected: list[str]
) -> None:
    """However decent his rate: many such readers would keep all others out for minutes."""
    share = Share(100, wait=5)
    cuts: list[str] = []
    with ExitStack() as lent_out:
        for n in range(100 // size):
            room = await share.reserve(size, "greedy")
            name = "fast" if n else "slower"
            reader = lent_out.enter_context(room.lend(partial(cuts.append, name)))
            reader.began -= 10
            reader.taken = (20 + n) * LEAST_RATE
        waiting = asyncio.create_task(share.reserve(1, who_waits))
        await asyncio.sleep(1.1)
        assert cuts == expected
        waiting.cancel()
        await settle()


@pytest.mark.slow
async def test_cut_reader_makes_room() -> None:
    share = Share(100, wait=5)
    room = await share.reserve(100, "x")
    cut = asyncio.Event()

    async def read() -> None:
        with room.lend(cut.set) as reader:
            reader.began -= 10
            await cut.wait()
        room.close()

    reading = asyncio.create_task(read())
    await settle()
    (await share.reserve(100, "y")).close()
    await reading
    assert share.reserved == 0


# -- slots ---------------------------------------------------------------------------------------


class Scans:
    """Scans in slots; `served` is who got one, in order."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.served: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    def ask(self, name: str, size: int, caller: str = "") -> asyncio.Task[None]:
        self.ends[name] = asyncio.Event()
        return asyncio.create_task(self._scan(name, size, caller))

    async def _scan(self, name: str, size: int, caller: str) -> None:
        with await self.slots.take(size, caller):
            self.served.append(name)
            await self.ends[name].wait()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await settle()


@asynccontextmanager
async def scans(cores: int = 1, wait: float = 5) -> AsyncIterator[Scans]:
    """Afterwards every slot must have come back."""
    slots = Slots(cores, wait)
    yield Scans(slots)
    assert (slots.in_flight, slots.waiting) == (0, 0)


async def finish(scans: Scans, *tasks: asyncio.Task[None]) -> None:
    for end in scans.ends.values():
        end.set()
    await asyncio.gather(*tasks)


async def test_small_scans_share_a_core_and_a_big_one_takes_all_of_it() -> None:
    async with scans() as some:
        small = [some.ask(f"small{i}", Slots.SMALL) for i in range(4)]
        big = [some.ask(f"big{i}", Slots.SMALL + 1) for i in range(2)]
        await settle()
        assert some.served == ["small0", "small1", "small2", "big0"]
        assert (some.slots.in_flight, some.slots.waiting) == (4, 2)
        await finish(some, *small, *big)


async def test_as_many_big_scans_at_once_as_there_are_cores() -> None:
    async with scans(cores=2) as some:
        big = [some.ask(f"big{i}", 20 * MIB) for i in range(3)]
        await settle()
        assert (some.slots.in_flight, some.slots.waiting) == (2, 1)
        await finish(some, *big)


async def test_small_scan_never_waits_for_big_ones() -> None:
    async with scans() as some:
        tasks = [some.ask(f"big{i}", 20 * MIB) for i in range(3)]
        await settle()
        tasks.append(some.ask("small", Slots.SMALL))
        await settle()
        assert some.served == ["big0", "small"]
        await finish(some, *tasks)


async def test_smaller_scan_overtakes_a_bigger_one_that_waits() -> None:
    async with scans() as some:
        tasks = [some.ask("running", MIB), some.ask("big", 20 * MIB), some.ask("smaller", MIB)]
        await settle()
        await some.end("running")
        await some.end("smaller")
        assert some.served == ["running", "smaller", "big"]
        await finish(some, *tasks)


async def test_a_callers_first_scan_does_not_wait_for_the_thousand_of_another() -> None:
    async with scans() as some:
        running = some.ask("running", 20 * MIB)
        await settle()
        greedy = [some.ask(f"greedy{i}", MIB, "greedy") for i in range(1000)]
        await settle()
        other = some.ask("other", MIB, "other")
        await settle()
        await some.end("running")
        await some.end(some.served[-1])
        assert "other" in some.served[1:4]
        await finish(some, running, other, *greedy)


async def test_engines_slower_than_expected_do_not_bring_a_thousand_files_forward() -> None:
    """In 0.3 s, 13 of 200 kB should have been scanned: that none was is nobody else's to wait for."""
    async with scans() as some:
        running = some.ask("running", 20 * MIB)
        await settle()
        greedy = [some.ask(f"greedy{i}", 200_000, "greedy") for i in range(100)]
        await asyncio.sleep(0.3)
        other = some.ask("other", 200_000, "other")
        await settle()
        await some.end("running")
        await some.end(some.served[-1])
        assert "other" in some.served
        await finish(some, running, other, *greedy)


async def test_what_a_caller_gave_up_does_not_delay_what_he_asks_next() -> None:
    async with scans() as some:
        running = some.ask("running", 20 * MIB)
        await settle()
        given_up = [some.ask(f"gone{i}", MIB, "fickle") for i in range(100)]
        others = [some.ask(f"other{i}", MIB, f"other{i}") for i in range(3)]
        await settle()
        for task in given_up:
            task.cancel()
        await settle()
        asked_next = some.ask("next", MIB, "fickle")
        await settle()
        for _ in range(5):
            await some.end(some.served[-1])
        assert some.served[1:5] == ["other0", "other1", "other2", "next"]
        await finish(some, running, asked_next, *others)


async def test_big_scan_is_not_overtaken_for_ever() -> None:
    """3 MB count as 13 times 0.2 MB: so often it is overtaken, though a new one comes all the time."""
    async with scans() as some:
        tasks = [some.ask("running", 20 * MIB), some.ask("big", 3_000_000)]
        await settle()
        for number in range(20):
            tasks.append(some.ask(f"small{number}", 200_000, f"caller{number}"))
            await settle()
            await some.end(some.served[-1])
        assert some.served.index("big") == 14
        await finish(some, *tasks)


async def test_waiting_too_long_for_a_slot_is_overload() -> None:
    async with scans(wait=0.01) as some:
        running = some.ask("running", 20 * MIB)
        await settle()
        with pytest.raises(Unavailable) as refused, await some.slots.take(20 * MIB):
            raise AssertionError
        assert refused.value.cause == "overload"
        await finish(some, running)


async def test_scan_that_breaks_gives_its_slot_back() -> None:
    async with scans() as some:
        with pytest.raises(ZeroDivisionError), await some.slots.take(20 * MIB):
            _ = 1 / 0


async def test_cancellation_in_every_state_gives_the_slot_back() -> None:
    async with scans() as some:
        holding, waiting, behind = some.ask("holding", MIB), some.ask("waiting", MIB), some.ask("behind", MIB)
        await settle()
        waiting.cancel()
        await settle()
        some.ends["holding"].set()
        await asyncio.sleep(0)  # `behind` is promised the slot now
        behind.cancel()
        await settle()
        assert holding.done()
        using = some.ask("using", MIB)
        await settle()
        assert some.served[-1] == "using"
        using.cancel()
        await asyncio.gather(holding, waiting, behind, using, return_exceptions=True)


# -- every interleaving --------------------------------------------------------------------------


class _Interleavings(RuleBasedStateMachine):
    """Callers ask, give back and are cancelled, in any order and at any step of the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.tasks: list[asyncio.Task[None]] = []
        self.ends: list[asyncio.Event] = []
        self.held = 0

    def start(self, hold: Callable[[asyncio.Event], asyncio.Task[None]]) -> None:
        self.ends.append(asyncio.Event())
        self.tasks.append(hold(self.ends[-1]))

    @rule(count=st.integers(1, 3))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.loop.run_until_complete(asyncio.sleep(0))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.tasks)).cancel()

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.ends)).set()

    def teardown(self) -> None:
        """All others get what they wait for once those before them have ended."""
        for end in self.ends:
            end.set()
        self.step(6 + 4 * len(self.tasks))
        try:
            assert all(task.done() for task in self.tasks), "somebody waits for ever"
            assert all(task.cancelled() or task.exception() is None for task in self.tasks)
            assert self.held == 0
            self.nothing_leaked()
        finally:
            self.loop.close()

    def nothing_leaked(self) -> None:
        raise NotImplementedError


class ShareInterleavings(_Interleavings):
    def __init__(self) -> None:
        super().__init__()
        self.share = Share(10, wait=3600)

    async def _hold(self, size: int, kept: int, caller: int, end: asyncio.Event) -> None:
        room = await self.share.reserve(size, str(caller))
        self.held += size
        with suppress(asyncio.CancelledError):
            await end.wait()
        self.held -= size - kept
        room.shrink(kept)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        self.held -= kept
        room.close()

    @rule(size=st.integers(0, 10), caller=st.integers(0, 2), data=st.data())
    def ask(self, size: int, caller: int, data: st.DataObject) -> None:
        kept = data.draw(st.integers(0, size))
        self.start(lambda end: self.loop.create_task(self._hold(size, kept, caller, end)))

    @invariant()
    def never_more_than_the_capacity_is_reserved(self) -> None:
        assert self.held <= self.share.reserved <= self.share.capacity

    def nothing_leaked(self) -> None:
        assert self.share.reserved == 0


class SlotInterleavings(_Interleavings):
    SMALL_SLOTS = 3
    BIG_SLOTS = 1

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(cores=1, wait=3600)
        self.held_small = 0

    async def _hold(self, size: int, end: asyncio.Event) -> None:
        small = size <= Slots.SMALL
        with await self.slots.take(size):
            self.held += 1
            self.held_small += small
            try:
                await end.wait()
            finally:
                self.held -= 1
                self.held_small -= small

    @rule(size=st.sampled_from([1, 1000, Slots.SMALL + 1, 20 * MIB]))
    def ask(self, size: int) -> None:
        self.start(lambda end: self.loop.create_task(self._hold(size, end)))

    @invariant()
    def never_more_slots_are_held_than_there_are(self) -> None:
        assert 0 <= self.held_small <= self.SMALL_SLOTS
        assert 0 <= self.held - self.held_small <= self.BIG_SLOTS
        assert self.held <= self.slots.in_flight <= self.SMALL_SLOTS + self.BIG_SLOTS

    def nothing_leaked(self) -> None:
        assert (self.slots.in_flight, self.slots.waiting) == (0, 0)


_SETTINGS = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestShareInterleavings = pytest.mark.slow(ShareInterleavings.TestCase)
TestShareInterleavings.settings = _SETTINGS
TestSlotInterleavings = pytest.mark.slow(SlotInterleavings.TestCase)
TestSlotInterleavings.settings = _SETTINGS
