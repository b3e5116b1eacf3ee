"""freshclam beside the embedded clamd: one run after the other, on a schedule of ours.

Runs instead of freshclam's own daemon, because each has an exit status and says in a few lines what it did.
Where a server imposed a cool-down (403, 429) that status is 0, now and in every run until it is over: hence
the lines are read, too (libfreshclam.c, fc_update_databases). What may fail alone has a run of its own, since
freshclam gives up at the first failure.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import random
import re
import shutil
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from scanner.clamd.database import DatabaseFiles
from scanner.clamd.home import DATABASE, OWN_DATABASE, has_signatures
from scanner.clamd.leash import PATH, LeashedProcess, find_program
from scanner.clamd.sources import Fetch, Sources
from scanner.errors import ConfigError
from scanner.events import ProcessChanged, Publish, SignaturesUpdated

UPDATED, CURRENT, COOLDOWN, FAILED = "updated", "current", "cooldown", "failed"

_PAUSE = 7200.0  # seconds between runs
_FIRST_RETRY = 60.0
_LONGEST_RUN = 3600.0
_GRACE = 3.0
_LAST_LINES = 200

# We try again ourselves. ReceiveTimeout is for a transfer that stands still (libcurl's low speed time).
_SETTINGS = (
    "# Written by media-scanner at each run; changes here are lost.",
    "MaxAttempts 1",
    "ConnectTimeout 30",
    "ReceiveTimeout 60",
)

_COOLDOWN = re.compile(r"on cool-down until after: ([0-9: -]{1,40})")
_TERMINATED = "Update process terminated"  # by a signal, with exit status 0
_COMPLAINT = re.compile(r"(?:ERROR|WARNING): (?:\[LibClamAV\] )?(.*)")
# Between host and file may stand a subscriber's token.
_URL = re.compile(r"(https?://[^/\s]+)(?:/\S*(?=/))?")
_HOST = re.compile(r"https?://([^/\s]+)")
_CURL = re.compile(r".*Message: ")
_FUNCTION = re.compile(r"^[a-z]+[A-Za-z_]*: ")
# Lines that only say that something went wrong, or what never matters.
_EMPTY = re.compile(
    r"Update failed|Database update process failed|check_for_new_database_version|Failed to get \w+ database"
    r"|fc_download_url_databases|Database test FAILED|Database load exited|Can't download|DNS Update Info"
    r"|Invalid DNS reply|Can't query|\s*$"
)


class Freshclam:
    """Keeps the signatures of an embedded clamd fresh, as an asynchronous context manager.

    It writes to the `shared` database where that belongs to us, else to our `own` (None: we have no place
    that lasts). Unless `always`, it leaves the work to whoever else does it. Each run is published as a
    SignaturesUpdated. Its files are in `home`, private to this service. Raises ConfigError where it shall
    always run and cannot.

    `problem` is why the last run failed, "" if it did not; `failures` how many did since the last success,
    which was at the Unix time `last_success`, None if there was none yet.
    """

    def __init__(
        self,
        publish: Publish,
        sources: Sources,
        *,
        home: Path,
        own: Path | None,
        shared: Path = DATABASE,
        always: bool = False,
        binary: str = "freshclam",
    ) -> None:
        self._publish = publish
        self._sources = sources
        self._config = home / "freshclam.conf"
        self._own = own
        self._shared = shared
        self._always = always
        self._binary = binary
        self._left_to = ""
        self.problem = ""
        self.failures = 0
        self.last_success: float | None = None

    async def __aenter__(self) -> Self:
        if self._always and self._directory() is None:
            raise ConfigError(f"clamav.freshclam: cannot write to {self._shared}, nor to a directory in it")
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await self._task
        finally:
            self._config.unlink(missing_ok=True)

    async def _work(self) -> None:
        while True:
            result = await self._turn()
            await asyncio.sleep(self._pause(result))

    def _pause(self, result: str) -> float:
        """Doubling after failures; never on the hour with everybody else."""
        pause = min(_FIRST_RETRY * 2.0 ** (self.failures - 1), _PAUSE) if result == FAILED else _PAUSE
        return pause * random.uniform(0.9, 1.1)  # noqa: S311 - no secret

    async def _turn(self) -> str:
        directory = self._directory()
        left_to = "" if self._always else await asyncio.to_thread(self._somebody_else)
        if left_to or directory is None:
            self._leave_to(left_to or f"nobody: there is no place that lasts, {self._shared} is not ours")
            return CURRENT
        self._left_to = ""
        try:
            result, detail = await self._update(directory)
        except OSError as problem:
            result, detail = FAILED, f"freshclam cannot be run: {problem}"
        self._note(result, detail)
        return result

    def _directory(self) -> Path | None:
        if is_ours(self._shared):
            return self._shared
        return self._own if self._own is not None and is_ours(self._own.parent) else None

    def _somebody_else(self) -> str:
        """Who keeps the database, "" where it is ours to keep."""
        daemon = find_daemon()
        if daemon is not None:
            return f"the freshclam that runs here as a daemon, process {daemon}"
        if has_signatures(self._shared) and not is_ours(self._shared):
            return f"whoever brought the signatures in {self._shared}, which is not ours"
        return ""

    def _leave_to(self, somebody: str) -> None:
        if somebody != self._left_to:
            self._left_to, self.problem, self.failures = somebody, "", 0
            self._publish(ProcessChanged("freshclam", "idle", f"left to {somebody}"))

    async def _update(self, directory: Path) -> tuple[str, str]:
        """How it went, and what to say about it."""
        binary = find_program(self._binary)
        if binary is None:
            return FAILED, f"no {self._binary} here; Debian has it: apt-get install clamav-freshclam"
        await asyncio.to_thread(_prepare, directory)
        before = await asyncio.to_thread(DatabaseFiles.read, directory)
        outcomes = [await self._fetch(binary, directory, fetches) for fetches in self._sources.fetches()]
        for result, detail in outcomes:
            if result != CURRENT:
                return result, detail
        after = await asyncio.to_thread(DatabaseFiles.read, directory)
        return (CURRENT if after == before else UPDATED), _describe(after)

    async def _fetch(self, binary: str, directory: Path, alternatives: Sequence[Fetch]) -> tuple[str, str]:
        """The first of `alternatives` that succeeds will do."""
        outcome = FAILED, "there is nowhere to fetch from"
        for fetch in alternatives:
            lines = *_SETTINGS, f"DatabaseDirectory {directory}", f"DatabaseOwner {_user_name()}"
            self._config.write_text("\n".join((*lines, *fetch.settings, "")))
            outcome = await self._run([binary, f"--config-file={self._config}", "--stdout", *fetch.arguments])
            if outcome[0] == CURRENT:
                break
        return outcome

    async def _run(self, command: Sequence[str]) -> tuple[str, str]:
        process = LeashedProcess(
            command, environment={"PATH": PATH, "LC_ALL": "C"}, directory=self._config.parent
        )
        lines: deque[str] = deque(maxlen=_LAST_LINES)
        try:
            async with asyncio.timeout(_LONGEST_RUN):
                async for line in process.lines():
                    lines.append(line)
                return judge(await process.wait(), list(lines), self._sources.proxy)
        except TimeoutError:
            return FAILED, f"freshclam took more than {_LONGEST_RUN:.0f} seconds"
        finally:
            await process.end(_GRACE)

    def _note(self, result: str, detail: str) -> None:
        if result in {UPDATED, CURRENT}:
            self.problem, self.failures, self.last_success = "", 0, time.time()
        else:
            self.problem, self.failures = detail, self.failures + 1
        self._publish(SignaturesUpdated(result, detail))


def judge(status: int, lines: Sequence[str], proxy: str | None = None) -> tuple[str, str]:
    """How a run of freshclam went, by its exit status and output; and why, in one line without paths."""
    for line in lines:
        if cooling := _COOLDOWN.search(line):
            return COOLDOWN, f"the server wants us to wait until {cooling[1]}"
    if status == 0 and _TERMINATED not in lines:
        return CURRENT, ""
    complaints = [found[1] for line in lines if (found := _COMPLAINT.match(line))]
    telling = [complaint for complaint in complaints if not _EMPTY.match(complaint)]
    reason = _brief((telling or complaints or [f"freshclam was stopped, exit status {status}"])[-1])
    hosts = [host.rstrip(".") for host in _HOST.findall("\n".join(lines))]
    where = f" ({hosts[-1]})" if hosts and hosts[-1] not in reason else ""
    return FAILED, f"{reason}{where}{f', through the proxy {proxy}' if proxy else ''}"


def find_daemon() -> int | None:
    """Process ID of a freshclam that keeps a database by itself; not in a container beside us."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if _is_daemon(process) and _depth(process) == _depth(Path("/proc/self")):
                return int(process.name)
    return None


