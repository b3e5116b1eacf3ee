"""Brings what waits in the outbox to the store, however long that takes.

What is new is tried at once. What failed is tried again within 2 s, later after up to 5 minutes, and at
once when an outage is over. What the store refuses for ever is passed over, and said each time: nothing
waits behind it. What is shipped twice is stored once: names are those of the content.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from scanner.errors import StoreError
from scanner.events import Publish, QuarantineFailed, QuarantineReplaced, QuarantineStored
from scanner.ports import Store
from scanner.quarantine.layout import DETECTIONS
from scanner.quarantine.outbox import Outbox

_DEADLINE = 30.0
_FIRST_RETRY = 1.0
_LONGEST_RETRY = 300.0
# What comes within this time is shipped in one round: a flood costs others less.
_TOGETHER = 0.25
_BATCH = 256
_AT_ONCE = 4


class Shipper:
    """Ships from `outbox` to `store`; `run` it in the background. `deadline` is in seconds, for each put.

    `problem` is the last one of what waits because of one.
    """

    def __init__(self, outbox: Outbox, store: Store, publish: Publish, deadline: float = _DEADLINE) -> None:
        self.problem = ""
        self._outbox = outbox
        self._store = store
        self._publish = publish
        self._deadline = deadline
        self._failed: dict[Path, None] = {}  # what failed longest ago comes first
        self._away = False
        self._knows_the_store = False
        self._retry = _FIRST_RETRY
        self._retry_at = 0.0
        self._woken = asyncio.Event()
        outbox.wake = self._woken.set

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._woken.clear()
            await self._ship_all()
            if self._away:
                await asyncio.sleep(_FIRST_RETRY)  # however much arrives
            await self._wait()
            await asyncio.sleep(_TOGETHER)

    async def flush(self, seconds: float) -> None:
        """One more try, for so long: before the end."""
        try:
            async with asyncio.timeout(seconds):
                await self._ship_all()
        except TimeoutError:
            return

    async def _wait(self) -> None:
        """Until something new arrives, or what failed is to be tried again."""
        until = self._retry_at if self._failed else _now() + _LONGEST_RETRY
        try:
            async with asyncio.timeout_at(until):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _ship_all(self) -> None:
        over = await self._ship_new() and self._away
        if over:
            self._away = False
        if self._failed and (over or _now() >= self._retry_at):
            await self._ship_again()

    async def _ship_new(self) -> bool:
        """What was never tried, until the store takes none of several; whether it took what there was."""
        took, rest = False, True
        while rest:
            samples, records = await self._waiting()
            for some in [*_chunks(samples), *_chunks(records)]:
                if not await self._ship(some):
                    self._away = True
                    return False
                took = True
            rest = _BATCH in (len(samples), len(records))
        return took

    async def _ship_again(self) -> None:
        """What failed, each once, until the store takes none of several; those are the last next time."""
        for some in _chunks(list(self._failed)):
            if not await self._ship(some):
                break
            self._away, self._retry = False, _FIRST_RETRY
        self._retry_at = _now() + self._retry
        self._retry = min(2 * self._retry, _LONGEST_RETRY)

    async def _waiting(self) -> tuple[list[Path], list[Path]]:
        """Samples, and the records that name them; up to `_BATCH` of each."""
        try:
            return await asyncio.to_thread(self._outbox.waiting, _BATCH, self._failed)
        except OSError as problem:
            self._publish(QuarantineFailed("outbox", "", problem.strerror or "cannot be read"))
            return [], []

    async def _ship(self, paths: list[Path]) -> bool:
        """All of them at once; whether the store took any."""
        outcomes = await asyncio.gather(*map(self._put, paths))
        taken = {path: new for path, new in zip(paths, outcomes, strict=True) if new is not None}
        await self._know_the_store([path for path, new in taken.items() if new])
        try:
            await asyncio.to_thread(self._outbox.shipped, taken)
        except OSError as problem:
            for path in taken:
                self._note_failure(path, problem)
            return False
        for path, new in taken.items():
            self._forget(path)
            self._publish(QuarantineStored(self._store.name, self._outbox.key_of(path), new))
        return bool(taken)

    async def _know_the_store(self, new: list[Path]) -> None:
        """Whether it replaces what it has: once, with a record put again, for we may not read there."""
        record = next((path for path in new if self._outbox.key_of(path).startswith(DETECTIONS)), None)
        if self._knows_the_store or record is None:
            return
        replaced = await self._put(record)
        self._knows_the_store = replaced is not None
        if replaced:
            self._publish(QuarantineReplaced(self._store.name, self._outbox.key_of(record)))

    async def _put(self, path: Path) -> bool | None:
        """Whether the store had nothing of that name; None where it failed."""
        try:
            async with asyncio.timeout(self._deadline):
                return await self._store.put(self._outbox.key_of(path), path)
        except (StoreError, TimeoutError) as problem:
            self._note_failure(path, problem)
            return None

    def _note_failure(self, path: Path, problem: Exception) -> None:
        if not self._failed:
            self._retry, self._retry_at = 2 * _FIRST_RETRY, _now() + _FIRST_RETRY
        self._forget(path)
        if path.exists():  # else somebody removed it
            self._failed[path] = None
            self.problem = _words(problem)
            self._publish(QuarantineFailed(self._store.name, self._outbox.key_of(path), self.problem))

    def _forget(self, path: Path) -> None:
        self._failed.pop(path, None)
        if not self._failed:
            self.problem = ""


def _chunks(paths: list[Path]) -> list[list[Path]]:
    return [paths[first : first + _AT_ONCE] for first in range(0, len(paths), _AT_ONCE)]


def _now() -> float:
    return asyncio.get_running_loop().time()


def _words(problem: Exception) -> str:
    if isinstance(problem, StoreError):
        return problem.info
    return "no answer in time" if isinstance(problem, TimeoutError) else "the outbox cannot be used"
