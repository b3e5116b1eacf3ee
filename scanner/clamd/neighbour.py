"""What the embedded clamd is for a command: that of the service that runs here, else one for the time.

A service that runs holds the lock on its home. Anybody can make a directory in /tmp and a clamd there that
finds nothing: so a home there counts only if it is of a user whom the caller trusts.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scanner.clamd.backend import Clamd
from scanner.clamd.home import (
    CLAMD_SETTINGS,
    EMBEDDED,
    PREFERRED_HOME,
    SERVICE_PREFIX,
    SOCKET,
    TEMPORARY,
    TEST_DATABASE,
)
from scanner.clamd.protocol import ClamdAddress
from scanner.clamd.supervisor import EmbeddedClamd
from scanner.events import Publish


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A clamd that belongs to somebody else's service; it may still be loading its signatures."""

    home: Path

    @property
    def clamd(self) -> Clamd:
        """What a pool of clamds needs to know of it; its database is its service's business."""
        return Clamd(
            ClamdAddress.parse(f"unix:{self.home / SOCKET}"),
            name=EMBEDDED,
            settings=CLAMD_SETTINGS,
            test_signatures=(self.home / TEST_DATABASE).is_dir,
        )


@asynccontextmanager
async def embedded_beside(
    trusted: Collection[int], databases: Sequence[Path], publish: Publish, note: Callable[[str], None]
) -> AsyncIterator[Clamd]:
    """The clamd of the service that runs here, else one that runs inside the block; `note` is told which.

    `trusted` as in `find_neighbour`, the rest as in EmbeddedClamd.
    """
    neighbour = _told_neighbour(trusted, note)
    if neighbour is not None:
        note(f"Using the clamd of the service that runs here, in {neighbour.home}.")
        yield neighbour.clamd
        return
    note("Starting a clamd, which loads its signatures first: this may take a minute.")
    async with EmbeddedClamd(publish, databases=databases, home=None) as own:
        yield own.clamd


def _told_neighbour(trusted: Collection[int], note: Callable[[str], None]) -> Neighbour | None:
    try:
        found = find_neighbour(trusted)
    except PermissionError as closed:
        note(f"{closed.filename} is closed to this user; only its owner and root can use a service's clamd.")
        return None
    if found is None:
        note("No service with an embedded clamd runs here.")
    return found


def find_neighbour(
    trusted: Collection[int], preferred: Path = PREFERRED_HOME, temporary: Path = TEMPORARY
) -> Neighbour | None:
    """The clamd of a service that runs here, None where there is none.

    `trusted` are the user IDs whose homes in `temporary` count, beside our own. Raises PermissionError
    where the only home that there is cannot be entered by us.
    """
    closed = None
    for home in _homes({os.geteuid(), *trusted}, preferred, temporary):
        try:
            if _is_held(home):
                return Neighbour(home)
        except PermissionError as problem:
            closed = problem
    if closed is not None:
        raise closed
    return None


def _homes(trusted: Collection[int], preferred: Path, temporary: Path) -> Iterator[Path]:
    """`preferred` is in a directory that only root and clamav can write to."""
    if _owner(preferred) is not None:
        yield preferred
    for home in sorted(temporary.glob(f"{SERVICE_PREFIX}*")):
        if _owner(home) in trusted:
            yield home


def _owner(home: Path) -> int | None:
    """User ID; None where this is no directory."""
    with suppress(OSError):
        status = home.lstat()
        return status.st_uid if stat.S_ISDIR(status.st_mode) else None
    return None


def _is_held(home: Path) -> bool:
    """Whether a service has it: not after a crash, when only its files are left."""
    try:
        directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        raise
    except OSError:
        return False
    try:
        fcntl.flock(directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(directory)
    return False
