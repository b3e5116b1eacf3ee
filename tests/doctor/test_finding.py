from __future__ import annotations

from scanner.doctor.finding import Finding, Notes, Status


def test_notes_keep_their_order_and_their_subject() -> None:
    notes = Notes("unix:/clamd")
    notes.ok("a", "well")
    notes.warning("b", "soon", "act")
    notes.failed("c", "broken", "mend")
    notes.skipped("d", "unseen")
    assert notes.findings == [
        Finding("unix:/clamd", "a", Status.OK, "well"),
        Finding("unix:/clamd", "b", Status.WARNING, "soon", "act"),
        Finding("unix:/clamd", "c", Status.FAILED, "broken", "mend"),
        Finding("unix:/clamd", "d", Status.SKIPPED, "unseen"),
    ]
