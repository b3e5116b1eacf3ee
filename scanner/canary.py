"""Every minute each backend must find EICAR and call a clean file clean.

A backend that answers wrongly is taken out of service until it answers rightly again. One that gives no
answer stays: the scans themselves find that out soonest. The canary asks backends and nothing else, so it
needs no scan slot, and never becomes a detection, an alert or a quarantined file.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from scanner.events import CanaryRan, Publish
from scanner.media import BodyWriter, Sample
from scanner.ports import Backend
from scanner.verdict import Outcome

# In two pieces, so that no file of ours is itself a detection.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"


class Canary:
    """Asks every one of `backends` each `interval` seconds, and each `retry` seconds until it is right.

    `last_success` is the Unix time of the last right answer of any backend, 0.0 before the first.
    """

    def __init__(
        self, backends: Sequence[Backend], publish: Publish, interval: float = 60.0, retry: float = 1.0
    ) -> None:
        self._watches = [_Watch(backend, publish, interval, retry) for backend in backends]
        self._interval = interval

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in self._watches:
                group.create_task(watch.run())

    def wake(self) -> None:
        """Something changed, such as signatures: ask every backend now."""
        for watch in self._watches:
            watch.changed.set()

    @property
    def healthy(self) -> bool:
        """Whether any backend answered rightly within the last two intervals."""
        oldest = time.monotonic() - 2 * self._interval
        return any(watch.passed_at is not None and watch.passed_at >= oldest for watch in self._watches)

    @property
    def last_success(self) -> float:
        """For people and metrics; `healthy` is not measured with it, because the time of day jumps."""
        return max((watch.passed_time for watch in self._watches), default=0.0)


class _Watch:
    """One backend. `passed_at` is monotonic, `passed_time` is Unix time."""

    def __init__(self, backend: Backend, publish: Publish, interval: float, retry: float) -> None:
        self._backend = backend
        self._publish = publish
        self._interval = interval
        self._retry = retry
        self.changed = asyncio.Event()
        self.passed_at: float | None = None
        self.passed_time = 0.0

    async def run(self) -> None:
        while True:
            self.changed.clear()
            passed = await self._ask()
            await asyncio.sleep(self._retry)  # at most so often, however much changes
            if passed:
                await self._until_due()

    async def _until_due(self) -> None:
        try:
            async with asyncio.timeout(self._interval - self._retry):
                await self.changed.wait()
        except TimeoutError:
            pass

    async def _ask(self) -> bool | None:
        began = time.monotonic()
        passed = await self._answers_rightly()
        if passed is not None:
            self._backend.trust(passed)
        if passed:
            self.passed_at, self.passed_time = time.monotonic(), time.time()
        self._publish(CanaryRan(self._backend.name, passed, time.monotonic() - began))
        return passed

    async def _answers_rightly(self) -> bool | None:
        """None where there is no answer: an exception, or a backend that says FAILED."""
        try:
            outcomes = await self._outcome(EICAR), await self._outcome(clean_file())
        except Exception:  # noqa: BLE001 - as the pipeline's engine guard: a broken backend must not end the watch
            return None
        return None if Outcome.FAILED in outcomes else outcomes == (Outcome.INFECTED, Outcome.CLEAN)

    async def _outcome(self, content: bytes) -> Outcome:
        async with sample(content) as opened:
            return (await self._backend.scan(opened)).outcome


def clean_file() -> bytes:
    """A new one each time: a scanner may remember what it found clean."""
    return b"nothing is wrong with this file " + secrets.token_hex(16).encode()


@asynccontextmanager
async def sample(content: bytes) -> AsyncIterator[Sample]:
    """These bytes, opened, inside the block."""
    writer = BodyWriter()
    writer.write(content)
    body = writer.seal()
    try:
        sample = Sample(body)
        async with sample.opened():
            yield sample
    finally:
        body.release()
