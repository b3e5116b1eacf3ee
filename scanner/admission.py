"""Who may start, who waits, who is turned away: byte shares for bodies, slots for scans.

The rules: a request reserves its bytes once and never waits for more while it holds some; callers take
turns, so that one with many requests cannot shut out the rest; a share is taken before a slot, and a
slot is given back before anything is forwarded (DESIGN.md, "Room").
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from scanner.errors import Unavailable

# A reader below this mean rate, in bytes per second, may be cut while others wait for its share.
LEAST_RATE = 64 * 1024
# ... but only after this many seconds.
_PATIENCE = 5.0


@dataclass(eq=False, slots=True)
class Reader:
    """A client that takes its time to read a body. `cut()` ends it and frees its `size` bytes."""

    cut: Callable[[], None]
    caller: str = ""
    size: int = 0
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    taken: int = 0

    def rate(self, now: float) -> float:
        """Mean rate so far, in bytes per second."""
        return self.taken / max(now - self.began, 1e-3)


class Reservation:
    """Bytes of a share that one body holds; a `media.Room`."""

    __slots__ = ("_caller", "_share", "_size")

    def __init__(self, share: Share, size: int, caller: str) -> None:
        self._share = share
        self._size = size
        self._caller = caller

    def shrink(self, size: int) -> None:
        """Give back what is not needed after all."""
        self._share.give_back(self._size - size, self._caller)
        self._size = size

    def close(self) -> None:
        """Give back everything."""
        self.shrink(0)

    @contextmanager
    def lend(self, cut: Callable[[], None]) -> Iterator[Reader]:
        """Let a client read or send the body; it may be cut while others wait for its share."""
        reader = Reader(cut, self._caller, self._size)
        self._share.enter(reader)
        try:
            yield reader
        finally:
            self._share.leave(reader)


@dataclass(eq=False, slots=True)
class _Waiting:
    """A reservation of `size` bytes that has to wait."""

    size: int
    granted: asyncio.Future[None]


class Share:
    """A part of the memory budget. Reservations are served in turn of their callers.

    One of them holds at most `per_caller` bytes at a time, if that is given. While others wait, readers may
    be cut: slow ones, and those of a caller who holds more than half with several.
    """

    def __init__(self, capacity: int, wait: float, *, per_caller: int | None = None) -> None:
        self.capacity = capacity
        self.reserved = 0
        self._wait = wait
        self._per_caller = per_caller
        self._held: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._readers: set[Reader] = set()
        self._reaper: asyncio.TimerHandle | None = None

    def reserve_at_once(self, size: int, caller: str = "") -> Reservation | None:
        """Take `size` bytes, if nobody has to wait for them."""
        if self._queues or not (self._may_hold(size, caller) and self._fits(size)):
            return None
        self._take(size, caller)
        return Reservation(self, size, caller)

    async def reserve(self, size: int, caller: str) -> Reservation:
        """Take `size` bytes, at once or in turn.

        Raises Unavailable after the share's patience.
        """
        at_once = self.reserve_at_once(size, caller)
        if at_once is not None:
            return at_once
        waiting = _Waiting(size, asyncio.get_running_loop().create_future())
        self._queues.setdefault(caller, deque()).append(waiting)
        self._serve()
        self._watch_readers()
        try:
            async with asyncio.timeout(self._wait):
                await waiting.granted
            return Reservation(self, size, caller)
        except BaseException as problem:
            if waiting.granted.done() and not waiting.granted.cancelled():
                self._take(-size, caller)  # served in the very moment in which the wait ended
            else:
                self._leave_queue(waiting, caller)
            self._serve()
            if isinstance(problem, TimeoutError):
                raise Unavailable("too much media under way, try again", "overload") from None
            raise

    def give_back(self, size: int, caller: str) -> None:
        """`size` bytes less are reserved."""
        self._take(-size, caller)
        self._serve()

    def enter(self, reader: Reader) -> None:
        """A body inside this share goes out to a client, or comes from one."""
        self._readers.add(reader)
        self._watch_readers()

    def leave(self, reader: Reader) -> None:
        """The client has all of it, or is gone."""
        self._readers.discard(reader)

    def _may_hold(self, size: int, caller: str) -> bool:
        """Whether one caller may have so much more."""
        return self._per_caller is None or self._held[caller] + size <= self._per_caller

    def _fits(self, size: int) -> bool:
        return self.reserved + size <= self.capacity

    def _take(self, size: int, caller: str) -> None:
        self.reserved += size
        self._held[caller] += size
        if not self._held[caller]:
            del self._held[caller]

    def _serve(self) -> None:
        while (turn := self._turn()) is not None and self._fits(turn[1].size):
            caller, waiting = turn
            self._leave_queue(waiting, caller)
            if caller in self._queues:
                self._queues.move_to_end(caller)  # callers take turns
            self._take(waiting.size, caller)
            waiting.granted.set_result(None)

    def _turn(self) -> tuple[str, _Waiting] | None:
        """Whose turn it is: who holds as much as one may is passed over, what is large is waited for."""
        for caller, queue in self._queues.items():
            waiting = queue[0]
            gave_up = waiting.granted.done()  # and leaves the queue at once
            if not gave_up and self._may_hold(waiting.size, caller):
                return caller, waiting
        return None

    def _leave_queue(self, waiting: _Waiting, caller: str) -> None:
        queue = self._queues[caller]
        queue.remove(waiting)
        if not queue:
            del self._queues[caller]

    def _watch_readers(self) -> None:
        if self._reaper is None and self._queues and self._readers:
            self._reaper = asyncio.get_running_loop().call_later(1.0, self._cut_slowest)

    def _cut_slowest(self) -> None:
        self._reaper = None
        now = asyncio.get_running_loop().time()
        late = (reader for reader in self._readers if now - reader.began > _PATIENCE)
        may_go = [reader for reader in late if reader.rate(now) < LEAST_RATE or self._has_most(reader)]
        if self._turn() is not None and may_go:  # who has reached his own limit waits for himself alone
            min(may_go, key=lambda reader: reader.rate(now)).cut()
        self._watch_readers()

    def _has_most(self, reader: Reader) -> bool:
        """Whether his caller has more than half of it, and more than this body, while another waits."""
        another_waits = bool(self._queues.keys() - {reader.caller})
        return another_waits and self._held[reader.caller] > max(self.capacity // 2, reader.size)


class Budget:
    """`limits.memory`, split into shares that never wait for each other.

    An eighth is for downloads up to 1 MiB, so that a thumbnail never waits behind 20 MB files. A quarter is
    for uploads. The homeserver may ask for an inspection in the middle of our own upload, so that where it
    is `inspected` that has an eighth for itself. Each but the first holds one `media_size` at least.
    """

    SMALL = 1024 * 1024

    def __init__(self, memory: int, wait: float, *, media_size: int = 0, inspected: bool = False) -> None:
        inspections = max(memory // 8, media_size) if inspected else 0
        uploads = max(memory // 4, media_size)
        self.small = Share(memory // 8, wait)
        self.inspections = Share(inspections, wait)
        self.uploads = Share(uploads, wait, per_caller=max(uploads // 2, media_size))
        self.downloads = Share(memory - memory // 8 - inspections - uploads, wait)

    def share_for(self, size: int) -> Share:
        """Where a download of at most `size` bytes belongs."""
        return self.small if size <= self.SMALL else self.downloads

    @property
    def shares(self) -> tuple[Share, ...]:
        """All of them."""
        return (self.small, self.inspections, self.uploads, self.downloads)

    @property
    def capacity(self) -> int:
        """Bytes that all bodies together may take."""
        return sum(share.capacity for share in self.shares)

    @property
    def reserved(self) -> int:
        """Bytes that are taken or promised."""
        return sum(share.reserved for share in self.shares)


class Slots:
    """How many samples the engines look at at once: one big one a core, and small ones beside them.

    clamd is saturated by one big file a core, but needs several small ones in flight (facts/performance.md,
    "Knobs"). So each kind has a lane of its own: big files use every core, and a thumbnail that comes
    while they do is scanned at once instead of a second later.
    """

    SMALL = 128 * 1024
    _SMALL_PER_CORE = 3

    def __init__(self, cores: int, wait: float) -> None:
        self._small = _Lane(cores * self._SMALL_PER_CORE, wait)
        self._big = _Lane(cores, wait)

    @property
    def capacity(self) -> int:
        """How many samples may hold one."""
        return self._small.slots + self._big.slots

    @property
    def in_flight(self) -> int:
        """Samples that hold a slot."""
        return self._small.in_flight + self._big.in_flight

    @property
    def waiting(self) -> int:
        """Samples that wait for one."""
        return self._small.waiting + self._big.waiting

    async def take(self, size: int, caller: str = "") -> Slot:
        """For as long as a sample's plaintext is in memory. Raises Unavailable when none is free in time."""
        lane = self._small if size <= self.SMALL else self._big
        await lane.take(size, caller)
        return Slot(lane)


