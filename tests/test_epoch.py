from __future__ import annotations

import asyncio
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from scanner import epoch as epoch_module
from scanner.epoch import Epoch
from scanner.errors import ConfigError
from tests.fake_homeserver import until


def refusal(state_dir: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        Epoch(state_dir)
    return refused.value.info


def test_epoch_is_0_until_it_is_raised_and_writes_nothing(tmp_path: Path) -> None:
    assert Epoch(tmp_path).current == 0
    assert Epoch(tmp_path / "absent").current == 0
    assert list(tmp_path.iterdir()) == []


def test_raised_epoch_is_always_another_one_and_lasts(tmp_path: Path) -> None:
    epoch, seen = Epoch(tmp_path), []
    for _ in range(3):
        epoch.advance()
        seen.append(epoch.current)
    assert seen == sorted(set(seen))
    assert Epoch(tmp_path).current == seen[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["verdict-epoch"]


def test_epoch_is_raised_even_if_the_clock_was_set_back(tmp_path: Path) -> None:
    (tmp_path / "verdict-epoch").write_text("99999999999\n")
    epoch = Epoch(tmp_path)
    epoch.advance()
    assert epoch.current == 100000000000


def test_whoever_raised_it_the_service_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        Epoch(tmp_path).advance()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "verdict-epoch").stat().st_mode) == 0o644


@pytest.mark.parametrize("content", [b"", b"soon", b"-1", b"1 2", b"9" * 30, "\u0661".encode(), b"\xff"])
def test_what_is_no_number_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "verdict-epoch").write_bytes(content)
    assert refusal(tmp_path) == f"state_dir: {tmp_path}/verdict-epoch: no number; delete it"


def test_state_directory_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file") == f"state_dir: {tmp_path}/file/verdict-epoch: Not a directory"
    with pytest.raises(ConfigError, match=r"state_dir: .*: No such file or directory"):
        Epoch(tmp_path / "absent").advance()


async def test_follower_sees_it_raised_and_outlives_a_file_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_module, "_INTERVAL", 0.01)
    epoch, other = Epoch(tmp_path), Epoch(tmp_path)
    following = asyncio.create_task(epoch.follow())
    other.advance()
    await until(lambda: epoch.current == other.current)
    (tmp_path / "verdict-epoch").write_text("soon")
    await asyncio.sleep(0.05)
    (tmp_path / "verdict-epoch").unlink()  # nothing that was forgotten comes back
    await asyncio.sleep(0.05)
    assert epoch.current == other.current
    other.advance()
    await until(lambda: epoch.current == other.current)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
