"""Is clamd sure to see what everybody else sees in a file? If so, clean: clamd's verdict suffices.

If not, unscannable, with the reason: encrypted, damaged, over a limit, or ambiguous. This engine never
detects. Its rules, and why they are as tight, are in facts/archives.md; unpacking what is not plain is
another engine's work. Most files are no containers: they are searched on the event loop, in steps that do
not hold it, since a thread that runs Python gains nothing and makes the loop wait for the interpreter.
Containers go to a worker thread.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from scanner.containers.embedded import search_for_container
from scanner.containers.inspection import Inspection, Part, Unsure
from scanner.containers.recognise import by_ends, by_inside, is_pdf
from scanner.containers.tar import begins_tar_later
from scanner.verdict import Outcome, Reason, Report

if TYPE_CHECKING:
    from scanner.media import Sample

# Raised with every change of the rules: old verdicts are then not found any more.
_RULES = "1"
_VERSIONS = frozenset({_RULES})
_TIMEOUT = 20.0


class Archive:
    """Says of each sample whether what clamd sees in it is all there is. `timeout` is in seconds."""

    name = "archive"

    def __init__(self, timeout: float = _TIMEOUT) -> None:
        self._timeout = timeout

    def versions(self) -> frozenset[str]:
        return _VERSIONS

    async def scan(self, sample: Sample) -> Report:
        """CLEAN or UNSCANNABLE; never raises for what is in the sample."""
        reason = await self._reason(Part(sample.read, 0, sample.size))
        outcome = Outcome.CLEAN if reason is None else Outcome.UNSCANNABLE
        return Report(self.name, outcome, _RULES, reason)

    async def _reason(self, part: Part) -> Reason | None:
        if is_pdf(part) or by_ends(part) is not None:
            return await asyncio.to_thread(inspect, part, time.monotonic() + self._timeout)
        for found in search_for_container(part):
            if found:
                return Reason.AMBIGUOUS
            await asyncio.sleep(0)
        return Reason.AMBIGUOUS if begins_tar_later(part) else None


def inspect(part: Part, deadline: float) -> Reason | None:
    """Why clamd may not see everything in these bytes, or None if it does. `deadline` is monotonic."""
    try:
        Inspection(by_ends, by_inside, deadline).look_into(part)
    except Unsure as unsure:
        return unsure.reason
    return None
