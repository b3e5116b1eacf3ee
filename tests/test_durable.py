"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scanner import durable


@pytest.fixture(params=["everything", "no links", "no such rename"])
def directory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On a file system that has everything, on one without hard links, and on one whose renames replace."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)
    if request.param == "no such rename":  # what the kernel says to a flag that it does not know
        monkeypatch.setattr(durable, "_RENAME_NOREPLACE", 1 << 16)
    return tmp_path


def test_what_is_written_is_there_for_its_owner_and_replaces_nothing(directory: Path) -> None:
    assert durable.write(directory / "name", [b"on", b"e"], directory / "draft")
    assert not durable.write(directory / "name", [b"two"], directory / "draft")
    assert [path.name for path in directory.iterdir()] == ["name"]
    assert (directory / "name").read_bytes() == b"one"
    assert stat.S_IMODE((directory / "name").stat().st_mode) == 0o600


def test_a_link_replaces_nothing_and_is_not_had_everywhere(directory: Path) -> None:
    durable.write(directory / "one", [b"one"], directory / "draft")
    durable.write(directory / "two", [b"two"], directory / "draft")
    new = durable.link(directory / "one", directory / "name")
    if new is None:  # no links
        assert not (directory / "name").exists()
        return
    assert new
    assert not durable.link(directory / "two", directory / "name")
    assert (directory / "name").read_bytes() == b"one"
    with pytest.raises(FileNotFoundError):
        durable.link(directory / "absent", directory / "other")


def test_every_directory_with_a_new_name_is_flushed_whatever_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, fsync = list[str](), os.fsync

    def noting(fd: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    durable.write(tmp_path / "file", [b"x"], tmp_path / "draft")
    monkeypatch.setattr(os, "fsync", noting)
    assert durable.link(tmp_path / "file", tmp_path / "a" / "b" / "name")
    assert flushed == ["a", tmp_path.name, "b"]
    flushed.clear()
    with pytest.raises(FileNotFoundError):
        durable.link(tmp_path / "absent", tmp_path / "c" / "d" / "name")
    assert flushed == ["c", tmp_path.name]
    flushed.clear()
    with pytest.raises(OSError, match="too long"):
        durable.make_directory(tmp_path / "e" / ("f" * 300))
    assert flushed == [tmp_path.name]


def test_of_many_at_once_one_is_first_and_whole(directory: Path) -> None:
    def write(number: int) -> bool:
        return durable.write(directory / "name", [bytes([number])] * 1000, directory / f"draft{number}")

    with ThreadPoolExecutor(16) as writers:
        first = list(writers.map(write, range(16)))
    assert first.count(True) == 1
    assert (directory / "name").read_bytes() == bytes([first.index(True)]) * 1000


def test_what_breaks_off_leaves_nothing(directory: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.EIO, "read error")

    with pytest.raises(OSError, match="read error"):
        durable.write(directory / "name", pieces(), directory / "draft")
    assert not [*directory.iterdir()]


def test_other_problems_with_names_are_problems(directory: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        durable.write(directory / "absent" / "name", [b"x"], directory / "draft")
    assert not [*directory.iterdir()]


def test_directories_are_made_with_their_parents_for_their_owner_alone(tmp_path: Path) -> None:
    for _ in range(2):
        durable.make_directory(tmp_path / "a" / "b" / "c")
    for name in ("a", "a/b", "a/b/c"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        durable.make_directory(tmp_path / "file" / "d")
    with pytest.raises(OSError, match="exists"):
        durable.make_directory(tmp_path / "file")
