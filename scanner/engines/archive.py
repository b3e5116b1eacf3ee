"""Is clamd sure to see what everybody else sees in a file? If so, clean: clamd's verdict suffices.

If not, unscannable, with the reason: encrypted, damaged, over a limit, or ambiguous. This engine never
detects. Its rules, and why they are as tight, are in facts/archives.md; unpacking what is not plain is
another engine's work. Small files are judged at once; what takes longer goes to a worker thread that
touches bytes in small steps, because it holds the event loop up while Python runs (facts/performance.md).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from scanner.containers.inspection import Inspection, Part, Unsure
from scanner.containers.recognise import by_ends, by_inside
from scanner.verdict import Outcome, Reason, Report

if TYPE_CHECKING:
    from scanner.media import Mapped, Sample

# Raised with every change of the rules: old verdicts are then not found any more.
_RULES = "1"
_VERSIONS = frozenset({_RULES})
_TIMEOUT = 20.0
_AT_ONCE = 64 * 1024


class Archive:
    """Says of each sample whether what clamd sees in it is all there is. `timeout` is in seconds."""

    name = "archive"

    def __init__(self, timeout: float = _TIMEOUT) -> None:
        self._timeout = timeout

    def versions(self) -> frozenset[str]:
        return _VERSIONS

    async def scan(self, sample: Sample) -> Report:
        """CLEAN or UNSCANNABLE; never raises for what is in the sample."""
        deadline = time.monotonic() + self._timeout
        with sample.mapped() as data:
            if _is_quick(data):
                reason = inspect(data, deadline)
            else:
                reason = await asyncio.to_thread(inspect, data, deadline)
        outcome = Outcome.CLEAN if reason is None else Outcome.UNSCANNABLE
        return Report(self.name, outcome, _RULES, reason)


def inspect(data: Mapped, deadline: float) -> Reason | None:
    """Why clamd may not see everything in these bytes, or None if it does."""
    try:
        Inspection(by_ends, by_inside, deadline).look_into(Part(data))
    except Unsure as unsure:
        return unsure.reason
    return None


def _is_quick(data: Mapped) -> bool:
    return len(data) <= _AT_ONCE and by_ends(Part(data)) is None