class Slot:
    """What a scan holds: a context manager that gives it back at its end, if it is not before."""

    __slots__ = ("_lane",)

    def __init__(self, lane: _Lane) -> None:
        self._lane: _Lane | None = lane

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        """The next one's turn."""
        if self._lane is not None:
            self._lane.give()
            self._lane = None


@dataclass(slots=True)
class _Queued:
    """What one caller has in a queue: how many scans, and how long they may take."""

    scans: int = 0
    seconds: float = 0.0


@dataclass(order=True, slots=True)
class _Turn:
    """A scan in a queue, the first one due being the next."""

    due: float
    arrival: int
    seconds: float = field(compare=False)
    caller: str = field(compare=False)
    granted: asyncio.Future[None] = field(compare=False)


class _Lane:
    """A queue before some slots, ordered by when a scan would be done if every caller had a slot of his own.

    That is self-clocked fair queueing: time is what the last scan that was served was due at, so that it
    goes on as fast as the engines do. A smaller file overtakes a bigger one, who asks for a thousand files
    does not delay another's first, and no file is overtaken for ever.
    """

    _EXPECTED_RATE = 10_000_000  # bytes per second and core, measured
    _EXPECTED_TIME = 0.002  # seconds for the smallest, measured

    def __init__(self, slots: int, wait: float) -> None:
        self.slots = slots
        self._wait = wait
        self._queue: list[_Turn] = []
        self._queued: dict[str, _Queued] = {}
        self._arrivals = itertools.count()
        self._clock = 0.0
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        return sum(1 for turn in self._queue if not turn.granted.done())

    async def take(self, size: int, caller: str) -> None:
        if not self._queue and self.in_flight < self.slots:
            self.in_flight += 1
            return
        turn = self._enter(size, caller)
        self._serve()
        try:
            async with asyncio.timeout(self._wait):
                await turn.granted
        except BaseException as problem:
            if turn.granted.done() and not turn.granted.cancelled():
                self.in_flight -= 1  # served in the very moment in which the wait ended
            else:
                self._forget(turn)  # at once: what he asks for next is not behind what he gave up
            self._serve()
            if isinstance(problem, TimeoutError):
                raise Unavailable("too many scans under way, try again", "overload") from None
            raise

    def give(self) -> None:
        self.in_flight -= 1
        self._serve()

    def _enter(self, size: int, caller: str) -> _Turn:
        """Behind all that the caller has queued already, but for what is bigger."""
        seconds = self._EXPECTED_TIME + size / self._EXPECTED_RATE
        queued = self._queued.setdefault(caller, _Queued())
        own = min(queued.scans * seconds, queued.seconds)
        granted = asyncio.get_running_loop().create_future()
        turn = _Turn(self._clock + own + seconds, next(self._arrivals), seconds, caller, granted)
        queued.scans += 1
        queued.seconds += seconds
        heapq.heappush(self._queue, turn)
        return turn

    def _serve(self) -> None:
        while self._queue and (self._queue[0].granted.done() or self.in_flight < self.slots):
            turn = heapq.heappop(self._queue)
            if not turn.granted.done():
                self._forget(turn)
                self._clock = turn.due
                self.in_flight += 1
                turn.granted.set_result(None)

    def _forget(self, turn: _Turn) -> None:
        queued = self._queued[turn.caller]
        queued.scans -= 1
        queued.seconds -= turn.seconds
        if not queued.scans:
            del self._queued[turn.caller]
