"""Whether clamd has loaded the signature files that lie in its directory.

A custom database changes on disk before clamd loads it, and never changes VERSION (facts/python.md): what
lies there is digested, and when the digest changes clamd is told to reload. Until the reload is seen done,
nobody knows which signatures a scan used.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

RELOAD_TIMEOUT = 60.0
_HEADER = 512  # a CVD's head: build time, version, number of signatures, digest, builder
_CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")

# What libclamav loads: CLI_DBEXT in libclamav/readdb.h.
_SIGNATURES = re.compile(
    r".+\.(?:cat|cbc|cdb|cfg|cld|crb|cud|cvd|db|fp|ftm|gdb|[hm]db|[hm]du|[hm]sb|[hm]su|idb|ign2?|imp|info|ioc"
    r"|ldb|ldu|ndb|ndu|pdb|pwdb|rmd|sdb|sfp|wdb|yara?|zmd)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DatabaseFiles:
    """The signature files at one moment; `changed_at` is the Unix time of the newest change to any."""

    digest: str
    changed_at: float = field(compare=False)

    @classmethod
    def read(cls, directory: Path) -> DatabaseFiles:
        """Files that cannot be seen do not count; blocks for some milliseconds."""
        digest, changed_at = hashlib.sha256(), 0.0
        for name, status, header in _signature_files(directory):
            digest.update(repr((name, status.st_size, status.st_mtime_ns, header)).encode())
            changed_at = max(changed_at, status.st_ctime)
        with suppress(OSError):
            changed_at = max(changed_at, directory.stat().st_ctime)  # a removal shows only here
        return cls(digest.hexdigest()[:16], changed_at)


class DatabaseWatch:
    """Follows one clamd's database directory; None: it cannot be seen, and VERSION alone has to do.

    `directory` may change when clamd starts anew. `started_at` gives the Unix time at which clamd's process
    started, where that can be seen: it has loaded whatever is older. `reload_seen` gives the monotonic time
    at which the newest completed load of the database *began* (a RELOAD that arrives during another one is
    lost, so that its end proves nothing); without it a reload counts as done when VERSION has changed. After
    60 s it counts as done in any case.
    """

    def __init__(
        self,
        directory: Callable[[], Path | None],
        started_at: Callable[[], float | None],
        reload_seen: Callable[[], float | None] | None = None,
    ) -> None:
        self._directory = directory
        self._started_at = started_at
        self._reload_seen = reload_seen
        self._seen: DatabaseFiles | None = None
        self._loaded: DatabaseFiles | None = None
        self._reload: _Reload | None = None

    @property
    def digest(self) -> str | None:
        """Of the files that clamd has loaded; None while that is not certain."""
        if self._loaded is None or self._reload is not None or self._loaded != self._seen:
            return None
        return self._loaded.digest

    async def look(self) -> None:
        """Note which files lie there now."""
        directory = self._directory()
        if directory is None:
            self._seen = self._loaded = DatabaseFiles("unseen", 0.0)
        else:
            self._seen = await asyncio.to_thread(DatabaseFiles.read, directory)

    async def settle(self, version: str, reload: Callable[[], Awaitable[None]]) -> None:
        """Have clamd, whose VERSION is `version` now, load the files if it has others; after `look`.

        What `reload` raises goes through; the next call tries again.
        """
        if self._reload is not None and self._is_done(self._reload, version):
            self._loaded, self._reload = self._reload.files, None
        if self._seen is None or self._reload is not None or self._loaded == self._seen:
            return
        if self._is_older_than_clamd(self._seen):
            self._loaded = self._seen
            return
        files, asked_at = self._seen, time.monotonic()
        await reload()
        self._reload = _Reload(files, version, asked_at)

    def _is_older_than_clamd(self, files: DatabaseFiles) -> bool:
        started_at = self._started_at()
        return started_at is not None and files.changed_at < started_at

    def _is_done(self, reload: _Reload, version: str) -> bool:
        if time.monotonic() > reload.asked_at + RELOAD_TIMEOUT:
            return True
        if self._reload_seen is None:
            return version != reload.version
        began = self._reload_seen()
        return began is not None and began >= reload.asked_at


@dataclass(frozen=True, slots=True)
class _Reload:
    """A RELOAD under way: for which files, under which VERSION, asked for when (monotonic)."""

    files: DatabaseFiles
    version: str
    asked_at: float


def process_started_at(path: str) -> float | None:
    """Unix time at which whoever listens on a unix socket started; None where that cannot be seen."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(0)
            connection.connect(path)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, _, _ = struct.unpack("3i", credentials)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc(5): starttime, field 22. Rounded down: one tick more, which is less than clamd takes to get to its
    # database.
    ticks = int(stat.rpartition(")")[2].split()[19]) + 1
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks * _CLOCK_TICK
    return time.time() - age


def _signature_files(directory: Path) -> Iterator[tuple[str, os.stat_result, bytes]]:
    try:
        paths = sorted(path for path in directory.iterdir() if _SIGNATURES.fullmatch(path.name))
    except OSError:
        return
    for path in paths:
        with suppress(OSError), path.open("rb") as file:
            yield path.name, os.fstat(file.fileno()), file.read(_HEADER)
