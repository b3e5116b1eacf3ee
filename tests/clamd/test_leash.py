from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from scanner.clamd.leash import LeashedProcess

_ENVIRONMENT = {"PATH": os.defpath}

_PARENT = """
import os, signal, sys
from pathlib import Path
from scanner.clamd.leash import LeashedProcess
child = LeashedProcess(["sleep", "60"], environment={"PATH": os.defpath}, directory=Path("/"))
print(child.pid, flush=True)
"""


def start(*command: str) -> LeashedProcess:
    return LeashedProcess(command, environment=_ENVIRONMENT, directory=Path("/"))


def group_is_empty(group: int, within: float = 1.0) -> bool:
    """Whether neither the program nor its watcher lives; a zombie awaiting somebody else's wait is dead."""
    deadline = time.monotonic() + within
    # Twice: what was born behind the back of the first look, with a lower number, is there at the second.
    while living(group) or living(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def living(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if its_group == str(group) and state != "Z":
            found.append(int(entry.parent.name))
    return found


def parent(*lines: str) -> subprocess.Popen[str]:
    source = _PARENT + "\n".join(lines)
    return subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)


def killed_parents_child(process: subprocess.Popen[str]) -> int:
    out, _ = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGKILL
    return int(out)


def test_child_dies_with_a_parent_killed_at_once() -> None:
    """The parent is gone before the watcher had time to start."""
    process = parent("os.kill(os.getpid(), signal.SIGKILL)")
    assert group_is_empty(killed_parents_child(process))


def test_child_outlives_the_thread_that_started_it() -> None:
    """PR_SET_PDEATHSIG would kill it here."""
    source = _PARENT.replace("child = ", "import threading\ndef start():\n  global child\n  child = ")
    source = source.replace("print(", "t = threading.Thread(target=start); t.start(); t.join()\nprint(")
    out = subprocess.check_output(
        [sys.executable, "-c", source + "import time; time.sleep(0.2); print(child.poll()); child.kill()"],
        text=True,
    )
    assert out.split()[1] == "None"


def test_stopped_child_is_killed_all_the_same() -> None:
    source = "import time; time.sleep(0.2); os.kill(child.pid, signal.SIGSTOP)"
    process = parent(source, "os.kill(os.getpid(), signal.SIGKILL)")
    assert group_is_empty(killed_parents_child(process))


def test_what_a_killed_parents_child_wrote_is_removed(tmp_path: Path) -> None:
    """And nothing else, not even the directory: the next service may be using it."""
    (tmp_path / "letter.txt").write_text("plaintext")
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "member.txt").write_text("plaintext")
    source = _PARENT.replace('Path("/"))', f'Path("/"), leavings=Path({str(tmp_path)!r}))')
    source += "os.kill(os.getpid(), signal.SIGKILL)"
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert group_is_empty(killed_parents_child(process))
    assert list(tmp_path.iterdir()) == []


def test_what_a_child_wrote_is_left_to_a_parent_that_lives(tmp_path: Path) -> None:
    child = LeashedProcess(["sleep", "60"], environment=_ENVIRONMENT, directory=Path("/"), leavings=tmp_path)
    (tmp_path / "letter.txt").write_text("plaintext")
    child.kill()
    assert group_is_empty(child.pid)
    assert (tmp_path / "letter.txt").exists()


async def test_exit_status_is_the_programs_own() -> None:
    child = start("sh", "-c", "exit 7")
    assert await child.wait() == 7
    child.kill()


async def test_end_asks_before_it_kills() -> None:
    child = start("sleep", "60")
    await child.end(grace=5)
    assert child.poll() == -signal.SIGTERM


async def test_end_kills_what_does_not_listen() -> None:
    child = start("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
    assert child.log
    assert child.log.readline() == b"deaf\n"
    await child.end(grace=0.1)
    assert child.poll() == -signal.SIGKILL
    assert group_is_empty(child.pid)


def test_kill_leaves_no_zombie_where_we_are_process_1() -> None:
    """A subreaper inherits orphans as process 1 of a container does."""
    source = _PARENT + (
        "import ctypes; ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER\n"
        "child.kill()\n"
        "try: print(os.waitpid(-1, os.WNOHANG))\n"
        "except ChildProcessError: print('none')\n"
    )
    assert subprocess.check_output([sys.executable, "-c", source], text=True).split()[1:] == ["none"]


def test_child_gets_nothing_of_ours() -> None:
    """No descriptor but its three streams, no core dump, a session and a group of its own."""
    inheritable = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    child = start("sh", "-c", "exec sleep 60")
    try:
        wait_until_running(child.pid, "sleep")
        wait_until(
            lambda: descriptors(child.pid) == {"0", "1", "2"}
        )  # it opens its libraries, and closes them
        assert resource.prlimit(child.pid, resource.RLIMIT_CORE) == (0, 0)
        assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid
    finally:
        child.kill()
        os.close(inheritable)


def descriptors(pid: int) -> set[str]:
    return {entry.name for entry in Path(f"/proc/{pid}/fd").iterdir()}


def wait_until_running(pid: int, name: str) -> None:
    wait_until(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == name)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_directory_that_is_not_there_is_an_error_and_leaks_nothing() -> None:
    before = descriptors(os.getpid())
    with pytest.raises(FileNotFoundError):
        LeashedProcess(["true"], environment=_ENVIRONMENT, directory=Path("/nonexistent"))
    assert descriptors(os.getpid()) == before


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_the_lines_of_a_programs_output(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def read() -> None:
        child = start("printf", r"one \ntwo\n\n\377\nno end")
        assert [line async for line in child.lines()] == ["one", "two", "", "\ufffd", "no end"]
        await child.end(grace=5)

    run(read())


async def test_a_line_that_does_not_end_is_left_out_whole() -> None:
    """Its tail, which may be a name in somebody's archive, must not pass for a line of its own."""
    child = start("sh", "-c", "echo before; head -c 10000000 /dev/zero; echo Database; echo behind")
    assert [line async for line in child.lines()] == ["before", "behind"]
    await child.end(grace=5)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_descriptor_that_is_given_back_is_closed_once(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """Closed once more a turn later, it would be somebody else's: a clamd's connection, or media."""

    async def read_and_reopen() -> None:
        child = start("true")
        assert [line async for line in child.lines()] == []
        await child.end(grace=5)
        others = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
        await asyncio.sleep(0.05)
        for fd in others:
            os.close(fd)  # raises where it is no longer open

    run(read_and_reopen())
