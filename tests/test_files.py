"""Files: all of them are named, none is read but regular ones, each whole and within the budget."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scanner.admission import Budget
from scanner.errors import Unavailable, Unreadable
from scanner.files import Entry, File, Files, Refused, Skipped, walk
from scanner.media import STEP
from tests.fake_homeserver import until

LIMIT = 2 * 1024 * 1024


@pytest.fixture
def budget() -> Budget:
    return Budget(16 * 1024 * 1024, 0.2)


@pytest.fixture
def files(budget: Budget) -> Files:
    return Files(budget, LIMIT)


async def walked(*arguments: str | Path) -> list[Entry]:
    return [entry async for entry in walk([str(argument) for argument in arguments])]


# -- which there are -----------------------------------------------------------------------------


async def test_a_directory_is_all_the_files_below_it_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "sub/deep/c", "sub/d", "z/e"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    found = [(entry.path.removeprefix(f"{tmp_path}/"), entry.size) for entry in await files_of(tmp_path)]
    assert found == [("a", 1), ("b", 1), ("sub/d", 5), ("sub/deep/c", 10), ("z/e", 3)]


async def files_of(path: Path) -> list[File]:
    return [entry for entry in await walked(path) if isinstance(entry, File)]


async def test_links_and_devices_below_a_directory_are_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "to-a-directory").symlink_to("/etc")
    (tmp_path / "to-a-file").symlink_to("file")
    (tmp_path / "to-itself").symlink_to("to-itself")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    entries = await walked(tmp_path)
    assert [entry.path for entry in entries if isinstance(entry, File)] == [str(tmp_path / "file")]
    skipped = [Path(entry.path).name for entry in entries if isinstance(entry, Skipped)]
    assert skipped == ["pipe", "socket", "to-a-directory", "to-a-file", "to-itself"]


async def test_a_link_that_was_asked_for_is_followed(tmp_path: Path, files: Files) -> None:
    (tmp_path / "file").write_text("letter")
    (tmp_path / "link").symlink_to("file")
    [entry] = await walked(tmp_path / "link")
    assert isinstance(entry, File)
    body = await files.body(entry)
    assert body.read(0, 100) == b"letter"
    body.release()


async def test_what_was_asked_for_and_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to("absent")
    names = [tmp_path / "absent", tmp_path / "nowhere", tmp_path / "pipe", Path("/dev/null")]
    assert await walked(*names) == [
        Refused(str(names[0]), "No such file or directory"),
        Refused(str(names[1]), "No such file or directory"),
        Refused(str(names[2]), "neither a file nor a directory"),
        Refused(str(names[3]), "neither a file nor a directory"),
    ]


async def test_a_tree_that_is_deeper_than_a_path_may_be_long_is_refused_there(tmp_path: Path) -> None:
    make_deep_tree(tmp_path)
    [entry] = await walked(tmp_path)
    assert isinstance(entry, Refused)
    assert entry.problem == "File name too long"


def make_deep_tree(top: Path) -> None:
    """A path has 4096 bytes at most; this one is made step by step."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    """As a user without rights, in a process of his own."""
    script = """
import asyncio, os, sys
from scanner.admission import Budget
from scanner.errors import Unreadable
from scanner.files import File, Files, walk
async def main():
    files = Files(Budget(16 << 20, 1.0), 1000)
    async for entry in walk(["."]):
        if isinstance(entry, File):
            try:
                await files.body(entry)
            except Unreadable as problem:
                print(entry.path, problem.info)
        else:
            print(entry.path, entry.problem)
