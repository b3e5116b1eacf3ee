"""The load generator: callers that ask one after the other, and the meters that are read meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, Self
from urllib.request import urlopen

from tests.bench.corpus import Corpus
from tests.bench.procfs import MemoryWatch, cpu_seconds
from tests.bench.record import Measured
from tests.bench.requests import Request
from tests.bench.scenarios import Scenario
from tests.bench.targets import Sender, Surroundings, Target

_TIME_LIMIT = 240.0  # seconds that a scenario may take
_LEAD = 0.3  # seconds that the background has before it counts
_SETTLES = 0.05  # seconds: clamd writes its log after its answer
_HASHED = 50  # the bytes of one answer in so many are compared as a whole


class Meters(NamedTuple):
    """Counters that only grow; their difference is what a trial took."""

    cpu: float
    clamd_cpu: float
    own_cpu: float
    origin_cpu: float
    scans: float
    fetches: float

    @classmethod
    def read(cls, surroundings: Surroundings, target: Target) -> Self:
        origin = _ask(surroundings, "/stats")
        return cls(
            cpu_seconds(target.pid),
            cpu_seconds(surroundings.clamd.pid),
            time.process_time(),
            origin["cpu_s"],
            surroundings.clamd.scans(),
            origin["fetches"],
        )


def _ask(surroundings: Surroundings, path: str) -> dict[str, float]:
    with urlopen(surroundings.origin + path, timeout=20) as response:
        answer: dict[str, float] = json.load(response)
        return answer


class Trial:
    """One scenario against one target, once."""

    def __init__(
        self, surroundings: Surroundings, target: Target, scenario: Scenario, corpus: Corpus
    ) -> None:
        self._surroundings = surroundings
        self._target = target
        self._scenario = scenario
        self._corpus = corpus
        self._latencies: list[float] = []
        self._background: list[float] = []
        self._bytes = 0
        self._issued = 0
        self._over = False
        self._errors = Counter[str]()

    async def run(self) -> Measured:
        requests = self._scenario.stream.requests(self._corpus)
        await self._warm_up(requests)
        _ask(self._surroundings, "/reset")
        before = Meters.read(self._surroundings, self._target)
        with MemoryWatch(self._target.pid) as memory:
            seconds = await self._load(requests)
        await asyncio.sleep(_SETTLES)
        after = Meters.read(self._surroundings, self._target)
        return self._measured(seconds, before, after, memory.peak)

    async def _warm_up(self, requests: Iterator[Request]) -> None:
        sender = self._target.sender()
        for request in itertools.islice(requests, self._scenario.warm_up):
            await sender.send(request, hashed=False)
        sender.close()

    async def _load(self, requests: Iterator[Request]) -> float:
        """Seconds until the last caller was done; the background goes on as long."""
        background = self._start_background()
        if background:
            await asyncio.sleep(_LEAD)
        began = time.perf_counter()
        until = began + self._scenario.seconds
        callers = [asyncio.create_task(self._call(requests, until)) for _ in range(self._scenario.callers)]
        await self._finish(callers)
        seconds = time.perf_counter() - began
        self._over = True
        await self._finish(background)
        return seconds

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        if not tasks:
            return
        done, late = await asyncio.wait(tasks, timeout=_TIME_LIMIT)
        for task in late:
            task.cancel()
            self._errors["no answer in time"] += 1
        for task in done:
            task.result()

    def _start_background(self) -> list[asyncio.Task[None]]:
        if self._scenario.background is None:
            return []
        requests = self._scenario.background.requests(self._corpus)
        callers = range(self._scenario.background_callers)
        return [asyncio.create_task(self._call_in_background(requests)) for _ in callers]

    async def _call(self, requests: Iterator[Request], until: float) -> None:
        sender = self._target.sender()
        while self._may_ask(until):
            self._issued += 1
            request = next(requests)
            if seconds := await self._timed(sender, request, hashed=self._issued % _HASHED == 1):
                self._latencies.append(seconds)
                self._bytes += request.base.size
        sender.close()

    def _may_ask(self, until: float) -> bool:
        if self._issued >= self._scenario.most:
            return False
        return self._issued < self._scenario.least or time.perf_counter() < until

    async def _call_in_background(self, requests: Iterator[Request]) -> None:
        sender = self._target.sender()
        while not self._over:
            if seconds := await self._timed(sender, next(requests), hashed=False):
                self._background.append(seconds)
        sender.close()

    async def _timed(self, sender: Sender, request: Request, *, hashed: bool) -> float | None:
        """Seconds to the last byte, None where the answer was wrong."""
        began = time.perf_counter()
        try:
            wrong = await sender.send(request, hashed=hashed)
        except (OSError, ValueError) as error:  # ValueError: what should be JSON is none
            wrong = type(error).__name__
        if wrong is None:
            return time.perf_counter() - began
        self._errors[wrong] += 1
        return None

    def _measured(self, seconds: float, before: Meters, after: Meters, memory: int) -> Measured:
        files = len(self._latencies)
        latencies = sorted(self._latencies) or [0.0]
        took = Meters(*(end - start for end, start in zip(after, before, strict=True)))
        per_file = 1e3 / max(1, files + len(self._background))
        return Measured(
            files=files,
            seconds=_rounded(seconds),
            files_s=_rounded(files / seconds),
            mb_s=_rounded(self._bytes / 1e6 / seconds),
            p50_ms=_percentile(latencies, 0.5),
            p95_ms=_percentile(latencies, 0.95),
            p99_ms=_percentile(latencies, 0.99),
            cpu_ms_file=_rounded(took.cpu * per_file),
            clamd_cpu_ms_file=_rounded(took.clamd_cpu * per_file),
            client_cpu_ms_file=_rounded(took.own_cpu * per_file),
            origin_cpu_ms_file=_rounded(took.origin_cpu * per_file),
            mem_peak_mb=_rounded(memory / 1e6),
            scans=int(took.scans),
            fetches=int(took.fetches),
            background_files_s=_rounded(len(self._background) / seconds),
            errors=dict(self._errors),
        )


def _percentile(latencies: list[float], share: float) -> float:
    """Milliseconds."""
    return _rounded(1e3 * latencies[min(len(latencies) - 1, int(len(latencies) * share))])


def _rounded(value: float) -> float:
    """What is beyond four digits is noise."""
    return float(f"{value:.4g}")
