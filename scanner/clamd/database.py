"""Whether clamd has loaded the signature files that lie in its directory.

A custom database changes on disk before clamd loads it, and never changes VERSION (facts/python.md): what
lies there is digested, and when the digest changes clamd is told to reload. Until the reload is seen done,
nobody knows which signatures a scan used. It answers RELOADING whatever comes of it, and keeps the engine
that it had where the files are broken: its log says so, else its VERSION, which is its engine's own.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from scanner.clamd.control import ClamdVersion

RELOAD_TIMEOUT = 60.0
RETRY = 600.0  # seconds after which files that could not be loaded are tried again
_HEADER = 512  # a CVD's head: build time, version, number of signatures, digest, builder
_CVD = re.compile(rb"ClamAV-VDB:[^:]*:([0-9]{1,10}):")
_CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")

# What libclamav loads: CLI_DBEXT in libclamav/readdb.h.
_SIGNATURES = re.compile(
    r".+\.(?:cat|cbc|cdb|cfg|cld|crb|cud|cvd|db|fp|ftm|gdb|[hm]db|[hm]du|[hm]sb|[hm]su|idb|ign2?|imp|info|ioc"
    r"|ldb|ldu|ndb|ndu|pdb|pwdb|rmd|sdb|sfp|wdb|yara?|zmd)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Load:
    """A load of the database that is over, as clamd's log tells it.

    `began` is monotonic; `problem` is why clamd kept the engine that it had, "" if it did not.
    """

    began: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DatabaseFiles:
    """The signature files at one moment.

    `changed_at` is the Unix time of the newest change to any, `versions` the numbers of ClamAV's own by name.
    """

    digest: str
    changed_at: float = field(compare=False)
    versions: Mapping[str, int] = field(compare=False, default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> DatabaseFiles:
        """Files that cannot be seen do not count; blocks for some milliseconds."""
        digest, changed_at, versions = hashlib.sha256(), 0.0, dict[str, int]()
        for name, status, header in _signature_files(directory):
            digest.update(repr((name, status.st_size, status.st_mtime_ns, header)).encode())
            changed_at = max(changed_at, status.st_ctime)
            if cvd := _CVD.match(header):
                stem = name.partition(".")[0]
                versions[stem] = max(int(cvd[1]), versions.get(stem, 0))
        with suppress(OSError):
            changed_at = max(changed_at, directory.stat().st_ctime)  # a removal shows only here
        return cls(digest.hexdigest()[:16], changed_at, versions)


class DatabaseWatch:
    """Follows one clamd's database directory; None: it cannot be seen, and VERSION alone has to do.

    `directory` may change when clamd starts anew. `started_at` gives the Unix time at which clamd's process
    started, where that can be seen: it has loaded whatever is older. `last_load` gives the newest load that
    clamd's log tells of; only one that *began* after our RELOAD counts, since a RELOAD that arrives during
    another load is lost. Without it a reload is done when VERSION has changed, and has failed when VERSION
    is not that of the files after 60 s; what shows in neither counts as done then, under a digest that the
    same files never have once it is certain that clamd has them.

    `kept` is why clamd goes on with older signatures than those that lie there, "" if it does not.
    """

    def __init__(
        self,
        directory: Callable[[], Path | None],
        started_at: Callable[[], float | None],
        last_load: Callable[[], Load | None] | None = None,
    ) -> None:
        self.kept = ""
        self._directory = directory
        self._started_at = started_at
        self._last_load = last_load
        self._seen: DatabaseFiles | None = None
        self._loaded: DatabaseFiles | None = None
        self._certain = True
        self._reload: _Reload | None = None

    @property
    def digest(self) -> str | None:
        """Of the files that clamd has loaded; None while that is not certain."""
        if self._loaded is None or not self._is_settled():
            return None
        return self._loaded.digest if self._certain else f"{self._loaded.digest}?"

    async def look(self) -> None:
        """Note which files lie there now."""
        directory = self._directory()
        if directory is None:
            self._seen = self._loaded = DatabaseFiles("unseen", 0.0)
        else:
            self._seen = await asyncio.to_thread(DatabaseFiles.read, directory)

    async def settle(self, version: ClamdVersion, reload: Callable[[], Awaitable[None]]) -> None:
        """Have clamd, whose VERSION is `version` now, load the files if it has others; after `look`.

        What `reload` raises goes through; the next call tries again.
        """
        if self._reload is not None:
            self._judge(self._reload, version)
        if self._seen is None or self._has_surely_loaded(self._seen):
            return
        if self._is_older_than_clamd(self._seen):
            self._has_loaded(self._seen)
        elif not self._is_waiting():
            if self._loaded == self._seen:  # what could not be loaded is gone again
                self._has_loaded(self._seen, certain=self._certain)
            else:
                await self._ask(self._seen, version, reload)

    def _is_settled(self) -> bool:
        """Whether the engine is known: it has these files, or its log says that it kept the ones before."""
        if self._reload is None:
            return self._loaded == self._seen
        return self._reload.failed and self._last_load is not None and self._reload.files == self._seen

    def _has_surely_loaded(self, files: DatabaseFiles) -> bool:
        return self._reload is None and self._loaded == files and self._certain

    def _is_waiting(self) -> bool:
        """Whether a RELOAD now would be lost, or fail as the one before."""
        if self._reload is None:
            return False
        age = time.monotonic() - self._reload.asked_at
        if self._reload.failed:
            return self._reload.files == self._seen and age < RETRY
        return age < RELOAD_TIMEOUT

    async def _ask(
        self, files: DatabaseFiles, version: ClamdVersion, reload: Callable[[], Awaitable[None]]
    ) -> None:
        now, before = time.monotonic(), self._reload
        await reload()
        if before is not None and before.files == files:
            self._reload = replace(before, asked_at=now)
        else:
            self._reload = _Reload(files, version, now, now)

    def _judge(self, reload: _Reload, version: ClamdVersion) -> None:
        problem = self._outcome(reload, version)
        if problem:
            self.kept, self._reload = problem, replace(reload, failed=True)
        elif problem is not None:
            seen = self._last_load is not None or version.text != reload.version.text
            self._has_loaded(reload.files, certain=seen)

    def _outcome(self, reload: _Reload, version: ClamdVersion) -> str | None:
        """Why it failed, "" if it did not, None while it is under way."""
        if self._last_load is not None:
            load = self._last_load()
            return None if load is None or load.began < reload.since else load.problem
        daily, in_force = reload.files.versions.get("daily"), version.signature_version
        agrees = daily is None or daily == in_force
        if agrees and version.text != reload.version.text:
            return ""
        if time.monotonic() < reload.since + RELOAD_TIMEOUT:
            return None
        return "" if agrees else f"it has daily {in_force or 'none'}, and in its directory lies {daily}"

    def _has_loaded(self, files: DatabaseFiles, *, certain: bool = True) -> None:
        self.kept, self._loaded, self._certain, self._reload = "", files, certain, None

    def _is_older_than_clamd(self, files: DatabaseFiles) -> bool:
        started_at = self._started_at()
        return started_at is not None and files.changed_at < started_at


@dataclass(frozen=True, slots=True)
class _Reload:
    """A reload that is under way or `failed`: to which files, under which VERSION.

    Asked for since when, and last when (monotonic).
    """

    files: DatabaseFiles
    version: ClamdVersion
    since: float
    asked_at: float
    failed: bool = False


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


def is_database_file(name: str) -> bool:
    """Whether clamd would load a file of this name, or with this path."""
    return _SIGNATURES.fullmatch(name) is not None


def _signature_files(directory: Path) -> Iterator[tuple[str, os.stat_result, bytes]]:
    try:
        paths = sorted(path for path in directory.iterdir() if is_database_file(path.name))
    except OSError:
        return
    for path in paths:
        with suppress(OSError), path.open("rb") as file:
            yield path.name, os.fstat(file.fileno()), file.read(_HEADER)
