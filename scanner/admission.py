"""Who may start, who waits, who is turned away: byte shares for bodies, slots for scans.

The rules: a request reserves its bytes once and never waits for more while it holds some; callers take
turns, so that one with many requests cannot shut out the rest; a share is taken before a slot, and a
slot is given back before anything is forwarded (DESIGN.md, "Room").
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from scanner.errors import Unavailable

# A reader below this mean rate, in bytes per second, may be cut while others wait for its share.
LEAST_RATE = 64 * 1024
# ... but only after this many seconds.
_PATIENCE = 5.0


@dataclass(eq=False, slots=True)
class Reader:
    """A client that takes its time to read a body. `cut()` ends it and frees its bytes."""

    cut: Callable[[], None]
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    taken: int = 0

    def rate(self, now: float) -> float:
        """Mean rate so far, in bytes per second."""
        return self.taken / max(now - self.began, 1e-3)


class Reservation:
    """Bytes of a share that one body holds; a `media.Room`."""

    __slots__ = ("_share", "_size")

    def __init__(self, share: Share, size: int) -> None:
        self._share = share
        self._size = size

    def shrink(self, size: int) -> None:
        """Give back what is not needed after all."""
        self._share.give_back(self._size - size)
        self._size = size

    def close(self) -> None:
        """Give back everything."""
        self.shrink(0)

    @contextmanager
    def lend(self, cut: Callable[[], None]) -> Iterator[Reader]:
        """Let a client read the body; it may be cut while others wait for its share."""
        reader = Reader(cut)
        self._share.enter(reader)
        try:
            yield reader
        finally:
            self._share.leave(reader)


class Share:
    """A part of the memory budget. Reservations are served in turn of their callers."""

    def __init__(self, capacity: int, wait: float) -> None:
        self.capacity = capacity
        self.reserved = 0
        self._wait = wait
        self._queues: OrderedDict[Hashable, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()
        self._readers: set[Reader] = set()
        self._reaper: asyncio.TimerHandle | None = None

    def reserve_at_once(self, size: int) -> Reservation | None:
        """Take `size` bytes, if nobody has to wait for them."""
        if self._queues or self.reserved + size > self.capacity:
            return None
        self.reserved += size
        return Reservation(self, size)

    async def reserve(self, size: int, caller: Hashable) -> Reservation:
        """Take `size` bytes, at once or in turn.

        Raises Unavailable after the share's patience.
        """
        at_once = self.reserve_at_once(size)
        if at_once is not None:
            return at_once
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append((size, turn))
        self._serve()
        self._watch_readers()
        try:
            async with asyncio.timeout(self._wait):
                await turn
            return Reservation(self, size)
        except BaseException as problem:
            if turn.done() and not turn.cancelled():
                self.reserved -= size  # served in the very moment in which the wait ended
            self._serve()
            if isinstance(problem, TimeoutError):
                raise Unavailable("too much media under way, try again", "overload") from None
            raise

    def give_back(self, size: int) -> None:
        """`size` bytes less are reserved."""
        self.reserved -= size
        self._serve()

    def enter(self, reader: Reader) -> None:
        """A body inside this share goes out to a client."""
        self._readers.add(reader)
        self._watch_readers()

    def leave(self, reader: Reader) -> None:
        """The client has read all of it, or is gone."""
        self._readers.discard(reader)

    def _serve(self) -> None:
        while self._queues:
            caller, queue = next(iter(self._queues.items()))
            while queue and queue[0][1].done():
                queue.popleft()  # gave up
            if queue:
                size, turn = queue[0]
                if self.reserved + size > self.capacity:
                    return
                self.reserved += size
                turn.set_result(None)
                queue.popleft()
            del self._queues[caller]
            if queue:
                self._queues[caller] = queue  # to the end: callers take turns

    def _watch_readers(self) -> None:
        if self._reaper is None and self._queues and self._readers:
            self._reaper = asyncio.get_running_loop().call_later(1.0, self._cut_slowest)

    def _cut_slowest(self) -> None:
        self._reaper = None
        now = asyncio.get_running_loop().time()
        slow = [r for r in self._readers if now - r.began > _PATIENCE and r.rate(now) < LEAST_RATE]
        if self._queues and slow:
            min(slow, key=lambda reader: reader.rate(now)).cut()
        self._watch_readers()


class Budget:
    """`limits.memory`, split into shares that never wait for each other.

    An eighth is for bodies up to 1 MiB, so that a thumbnail never waits behind 20 MB files.
    """

    SMALL = 1024 * 1024

    def __init__(self, memory: int, wait: float) -> None:
        self.small = Share(memory // 8, wait)
        self.downloads = Share(memory - memory // 8, wait)

    def share_for(self, size: int) -> Share:
        """Where a body of at most `size` bytes belongs."""
        return self.small if size <= self.SMALL else self.downloads

    @property
    def capacity(self) -> int:
        """Bytes that all bodies together may take."""
        return self.small.capacity + self.downloads.capacity

    @property
    def reserved(self) -> int:
        """Bytes that are taken or promised."""
        return self.small.reserved + self.downloads.reserved


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
    def in_flight(self) -> int:
        """Samples that hold a slot."""
        return self._small.in_flight + self._big.in_flight

    @property
    def waiting(self) -> int:
        """Samples that wait for one."""
        return self._small.waiting + self._big.waiting

    @asynccontextmanager
    async def slot(self, size: int) -> AsyncIterator[None]:
        """Held while a sample's plaintext is in memory. Raises Unavailable when none is free in time."""
        lane = self._small if size <= self.SMALL else self._big
        await lane.take(size)
        try:
            yield
        finally:
            lane.give()


class _Lane:
    """A queue before some slots, ordered by arrival plus the time that a scan of the size may take.

    So a smaller file overtakes a bigger one, and no file is overtaken for ever.
    """

    _EXPECTED_RATE = 10_000_000  # bytes per second and core, measured

    def __init__(self, slots: int, wait: float) -> None:
        self._slots = slots
        self._wait = wait
        self._queue: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        return sum(1 for *_, turn in self._queue if not turn.done())

    async def take(self, size: int) -> None:
        if not self._queue and self.in_flight < self._slots:
            self.in_flight += 1
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        due = loop.time() + size / self._EXPECTED_RATE
        heapq.heappush(self._queue, (due, next(self._arrivals), turn))
        self._serve()
        try:
            async with asyncio.timeout(self._wait):
                await turn
        except BaseException as problem:
            if turn.done() and not turn.cancelled():
                self.in_flight -= 1  # served in the very moment in which the wait ended
            self._serve()
            if isinstance(problem, TimeoutError):
                raise Unavailable("too many scans under way, try again", "overload") from None
            raise

    def give(self) -> None:
        self.in_flight -= 1
        self._serve()

    def _serve(self) -> None:
        while self._queue and (self._queue[0][2].done() or self.in_flight < self._slots):
            _, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
