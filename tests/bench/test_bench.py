"""The benchmark as it is run: against real servers, in seconds instead of minutes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.procfs import family
from tests.bench.record import Record
from tests.bench.services import CHECKOUT
from tests.bench.targets import FLOOR, PRODUCT
from tests.real_clamd import free_port

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.alone]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.bench", *arguments]


def start(*arguments: str) -> subprocess.Popen[str]:
    everything = command("run", "--port", str(free_port()), *arguments)
    return subprocess.Popen(
        everything, cwd=CHECKOUT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def short(kept: Path, targets: str = f"{PRODUCT},{FLOOR}") -> list[str]:
    only = "thumb-10k-c32,scan-enc-100k-c8"
    return ["--targets", targets, "--only", only, "--rounds", "1", "--seconds", "0.3", "--json", str(kept)]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_short_run_keeps_figures_and_finds_no_wrong_verdict(tmp_path: Path) -> None:
    run = start(*short(tmp_path / "kept.json"), "--require", "thumb-*.files_s>=1")
    shown, said = run.communicate(timeout=60)
    assert run.returncode == 1, said  # a bar without its reference is missed
    assert "MISS" in shown
    kept = Record.load(tmp_path / "kept.json")
    assert [each.targets() for each in kept.scenarios] == [[PRODUCT, FLOOR]] * 2
    assert kept.errors(PRODUCT) == kept.errors(FLOOR) == {}
    assert all(each.rounds[0][PRODUCT].files > 0 for each in kept.scenarios)


def leavings() -> set[Path]:
    """Folders of benchmarks that run, or were killed."""
    return {path for folder in ("/dev/shm", "/tmp") for path in Path(folder).glob("bench-*")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_runs_on_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    before = leavings()
    run = start(*short(tmp_path / "kept.json", PRODUCT), "--seconds", "20")
    wait_until(lambda: len(list(family(run.pid))) >= 4)  # itself, clamd, media repository, product
    children = set(family(run.pid)) - {run.pid}
    os.kill(run.pid, number)
    run.communicate(timeout=30)
    wait_until(lambda: not any(map(alive, children)))
    left = leavings() - before
    for folder in left:
        shutil.rmtree(folder)
    assert not left or number == signal.SIGKILL


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["run", "--only", "nothing"], "no scenario"),
        (["run", "--targets", "nobody"], "is no target"),
        (["run", "--require", "fast"], "is no bar"),
        (["publish", "absent.json"], "is not there"),
    ],
)
def test_what_the_user_can_change_is_one_line_and_status_2(arguments: list[str], reason: str) -> None:
    ran = subprocess.run(command(*arguments), cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert reason in ran.stderr.splitlines()[-1]


def test_every_scenario_is_listed() -> None:
    ran = subprocess.run(command("scenarios"), cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in ran.stdout.splitlines()][-1] == "herd-200x20m"
