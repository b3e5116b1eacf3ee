"""Processes that unpack are killed and stopped while many files are scanned: nothing infected passes."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from scanner.verdict import Outcome, Verdict
from tests.archives import tar_of
from tests.judging import Judge, judging_bytes
from tests.process_tree import children
from tests.real_clamd import EICAR, Clamd

_TEMPLATE = b"scanner.unpacking.template"
_SCANS = 20
_SIGNALS = 3
_MEMBERS = 300
_SETTINGS = {"limits": {"queue_wait": "60s"}, "archives": {"time": "2s"}}


def packed(number: int, last: bytes) -> bytes:
    """A tar.zst of many different members."""
    members = {str(i): b"%d of %d" % (i, number) * 50 for i in range(_MEMBERS)}
    archive = tar_of({**members, "last": last})
    return subprocess.run(["zstd", "-q", "-c"], input=archive, check=True, capture_output=True).stdout


def archives(run: int) -> list[bytes]:
    """Every other one has EICAR at its end."""
    return [packed(run * _SCANS + i, EICAR if i % 2 else b"clean") for i in range(_SCANS)]


def right(number: int) -> Outcome:
    return Outcome.INFECTED if number % 2 else Outcome.CLEAN


async def outcomes(judge: Judge, files: list[bytes]) -> list[Outcome]:
    found: list[Verdict | BaseException] = await asyncio.gather(
        *(judge(file) for file in files), return_exceptions=True
    )
    return [verdict.outcome if isinstance(verdict, Verdict) else Outcome.FAILED for verdict in found]


async def signal_some_workers(signum: signal.Signals) -> None:
    """Such as are in the midst of their work: not those that are being born."""
    signalled: set[int] = set()
    async with asyncio.timeout(20):
        while len(signalled) < _SIGNALS:
            before = workers() - signalled
            await asyncio.sleep(0.01)
            if midst := before & workers():
                signalled.add(pid := midst.pop())
                os.kill(pid, signum)


def templates() -> set[int]:
    """What workers come from; other children of ours are clamds."""
    return {child for child in children(os.getpid()) if _TEMPLATE in _command(child)}


def workers() -> set[int]:
    return {worker for template in templates() for worker in children(template)}


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.real
@pytest.mark.timeout(120)
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
async def test_a_worker_that_dies_or_stops_takes_no_other_scan_with_it(
    strict_clamd: Clamd, tmp_path: Path, signum: signal.Signals
) -> None:
    async with judging_bytes(strict_clamd, tmp_path, settings=_SETTINGS) as judge:
        await judge(packed(0, b"so that the first processes are at work"))
        wrong: list[Outcome] = []
        for run in itertools.count(1):  # none, where all of them had just said the last word
            scans = asyncio.create_task(outcomes(judge, archives(run)))
            await signal_some_workers(signum)
            found = enumerate(await scans)
            wrong = [outcome for number, outcome in found if outcome is not right(number)]
            assert set(wrong) <= {Outcome.UNSCANNABLE}
            assert len(wrong) <= _SIGNALS
            if wrong:
                break


@pytest.mark.real
@pytest.mark.timeout(120)
async def test_in_a_storm_of_signals_nothing_infected_is_clean(strict_clamd: Clamd, tmp_path: Path) -> None:
    """Workers and the process that they come from, again and again; then everything is as before."""
    async with judging_bytes(strict_clamd, tmp_path, settings=_SETTINGS) as judge:
        storm = asyncio.create_task(_storm(random.Random(7)))
        found = await outcomes(judge, archives(2))
        storm.cancel()
        await _calm(judge)
        afterwards = await outcomes(judge, archives(3))
    assert Outcome.CLEAN not in found[1::2], Counter(found[1::2])
    assert Outcome.INFECTED not in found[::2]
    wrong = [outcome for number, outcome in enumerate(afterwards) if outcome is not right(number)]
    assert wrong == []


async def _calm(judge: Judge) -> None:
    """One that was stopped while it started is given up after 10 seconds."""
    async with asyncio.timeout(30):
        for number in itertools.count():
            if (await judge(packed(-number, b"clean"))).outcome is Outcome.CLEAN:
                return


async def _storm(chance: random.Random) -> None:
    while True:
        if targets := sorted(templates() | workers()):
            with suppress(ProcessLookupError):
                os.kill(
                    chance.choice(targets), chance.choice((signal.SIGKILL, signal.SIGSTOP, signal.SIGABRT))
                )
        await asyncio.sleep(chance.uniform(0.02, 0.3))
