from __future__ import annotations

import pytest

from scanner.doctor import updates
from scanner.doctor.finding import Notes, Status

NOT_THERE = "freshclam-is-not-there"


@pytest.mark.parametrize(
    ("daemon", "embedded", "by_service", "program", "status"),
    [
        (17, True, True, NOT_THERE, Status.OK),
        (17, False, False, NOT_THERE, Status.OK),
        (None, True, True, "true", Status.OK),
        (None, True, True, NOT_THERE, Status.WARNING),
        (None, True, False, "true", Status.WARNING),
        (None, False, True, "true", Status.SKIPPED),
    ],
)
def test_who_updates_depends_on_whose_clamd_it_is(
    daemon: int | None, embedded: bool, by_service: bool, program: str, status: Status
) -> None:
    notes = Notes()
    updates.examine(notes, daemon=daemon, embedded=embedded, by_service=by_service, program=program)
    [finding] = notes.findings
    assert finding.status is status
    assert (finding.advice == "") is (status is Status.OK)
    assert ("process 17" in finding.found) is (daemon is not None)


@pytest.mark.parametrize(("daemon", "status"), [(None, Status.WARNING), (17, Status.OK)])
def test_a_service_without_a_place_that_lasts_updates_nothing(daemon: int | None, status: Status) -> None:
    notes = Notes()
    updates.examine(notes, daemon=daemon, embedded=True, by_service=True, passing=True, program="true")
    [finding] = notes.findings
    assert finding.status is status
    assert finding.found.startswith("by nobody" if daemon is None else "by the freshclam")
