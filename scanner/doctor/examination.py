"""All groups at once, each within its time: what is stuck costs its own findings and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from scanner.doctor.finding import Examine, Finding, Notes, Status
from scanner.errors import ScannerError

# Seconds; beside it the end of a clamd that was started for the check may take 3.
WITHIN = 25.0

_WORST_LAST = tuple(Status)


@dataclass(frozen=True, slots=True)
class Section:
    """What one group found."""

    group: str
    findings: tuple[Finding, ...]


async def examine(groups: Mapping[str, Examine], within: float = WITHIN) -> list[Section]:
    """The findings of every group, in the order of `groups`; `within` is in seconds."""
    return await asyncio.gather(*(_section(group, look, within) for group, look in groups.items()))


def worst(sections: list[Section]) -> Status:
    """The worst status of all."""
    found = [finding.status for section in sections for finding in section.findings]
    return max(found, key=_WORST_LAST.index, default=Status.OK)


async def _section(group: str, look: Examine, within: float) -> Section:
    notes = Notes()
    try:
        async with asyncio.timeout(within):
            await look(notes)
    except TimeoutError:
        found = f"not everything was looked at within {within:.0f} s"
        notes.failed("time", found, "see what came last; is this machine overloaded?")
    except (ScannerError, OSError) as problem:
        notes.failed("examination", f"broke off: {problem}", "see the line above, and run it again")
    return Section(group, tuple(notes.findings))
