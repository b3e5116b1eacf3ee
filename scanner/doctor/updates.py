"""Who brings new signatures to this machine. Whether they arrive, their age tells."""

from __future__ import annotations

from scanner.clamd.leash import find_program
from scanner.doctor.finding import Notes

_NAME = "updates"


def examine(
    notes: Notes,
    *,
    daemon: int | None,
    embedded: bool,
    by_service: bool,
    passing: bool = False,
    program: str = "freshclam",
) -> None:
    """Who it is. `daemon` is the process ID of a freshclam that runs by itself.

    `by_service`: the service runs one of its own beside its `embedded` clamd, where no other does; but not
    if its clamd's home is `passing`, so that nothing in it would last.
    """
    there = find_program(program) is not None
    if daemon is not None:
        notes.ok(_NAME, f"by the freshclam that runs here as a daemon, process {daemon}")
    elif embedded and by_service and passing:
        found = "by nobody: the service that runs here has no place for them that lasts"
        notes.warning(_NAME, found, "systemctl enable --now clamav-freshclam, or run freshclam as root")
    elif embedded and by_service and there:
        notes.ok(_NAME, "by the service itself (clamav.freshclam); its failures show in readiness")
    elif embedded and by_service:
        notes.warning(_NAME, "the service finds no freshclam here", "apt-get install clamav-freshclam")
    elif embedded:
        found = "by nobody: clamav.freshclam is off, and no freshclam runs here as a daemon"
        notes.warning(_NAME, found, "systemctl enable --now clamav-freshclam, or clamav.freshclam: auto")
    else:
        found = "no freshclam is seen here; another container or host may have one"
        notes.skipped(_NAME, found, "if not: systemctl enable --now clamav-freshclam")
