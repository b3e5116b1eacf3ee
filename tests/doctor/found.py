"""Findings as the tests compare them, and clamds to have findings about."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanner.doctor.finding import Finding, Notes, Status
from tests.real_clamd import Clamd

# EICAR as ClamAV's own signatures have it: as a whole file, and not as a part of one.
_EICAR_AS_UPSTREAM = "44d88612fea8a8f36de82e1278abb02f:68:Win.Test.EICAR_HDB-1\n"


@contextmanager
def clamd_with(settings: str = "") -> Iterator[Clamd]:
    """A clamd with these lines in its configuration that finds EICAR as real signatures do."""
    with tempfile.TemporaryDirectory(prefix="clamd-") as directory:
        database = Path(directory) / "database"
        database.mkdir()
        (database / "upstream.hdb").write_text(_EICAR_AS_UPSTREAM)
        clamd = Clamd(Path(directory), settings=settings, database=database)
        clamd.start()
        try:
            yield clamd
        finally:
            clamd.stop()


def named(notes: Notes, name: str) -> Finding:
    """The one finding of this name."""
    [finding] = [finding for finding in notes.findings if finding.name == name]
    return finding


def not_ok(notes: Notes) -> dict[str, Status]:
    """Name and status of all that is not as it should be."""
    return {finding.name: finding.status for finding in notes.findings if finding.status is not Status.OK}
