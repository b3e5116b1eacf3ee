"""The embedded clamd: a child process on a leash, restarted with backoff."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from scanner.clamd.backend import Clamd
from scanner.clamd.database import Load
from scanner.clamd.home import (
    CLAMD_SETTINGS,
    DATABASE,
    EMBEDDED,
    OWN_DATABASE,
    PREFERRED_HOME,
    TEMPORARY,
    Home,
    has_signatures,
)
from scanner.clamd.leash import PATH, LeashedProcess, find_program
from scanner.clamd.protocol import ClamdAddress
from scanner.errors import ConfigError
from scanner.events import ProcessChanged, Publish

# The allocator keeps its memory between scans: 1.6 times the files/s at 10 KB for 35 MB more
# (facts/performance.md, Knobs). LC_ALL: we read the log.
ENVIRONMENT = {
    "PATH": PATH,
    "LC_ALL": "C",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "2147483648",
    "MALLOC_TOP_PAD_": "67108864",
}

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STEADY = 60.0  # seconds up after which a crash counts as the first one
_GRACE = 3.0  # seconds from SIGTERM to SIGKILL
_PROBLEMS = 10  # lines passed on of one start
_DATABASE_POLL = 5.0
_PING_TIMEOUT = 2.0

_LOADING = re.compile(r"Reading databases from ")
_LOADED = re.compile(r"Database correctly reloaded")
_NOT_LOADED = re.compile(r"WARNING: Database reload failed")
_SCANS = re.compile(r"Self checking every ")
_BROKEN = re.compile(r"LibClamAV Error: Can't load /(?:[^/\0]+/)*([\w.-]{1,100}): ([A-Za-z /']{1,100})")
_PROBLEM = re.compile(r"(?:LibClamAV )?(?:ERROR|Error): ?(.{1,300})")


class EmbeddedClamd:
    """Keeps a clamd running, as an asynchronous context manager that never waits for clamd itself.

    `publish` is told every change as a ProcessChanged: started, ready, reloaded, problem, restarting, ended,
    missing, stopped. The first of `databases` that holds signatures is used, else the test set; `home` and
    `temporary` are where its files may lie; of a command that is no service `home` is None. Raises
    ConfigError where neither can be written.
    """

    def __init__(
        self,
        publish: Publish,
        *,
        databases: Sequence[Path] = (DATABASE, OWN_DATABASE),
        home: Path | None = PREFERRED_HOME,
        temporary: Path = TEMPORARY,
        binary: str = "clamd",
    ) -> None:
        self._publish = publish
        self._databases = databases
        self._places = home, temporary
        self._binary = binary
        self._began_loading = 0.0
        self._load_problem = ""
        self._last_load: Load | None = None
        self._process: LeashedProcess | None = None
        self._up = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            self._home = Home.take(*self._places)
        except OSError as problem:
            places = " or ".join(str(place) for place in self._places if place is not None)
            raise ConfigError(f"the embedded clamd cannot write to {places}") from problem
        self.database = self._choose_database()
        self._task = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await self._task
        finally:
            self._home.leave()
        self._tell("stopped", "")

    @property
    def home(self) -> Path:
        """The directory of its files, private to this service."""
        return self._home.path

    @property
    def lasting(self) -> bool:
        """Whether the next service will have the same home."""
        return self._home.lasting

    @property
    def socket(self) -> Path:
        """The unix socket; it may not be there yet."""
        return self._home.socket

    @property
    def clamd(self) -> Clamd:
        """What a pool of clamds needs to know of it."""
        return Clamd(
            ClamdAddress.parse(f"unix:{self.socket}"),
            name=EMBEDDED,
            settings=CLAMD_SETTINGS,
            database=lambda: self.database,
            last_load=self.last_load,
            test_signatures=lambda: self.test_signatures,
        )

    @property
    def pid(self) -> int | None:
        """Of clamd itself, None while it does not run."""
        return self._process.pid if self._process else None

    @property
    def test_signatures(self) -> bool:
        """Whether it runs on the test set. May change: real signatures are taken up when they appear."""
        return self.database == self._home.test_database

    @property
    def signatures(self) -> str:
        """Which signatures it uses, for people."""
        return "the test set (EICAR and a few made-up ones)" if self.test_signatures else str(self.database)

    def last_load(self) -> Load | None:
        """The newest load of signatures that is over; None before the first.

        If it went well, a database that changed before it began is loaded.
        """
        return self._last_load

    async def ready(self, within: float) -> bool:
        """Wait until clamd answers, for `within` seconds at most; whether it does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._up.wait()
        return self._up.is_set()

    async def _supervise(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            await self._run_once()
            if time.monotonic() - began > _STEADY:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _run_once(self) -> None:
        binary = find_program(self._binary)
        if binary is None:
            self._tell("missing", f"no {self._binary} here; Debian has it: apt-get install clamav-daemon")
            return
        try:
            self._prepare()
            async with self._child(binary) as process:
                await self._attend(process)
        except OSError as problem:
            self._tell("problem", f"cannot run {binary}: {problem}")

    def _prepare(self) -> None:
        self._began_loading = time.monotonic()
        self.database = self._choose_database()
        self._home.furnish(self.database)

    def _choose_database(self) -> Path:
        return next(filter(has_signatures, self._databases), self._home.test_database)

    @asynccontextmanager
    async def _child(self, binary: str) -> AsyncIterator[LeashedProcess]:
        command = [binary, "--config-file", str(self._home.config)]
        self._process = process = LeashedProcess(
            command,
            environment=ENVIRONMENT,
            directory=self._home.path,
            leavings=self._home.temporary,  # clamd writes what it unpacks there, in the clear
        )
        try:
            yield process
        finally:
            self._process = None
            self._up.clear()
            await process.end(_GRACE)

    async def _attend(self, process: LeashedProcess) -> None:
        self._tell("started", f"process {process.pid}, signatures: {self.signatures}")
        try:
            async with asyncio.TaskGroup() as group:
                others = [group.create_task(self._greet()), group.create_task(self._watch_database(process))]
                await self._read_log(process)
                for task in others:
                    task.cancel()
        except ExceptionGroup as problems:
            raise problems.exceptions[0] from None  # the others were cancelled
        self._tell("ended", _describe(await process.wait()))

    async def _greet(self) -> None:
        """Wait for the first answer: clamd opens its socket when the signatures are loaded."""
        began = self._began_loading
        while not await _answers(self._home.socket):  # noqa: ASYNC110  # it is another process's event
            await asyncio.sleep(0.1)
        if self._last_load is None or self._last_load.began < began:
            self._last_load = Load(began)
        self._up.set()
        self._tell("ready", self.signatures)

    async def _watch_database(self, process: LeashedProcess) -> None:
        """Start anew when better signatures come: on the test set `serve` calls nothing clean."""
        while (better := self._choose_database()) in {self.database, self._home.test_database}:  # noqa: ASYNC110
            await asyncio.sleep(_DATABASE_POLL)
        self._tell("restarting", f"signatures have come to {better}")
        process.terminate()

    async def _read_log(self, process: LeashedProcess) -> None:
        problems_left = _PROBLEMS
        async for line in process.lines():
            self._note_reload(line)
            if _SCANS.match(line):  # from here on a line may hold a name from inside somebody's archive
                problems_left = 0
            problem = _PROBLEM.match(line)
            if problem and problems_left:
                problems_left -= 1
                self._tell("problem", problem[1])

    def _note_reload(self, line: str) -> None:
        if _LOADING.match(line):
            self._began_loading, self._load_problem = time.monotonic(), ""
        elif broken := _BROKEN.match(line):
            self._load_problem = f"{broken[1]}: {broken[2]}"
        elif _LOADED.match(line):
            self._last_load = Load(self._began_loading)
            self._tell("reloaded", line)
        elif _NOT_LOADED.match(line):
            self._last_load = Load(self._began_loading, self._load_problem or line)
            self._tell("problem", f"Database reload failed, {self._last_load.problem}")

    def _tell(self, state: str, detail: str) -> None:
        self._publish(ProcessChanged("clamd", state, detail))


async def _answers(socket: Path) -> bool:
    try:
        async with asyncio.timeout(_PING_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"zPING\0")
                return await reader.read(16) == b"PONG\0"
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return False


def _describe(returncode: int) -> str:
    return f"killed by signal {-returncode}" if returncode < 0 else f"exit status {returncode}"