def databases(*, always: bool) -> tuple[Path, Path]:
    """The system's and our own, in the order in which clamd should look there for signatures."""
    return (OWN_DATABASE, DATABASE) if always and not is_ours(DATABASE) else (DATABASE, OWN_DATABASE)


def is_ours(directory: Path) -> bool:
    """Whether it belongs to us and can be written: elsewhere nobody could read what we leave there."""
    with suppress(OSError):
        return directory.stat().st_uid == os.geteuid() and os.access(directory, os.W_OK | os.X_OK)
    return False


def _is_daemon(process: Path) -> bool:
    name, *arguments = (process / "cmdline").read_bytes().split(b"\0")
    return name.rpartition(b"/")[2] == b"freshclam" and bool({b"-d", b"--daemon"} & set(arguments))


def _depth(process: Path) -> int:
    """In how many process namespaces it has an ID, as seen from here (proc(5), NSpid)."""
    status = (process / "status").read_text()
    return next(len(line.split()) for line in status.splitlines() if line.startswith("NSpid:"))


def _prepare(directory: Path) -> None:
    """Make it, and remove what a freshclam of ours left there that was killed."""
    directory.mkdir(mode=0o700, exist_ok=True)
    for leavings in directory.glob("tmp.*"):
        status = leavings.lstat()
        if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _LONGEST_RUN:
            shutil.rmtree(leavings, ignore_errors=True)


def _user_name() -> str:
    """Whom freshclam becomes when root starts it; a user without a name is not root."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _describe(files: DatabaseFiles) -> str:
    """The numbers of ClamAV's own signatures."""
    return ", ".join(f"{name} {number}" for name, number in sorted(files.versions.items()))


def _brief(complaint: str) -> str:
    without_paths = _URL.sub(r"\1", _CURL.sub("", complaint))
    return "".join(filter(str.isprintable, _FUNCTION.sub("", without_paths)))[:200]
