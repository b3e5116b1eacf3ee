"""The store in a directory."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from scanner.errors import StoreError
from scanner.stores.local import Local
from tests.contracts.store import KEY, StoreContract


@pytest.fixture
def store(tmp_path: Path) -> Local:
    return Local(tmp_path / "quarantine")


class TestLocal(StoreContract):
    pass


async def test_only_the_owner_reads_and_nothing_else_is_left(store: Local, tmp_path: Path) -> None:
    await store.put(KEY, b"x")
    await store.put(KEY, b"y")
    paths = [*(tmp_path / "quarantine").rglob("*")]
    assert [path.name for path in paths if path.is_file()] == ["0011"]
    assert [stored.key async for stored in store.listing("")] == [KEY]
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


async def test_what_killed_processes_left_is_removed_and_what_others_write_is_not(
    store: Local, tmp_path: Path
) -> None:
    drafts = tmp_path / "quarantine" / ".drafts"
    drafts.mkdir(parents=True)
    for name, age in (("old", 7200), ("new", 60)):
        (drafts / name).write_bytes(b"torn")
        os.utime(drafts / name, (time.time() - age, time.time() - age))
    assert [stored.key async for stored in store.listing("")] == []
    await store.put(KEY, b"x")
    assert [path.name for path in drafts.iterdir()] == ["new"]


@pytest.mark.parametrize("key", ["/etc/passwd", "../x", "v1/../../x"])
async def test_no_name_leads_out_of_the_directory(store: Local, key: str) -> None:
    with pytest.raises(StoreError):
        await store.put(key, b"x")


async def test_a_directory_that_cannot_be_used_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Local(tmp_path / "file")
    with pytest.raises(StoreError):
        await store.put(KEY, b"x")
    with pytest.raises(StoreError):
        await store.get(KEY)
