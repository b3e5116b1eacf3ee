"""Every clamd that is configured: whether it answers, with what, and how far it looks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from scanner.canary import clean_file
from scanner.clamd.control import ClamdVersion
from scanner.clamd.protocol import ClamdAddress
from scanner.doctor import limits, signatures
from scanner.doctor.finding import Notes
from scanner.doctor.limits import Remedy
from scanner.doctor.prober import Prober
from scanner.doctor.signatures import Terms
from scanner.verdict import Outcome

_PROBE_TIMEOUT = 8.0


@dataclass(frozen=True, slots=True)
class Patient:
    """A clamd to look at; `embedded` is one that we configure ourselves."""

    address: ClamdAddress
    embedded: bool = False


async def examine(
    notes: Notes, patients: Mapping[str, Patient], terms: Terms, *, media_size: int, scan_timeout: float
) -> None:
    """All at once; `patients` by the name that stands in the configuration. Times are in seconds."""
    timeout = min(scan_timeout, _PROBE_TIMEOUT)
    pages = {name: Notes(name) for name in patients}
    looking = [
        _look_at(pages[name], Prober(patient.address, timeout), Remedy(patient.embedded, media_size), terms)
        for name, patient in patients.items()
    ]
    try:
        versions = dict(zip(patients, await asyncio.gather(*looking), strict=True))
    finally:
        notes.findings += [finding for page in pages.values() for finding in page.findings]
    signatures.compare(notes, {name: known for name, known in versions.items() if known is not None})


async def _look_at(notes: Notes, prober: Prober, remedy: Remedy, terms: Terms) -> ClamdVersion | None:
    if not await prober.connect(notes):
        notes.skipped("limits", "nothing shows without EICAR")
        return None
    version = await signatures.examine(notes, prober, terms)
    await _clean_file(notes, prober)
    await limits.examine(notes, prober, remedy)
    return version


async def _clean_file(notes: Notes, prober: Prober) -> None:
    answer = await prober.ask(clean_file())
    if answer.outcome is Outcome.CLEAN:
        notes.ok("clean file", "is called clean")
    else:
        found = f"the answer to a harmless line of text is {answer.info}"
        notes.failed("clean file", found, "look at clamd's log, and for a signature that finds everything")
