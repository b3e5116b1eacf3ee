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

    async def reserve(self, size: int, caller: Hashable) -> Reservation:
        """Take `size` bytes, at once or in turn.

        Raises Unavailable after the share's patience.
        """
        if not self._queues and self.reserved + size <= self.capacity:
            self.reserved += size
            return Reservation(self, size)
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
    """How many samples the engines look at at once; small ones first.

    A small sample costs one unit, a big one as many as there are units per core: clamd is saturated by a
    big file a core, but needs several small ones in flight (facts/performance.md, "Knobs"). The queue is
    ordered by arrival plus the time that a scan of this size is expected to take, so a small file
    overtakes a big one, and a big one is not overtaken for ever.
    """

    SMALL = 128 * 1024
    UNITS_PER_CORE = 3
    _EXPECTED_RATE = 10_000_000  # bytes per second and core, measured

    def __init__(self, cores: int, wait: float) -> None:
        self._free = cores * self.UNITS_PER_CORE
        self._wait = wait
        self._queue: list[tuple[float, int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        """How many samples wait for a slot."""
        return sum(1 for *_, turn in self._queue if not turn.done())

    @asynccontextmanager
    async def slot(self, size: int) -> AsyncIterator[None]:
        """Held while a sample's plaintext is in memory. Raises Unavailable when none is free in time."""
        units = 1 if size <= self.SMALL else self.UNITS_PER_CORE
        await self._take(units, size)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._give(units)

    async def _take(self, units: int, size: int) -> None:
        if not self._queue and units <= self._free:
            self._free -= units
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        due = loop.time() + size / self._EXPECTED_RATE
        heapq.heappush(self._queue, (due, next(self._arrivals), units, turn))
        self._serve()
        try:
            async with asyncio.timeout(self._wait):
                await turn
        except BaseException as problem:
            if turn.done() and not turn.cancelled():
                self._give(units)
            turn.cancel()
            self._serve()
            if isinstance(problem, TimeoutError):
                raise Unavailable("too many scans under way, try again", "overload") from None
            raise

    def _give(self, units: int) -> None:
        self._free += units
        self._serve()

    def _serve(self) -> None:
        while self._queue:
            _, _, units, turn = self._queue[0]
            if turn.done():
                heapq.heappop(self._queue)
                continue
            if units > self._free:
                return
            heapq.heappop(self._queue)
            self._free -= units
            turn.set_result(None)
