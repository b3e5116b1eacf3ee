"""`media-scanner scan`: what the service would find in files.

The rules of this module: a file is clean only if the pipeline said so of the bytes that were read just now;
whoever looks at the exit code alone learns that something was not scanned, whatever else was found.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
import uvloop

from scanner.admission import Budget
from scanner.bus import Bus
from scanner.cli.options import ConfigFile
from scanner.cli.scan_output import Finding, Printer, note
from scanner.config import Config
from scanner.errors import ConfigError, ScannerError, Unavailable, Unreadable
from scanner.events import Event, Occasion, ProcessChanged, Source
from scanner.files import STANDARD_INPUT, File, Files, Refused, Skipped, walk
from scanner.judge import Judge, judging_files
from scanner.key_files import read_secret
from scanner.media import Body, MediaRef, Sample
from scanner.remote import RemoteScanner
from scanner.verdict import Verdict

OCCASION = Occasion(MediaRef("localhost", "file"), Source.SCAN, encrypted=False, request_id="")
# Files in hand at once: enough that both lanes of scan slots are used.
_FILES_PER_CORE = 4
_FILES_ELSEWHERE = 4  # the scanner there has others to serve, Synapse first
PATIENCE = 3600.0  # seconds that a file may wait for the others; a scan itself has `clamav.scan_timeout`
_START_EMBEDDED, _START = 120.0, 10.0  # seconds; an embedded clamd may be loading its signatures
_BY_SIGNAL = 128  # and its number: the shells' exit code
_TEST_SET = (
    "clamd has only the test signatures, with which nothing is called clean: install real ones (freshclam), "
    "or set clamav.accept_test_signatures to try"
)


def scan(
    paths: Annotated[
        list[str], typer.Argument(metavar="FILE|DIR|-...", help="What to scan; - is standard input.")
    ],
    config: ConfigFile,
    only_found: Annotated[bool, typer.Option("--infected", "-i", help="Print no clean files.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a line for each file, and one that counts them.")
    ] = False,
    remote: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Have a running service scan: its operations listener."),
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="With --remote: its server.inspect_secret_file, unless the configuration has it."),
    ] = None,
) -> None:
    """Scan files as the service would.

    It asks the clamd that the configuration names. For `embedded` that is the running service's; where none
    runs, one is started for the time. With --remote it sends the files to a service instead, those that it
    does not know yet. Links below a directory are not followed.

    Exits with 0 if all is clean, with 2 if anything could not be scanned, whatever else was found, and
    with 1 if all was scanned and anything is infected or of a forbidden type.
    """
    if paths.count(STANDARD_INPUT) > 1:
        raise typer.BadParameter("standard input can be read only once")
    loaded = Config.load(config)
    there = None if remote is None else _elsewhere(remote, secret_file, loaded)
    printer = Printer(as_json=as_json, clean_too=not only_found)
    code = uvloop.run(_interruptible(paths, loaded, printer, there))
    printer.summarise(complete=code < _BY_SIGNAL)
    raise typer.Exit(code)


def _elsewhere(url: str, secret_file: Path | None, config: Config) -> RemoteScanner:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise typer.BadParameter("--remote takes the like of http://127.0.0.1:8081")
    configured = config.server.inspect_secret_file
    if secret_file is None and configured is None:
        raise ConfigError("--remote needs --secret-file, or server.inspect_secret_file in the configuration")
    if secret_file is not None:
        return RemoteScanner(url, read_secret(secret_file, "--secret-file"))
    assert configured is not None
    return RemoteScanner(url, read_secret(configured, "server.inspect_secret_file"))


async def _interruptible(
    paths: list[str], config: Config, printer: Printer, there: RemoteScanner | None
) -> int:
    """The exit code; SIGINT and SIGTERM end the scan, and the clamd that it started."""
    stopped_by: list[int] = []
    task = asyncio.current_task()
    assert task is not None

    def stop(number: int) -> None:
        stopped_by.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        await _scan(paths, config, printer, there)
    except asyncio.CancelledError:
        note("Interrupted: not everything was scanned.")
        return _BY_SIGNAL + stopped_by[0]
    return printer.tally.exit_code


@asynccontextmanager
async def usable_judge(config: Config) -> AsyncIterator[Judge]:
    """What gives verdicts, once it can. Raises ScannerError where nothing could be called clean."""
    clamd = _ClamdWatch()
    async with judging_files(_patient(config), Bus([clamd]), note) as judge:
        await _until_usable(judge, config, clamd)
        yield judge


async def _scan(paths: list[str], config: Config, printer: Printer, there: RemoteScanner | None) -> None:
    async with _judging_here(config) if there is None else _judging_there(_patient(config), there) as judging:
        with printer:
            counting = asyncio.create_task(_count(paths, printer))
            try:
                await _judge_all(paths, judging, printer)
            finally:
                counting.cancel()


@dataclass(frozen=True)
class _Judging:
    """Where verdicts are from, where files are read to meanwhile, and how many at once."""

    verdict: Callable[[Body], Awaitable[Verdict]]
    files: Files
    at_once: int


@asynccontextmanager
async def _judging_here(config: Config) -> AsyncIterator[_Judging]:
    async with usable_judge(config) as judge:

        async def verdict(body: Body) -> Verdict:
            deadline = asyncio.get_running_loop().time() + PATIENCE
            return await judge.pipeline.inspect(OCCASION, Sample(body), deadline)

        at_once = _FILES_PER_CORE * (os.cpu_count() or 1) * len(judge.clamav.backends)
        yield _Judging(verdict, Files(judge.budget, config.limits.media_size), at_once)


@asynccontextmanager
async def _judging_there(config: Config, there: RemoteScanner) -> AsyncIterator[_Judging]:
    limits = config.limits
    budget = Budget(limits.memory, limits.queue_wait, media_size=limits.media_size)
    async with there:
        yield _Judging(there.inspect, Files(budget, limits.media_size), _FILES_ELSEWHERE)


def _patient(config: Config) -> Config:
    """Nobody waits for our files but they for each other."""
    limits = config.limits.model_copy(update={"queue_wait": PATIENCE})
    return config.model_copy(update={"limits": limits})


class _ClamdWatch:
    """An EventSink: why the clamd that we started does not answer."""

    def __init__(self) -> None:
        self.problem = ""
        self.missing = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, ProcessChanged) and event.state in {"missing", "problem", "ended"}:
            self.problem = event.detail
            self.missing = event.state == "missing"


async def _until_usable(judge: Judge, config: Config, clamd: _ClamdWatch) -> None:
    """Raises ScannerError where nothing could be called clean."""
    accept, clamds = config.clamav.accept_test_signatures, judge.clamav.backends
    end = time.monotonic() + (_START_EMBEDDED if "embedded" in config.clamav.addresses else _START)
    while not judge.canary.healthy and time.monotonic() < end:
        if clamd.missing and len(clamds) == 1:
            break
        await asyncio.sleep(0.05)
    if not any(backend.up for backend in clamds):
        names = ", ".join(backend.name for backend in clamds)
        problem = clamd.problem or "is it up, and may this user use its socket?"
        raise ScannerError(f"no clamd answers ({names}), nothing was scanned: {problem}")
    if all(backend.has_test_signatures() for backend in clamds):
        if not accept:
            raise ScannerError(_TEST_SET)
        note("TEST SIGNATURES: clean means only that there is no EICAR test file in it.")
    if not judge.canary.healthy:
        raise ScannerError("clamd does not find the test virus: check its log and its signatures")


async def _count(paths: list[str], printer: Printer) -> None:
    """For a bar that somebody sees."""
    if printer.has_bar:
        printer.expect(sum([1 async for entry in walk(paths) if not isinstance(entry, Skipped)]))


async def _judge_all(paths: list[str], judging: _Judging, printer: Printer) -> None:
    async with aclosing(_findings(paths, judging)) as findings:
        async for finding in findings:
            await asyncio.to_thread(printer.show, finding)


async def _findings(paths: list[str], judging: _Judging) -> AsyncGenerator[Finding | Skipped]:
    """In the order in which they are there."""
    under_way: set[asyncio.Task[Finding]] = set()
    try:
        async for entry in walk(paths):
            if isinstance(entry, Skipped):
                yield entry
                continue
            under_way.add(asyncio.create_task(_finding(entry, judging)))
            if len(under_way) == judging.at_once:
                yield await _first(under_way)
        while under_way:
            yield await _first(under_way)
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _first(under_way: set[asyncio.Task[Finding]]) -> Finding:
    done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    task = done.pop()
    under_way.remove(task)
    return task.result()


async def _finding(entry: File | Refused, judging: _Judging) -> Finding:
    if isinstance(entry, Refused):
        return Finding.not_scanned(entry.path, entry.problem)
    try:
        body = await judging.files.body(entry)
        try:
            verdict = await judging.verdict(body)
        finally:
            body.release()
    except (Unreadable, Unavailable) as problem:
        return Finding.not_scanned(entry.path, problem.info)
    return Finding.of(entry.path, verdict)