sys.path.insert(0, sys.argv[1])
os.chdir(sys.argv[2])
os.setgroups([]), os.setgid(65534), os.setuid(65534)
asyncio.run(main())
"""
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    tmp_path.chmod(0o755)
    arguments = [sys.executable, "-c", script, str(Path(__file__).parents[1]), str(tmp_path)]
    said = subprocess.check_output(arguments, text=True)
    assert said.splitlines() == ["./secret Permission denied", "./closed Permission denied"]


# -- their bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, STEP, STEP + 1, LIMIT])
async def test_a_body_is_the_whole_file_inside_its_share(
    tmp_path: Path, files: Files, budget: Budget, size: int
) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    body = await files.body(File(str(tmp_path / "file"), size))
    assert (body.size, body.sha256) == (size, hashlib.sha256(content).digest())
    assert budget.reserved == size
    body.release()
    await asyncio.sleep(0.05)
    assert budget.reserved == 0


async def test_a_file_above_the_limit_is_not_opened(files: Files) -> None:
    with pytest.raises(Unreadable, match=r"larger than limits.media_size \(2MiB\)"):
        await files.body(File("/nonexistent", LIMIT + 1))


def grow(path: Path) -> None:
    path.write_text("longer")


def shrink(path: Path) -> None:
    path.write_text("")


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_link(path: Path) -> None:
    path.unlink()
    path.with_name("other").write_text("12345")
    path.symlink_to("other")


def vanish(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (grow, "changes while it is read"),
        (shrink, "changes while it is read"),
        (become_a_pipe, "changes while it is read"),
        (become_a_link, "Too many levels of symbolic links"),
        (vanish, "No such file or directory"),
    ],
)
async def test_a_file_that_changes_after_it_was_found_is_not_read(
    tmp_path: Path, files: Files, budget: Budget, change: Callable[[Path], None], problem: str
) -> None:
    (tmp_path / "file").write_text("12345")
    [entry] = await files_of(tmp_path)
    change(tmp_path / "file")
    with pytest.raises(Unreadable, match=problem):
        await files.body(entry)
    assert budget.reserved == 0


async def test_a_file_that_is_written_to_while_it_is_read_is_not_taken(tmp_path: Path) -> None:
    path, size = tmp_path / "file", 32 * 1024 * 1024  # reading takes longer than a tick of its time stamp
    files = Files(Budget(2 * size, 1.0), size)
    path.write_bytes(bytes(size))
    done = threading.Event()

    def write() -> None:
        with path.open("r+b", buffering=0) as file:
            while not done.is_set():
                file.seek(0)
                file.write(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(Unreadable, match="changes while it is read"):
            await files.body(File(str(path), size))
    finally:
        done.set()
        writer.join()


async def test_files_wait_for_room(tmp_path: Path, files: Files, budget: Budget) -> None:
    (tmp_path / "file").write_bytes(bytes(LIMIT))
    held = await budget.downloads.reserve(budget.downloads.capacity, "other")
    with pytest.raises(Unavailable):
        await files.body(File(str(tmp_path / "file"), LIMIT))
    held.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_cancelled_read_lets_go_of_its_descriptors_first(
    tmp_path: Path, files: Files, budget: Budget
) -> None:
    (tmp_path / "file").write_bytes(bytes(LIMIT))
    before = descriptors()
    for _ in range(20):
        reading = asyncio.create_task(files.body(File(str(tmp_path / "file"), LIMIT)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await until(lambda: (descriptors(), budget.reserved) == (before, 0))


# -- standard input ------------------------------------------------------------------------------


async def from_standard_input(files: Files, monkeypatch: pytest.MonkeyPatch, fd: int) -> bytes:
    with os.fdopen(fd) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        [entry] = await walked("-")
        assert isinstance(entry, File)
        body = await files.body(entry)
        content = body.read(0, LIMIT)
        body.release()
        return content


async def test_standard_input_is_read_from_a_pipe_to_its_end(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, other = os.pipe()
    content = os.urandom(200_000)

    def write() -> None:
        with os.fdopen(other, "wb") as pipe:
            pipe.write(content)

    writing = asyncio.create_task(asyncio.to_thread(write))
    assert await from_standard_input(files, monkeypatch, end) == content
    await writing


async def test_standard_input_may_be_a_file_or_nothing(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"letter")
    file = os.open(tmp_path / "file", os.O_RDONLY)
    assert await from_standard_input(files, monkeypatch, file) == b"letter"
    assert await from_standard_input(files, monkeypatch, os.open("/dev/null", os.O_RDONLY)) == b""


async def test_standard_input_above_the_limit_is_refused_before_it_is_read_whole(
    files: Files, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreadable, match=r"larger than limits.media_size"):
        await from_standard_input(files, monkeypatch, os.open("/dev/zero", os.O_RDONLY))
    await until(lambda: budget.reserved == 0)


async def test_a_closed_standard_input_is_no_empty_file(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Unreadable, match="closed"):
        await files.body(File("-", None))


async def test_waiting_for_standard_input_can_be_cancelled(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, other = os.pipe()
    reading = asyncio.create_task(from_standard_input(files, monkeypatch, end))
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    os.close(other)
