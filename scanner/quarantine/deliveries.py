"""Who was given what: kept for a while, so that a detection can name those who had the content before it.

Deliveries are noted in memory and written down once a second, in a thread of their own: no request waits for
it, and what a SIGKILL costs is one second of them. At the first detection of a content its deliveries become
one sealed record in the outbox. Replicas that did not see the detection, or were killed, learn of it from the
store, where the sample has the content's name. Where there is no sample the record of deliveries is written
even if there were none, for its name.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple, Self

from scanner.errors import ScannerError, StoreError
from scanner.events import Delivered, Detected, Event, Publish, QuarantineFailed
from scanner.ports import Store
from scanner.quarantine.delivery_log import DeliveryLog, Noted, Times
from scanner.quarantine.delivery_records import DeliveryRecord, Witness
from scanner.quarantine.layout import DELIVERIES, OBJECTS, content_of
from scanner.quarantine.outbox import Outbox
from scanner.verdict import ContentId, IndexSecret

_NAME = "deliveries"
_INTERVAL = 1.0
# After a failure; what waits meanwhile is bounded.
_RETRY = 30.0
_POLL = 300.0
_MOST_NOTED = 50_000
_MOST_TOLD = 100_000
_AT_ONCE = 1_000


class _Wanted(NamedTuple):
    """A content whose deliveries are to be told; `empty`: even if there are none."""

    sha256: str
    empty: bool


class Deliveries:
    """An EventSink; use it as an async context manager, and `follow` the store in the background."""

    def __init__(self, log: DeliveryLog, outbox: Outbox, index: IndexSecret, publish: Publish) -> None:
        self._log = log
        self._outbox = outbox
        self._index = index
        self._publish = publish
        self._noted: dict[Noted, Times] = {}
        self._dropped = 0
        self._wanted: list[_Wanted] = []
        self._told: OrderedDict[str, None] = OrderedDict()
        self._woken = asyncio.Event()
        self._failing = False

    async def __aenter__(self) -> Self:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=_NAME)
        await self._in_worker(self._introduce)
        self._writing = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writing.cancel()
        with suppress(asyncio.CancelledError):
            await self._writing
        await self._write()
        await self._in_worker(self._log.close)
        self._worker.shutdown(wait=False)

    def __call__(self, event: Event) -> None:
        """Take note of who is given what, and of what is detected."""
        if isinstance(event, Delivered) and event.occasion.ref is not None:
            self._note(Noted(event.content, str(event.occasion.ref), event.caller))
        elif isinstance(event, Detected) and event.verdict.hashes is not None:
            self._want(_Wanted(event.verdict.hashes.sha256, empty=not event.verdict.kept))

    async def follow(self, store: Store) -> None:
        """Until cancelled, tell what other replicas' detections ask for."""
        seen, problem = {""}, ""
        while True:
            await asyncio.sleep(_POLL)
            try:
                names = {
                    content_of(stored.key)
                    for folder in (OBJECTS, DELIVERIES)
                    async for stored in store.listing(f"{folder}/")
                }
                problem = ""
                if await self._tell_of_others(names - seen):
                    seen |= names
            except StoreError as error:
                if error.info != problem:
                    self._publish(QuarantineFailed(store.name, DELIVERIES, error.info))
                problem = error.info

    async def _tell_of_others(self, contents: Iterable[str]) -> bool:
        """Whether all is told; in pieces, between which others have their turn in the worker."""
        wanted = [_Wanted(sha256, empty=False) for sha256 in sorted(contents)]
        pieces = [wanted[at : at + _AT_ONCE] for at in range(0, len(wanted), _AT_ONCE)]
        return all([await self._in_worker(self._tell, piece) for piece in pieces])

    def _note(self, noted: Noted) -> None:
        now = time.time()
        self._add(noted, Times(now, now))
        self._woken.set()

    def _add(self, noted: Noted, times: Times) -> None:
        known = self._noted.get(noted)
        if known is not None:
            known.last, known.count = times.last, known.count + times.count
        elif len(self._noted) < _MOST_NOTED:
            self._noted[noted] = times
        else:
            self._dropped += 1

    def _want(self, wanted: _Wanted) -> None:
        """Once; a file that is asked for again and again costs no more."""
        if wanted.sha256 not in self._told and len(self._wanted) < _MOST_NOTED:
            self._told[wanted.sha256] = None
            self._wanted.append(wanted)
            self._woken.set()
        while len(self._told) > _MOST_TOLD:
            self._told.popitem(last=False)

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            await asyncio.sleep(_INTERVAL)
            self._woken.clear()
            if not await self._write():
                await asyncio.sleep(_RETRY)
                self._woken.set()

    async def _write(self) -> bool:
        """Whether all that waited is written; who was given a content comes before what is told of it."""
        noted, self._noted = self._noted, {}
        if self._dropped:
            self._publish(QuarantineFailed(_NAME, "", f"too many at once, {self._dropped} were not noted"))
            self._dropped = 0
        if noted and not await self._in_worker(self._append, noted):
            meanwhile, self._noted = self._noted, noted
            for each, times in meanwhile.items():
                self._add(each, times)
            return False
        wanted, self._wanted = self._wanted, []
        if wanted and not await self._in_worker(self._tell, wanted):
            self._wanted = wanted + self._wanted
            return False
        return True

    async def _in_worker(self, work: Callable[..., object], *arguments: object) -> bool:
        """Whether it was done; the first failure in a row is an event. Who is cancelled still has it done."""
        try:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments))
        except (ScannerError, OSError) as problem:
            words = problem.info if isinstance(problem, ScannerError) else problem.strerror or str(problem)
            if not self._failing:
                self._publish(QuarantineFailed(_NAME, "", words))
            self._failing, self._outbox.witness = True, None
            return False
        self._failing = False
        return True

    # -- in the thread ---------------------------------------------------------------------------

    def _append(self, noted: Mapping[Noted, Times]) -> None:
        self._log.append(noted)
        self._introduce()

    def _introduce(self) -> None:
        self._outbox.witness = Witness(self._log.replica(), self._log.since())

    def _tell(self, wanted: Sequence[_Wanted]) -> None:
        replica, since = self._log.replica(), self._log.since()
        contents = {self._index.content(bytes.fromhex(each.sha256)): each for each in wanted}
        told: list[ContentId] = []
        try:
            for content in self._log.untold(list(contents)):
                sha256, empty = contents[content]
                found = self._log.find(content)
                if found or empty:
                    now = datetime.now(UTC).isoformat(timespec="milliseconds")
                    self._outbox.tell(DeliveryRecord(sha256, replica, now, since, tuple(found)))
                told.append(content)
        finally:
            self._log.tell(told)
