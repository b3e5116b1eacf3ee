"""Is clamd sure to see what everybody else sees in a file? If so, clean: clamd's verdict suffices.

If not, unscannable, with the reason: encrypted, damaged, over a limit, or ambiguous. This engine never
detects. Its rules, and why they are as tight, are in facts/archives.md; unpacking what is not plain is
another engine's work. Most files are no containers: they are searched on the event loop, in steps that do
not hold it, since a thread that runs Python gains nothing and makes the loop wait for the interpreter.
Containers go to worker threads of their own: few, because each makes the loop wait; as many again as may
look into big ones, so that a small one does not wait behind them.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from scanner.containers.embedded import search_for_container
from scanner.containers.inspection import Inspection, Part, Unsure
from scanner.containers.recognise import by_ends, by_inside, is_pdf
from scanner.containers.tar import begins_tar_later
from scanner.verdict import Outcome, Reason, Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanner.media import Sample

# Raised with every change of the rules: old verdicts are then not found any more.
_RULES = "2"
_VERSIONS = frozenset({_RULES})
_TIMEOUT = 20.0
_AT_ONCE = 64 * 1024


class Archive:
    """Says of each sample whether what clamd sees in it is all there is. `timeout` is in seconds."""

    name = "archive"

    def __init__(self, timeout: float = _TIMEOUT) -> None:
        self._timeout = timeout
        self._workers = ThreadPoolExecutor(2 * (os.cpu_count() or 1), thread_name_prefix="archives")

    def versions(self) -> frozenset[str]:
        return _VERSIONS

    async def scan(self, sample: Sample) -> Report:
        """CLEAN or UNSCANNABLE; never raises for what is in the sample."""
        small = sample.size <= _AT_ONCE  # read once, judged at once
        part = Part.of(sample.head(sample.size)) if small else Part(sample.read, 0, sample.size)
        reason = await self._reason(part)
        outcome = Outcome.CLEAN if reason is None else Outcome.UNSCANNABLE
        return Report(self.name, outcome, _RULES, reason)

    async def _reason(self, part: Part) -> Reason | None:
        if is_pdf(part) or by_ends(part) is not None:
            return await self._in_worker(part)
        for found in search_for_container(part):
            if found:
                return Reason.AMBIGUOUS
            if part.size > _AT_ONCE:
                await asyncio.sleep(0)
        return Reason.AMBIGUOUS if begins_tar_later(part) else None

    async def _in_worker(self, part: Part) -> Reason | None:
        abandoned = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._workers, lambda: inspect(part, self._timeout, abandoned.is_set)
            )
        finally:
            abandoned.set()


def inspect(part: Part, timeout: float, abandoned: Callable[[], bool] = lambda: False) -> Reason | None:
    """Why clamd may not see everything in these bytes, or None if it does; `timeout` is in seconds."""
    deadline = time.monotonic() + timeout
    try:
        Inspection(by_ends, by_inside, deadline, abandoned).look_into(part)
    except Unsure as unsure:
        return unsure.reason
    return None
