from __future__ import annotations

import asyncio

from scanner.doctor.examination import examine, worst
from scanner.doctor.finding import Notes, Status
from scanner.errors import ConfigError


async def well(notes: Notes) -> None:
    notes.ok("one", "fine")


async def stuck(notes: Notes) -> None:
    notes.ok("first", "fine")
    await asyncio.Event().wait()


async def broken(notes: Notes) -> None:
    raise ConfigError("no place to write")


async def test_a_stuck_group_keeps_what_it_found_and_costs_no_other_anything() -> None:
    sections = await examine({"stuck": stuck, "well": well}, within=0.05)
    assert [(section.group, len(section.findings)) for section in sections] == [("stuck", 2), ("well", 1)]
    assert [finding.status for finding in sections[0].findings] == [Status.OK, Status.FAILED]
    assert "not everything" in sections[0].findings[1].found


async def test_a_group_that_breaks_off_is_a_finding() -> None:
    [section] = await examine({"broken": broken})
    assert section.findings[0].status is Status.FAILED
    assert "no place to write" in section.findings[0].found


async def test_the_worst_status_counts_and_a_skipped_one_is_no_failure() -> None:
    async def skipping(notes: Notes) -> None:
        notes.skipped("x", "unseen")

    async def warning(notes: Notes) -> None:
        notes.warning("x", "soon", "act")

    assert worst([]) is Status.OK
    assert worst(await examine({"a": well, "b": skipping})) is Status.SKIPPED
    assert worst(await examine({"a": warning, "b": skipping})) is Status.WARNING
    assert worst(await examine({"a": warning, "b": broken})) is Status.FAILED
