from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from scanner.events import Event, StoreFailed
from scanner.ports import VerdictCache
from scanner.verdict import Alias, ContentId, VerdictKey
from scanner.verdict_cache.memory import Memory
from scanner.verdict_cache.sqlite import Sqlite
from tests.contracts.verdict_cache import ALIAS, CLEAN, INFECTED, KEY, VerdictCacheContract

CONTENT = ContentId(b"c" * 32)
OTHER = VerdictKey(b"o" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "verdicts.sqlite"


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def opened(path: Path, events: list[Event]) -> Callable[..., Sqlite]:
    """Opens the same file again and again, over an empty memory each time."""
    path.parent.mkdir()

    def opened(capacity: int = 1000, clock: Callable[[], float] = time.time) -> Sqlite:
        return Sqlite(path, events.append, Memory(capacity), capacity, clock)

    return opened


@pytest.fixture
async def cache(opened: Callable[..., Sqlite]) -> AsyncIterator[VerdictCache]:
    async with opened() as cache:
        yield cache


class TestSqlite(VerdictCacheContract):
    """The contract."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanner.verdict_cache.sqlite._FLUSH_INTERVAL", 0.01)
    monkeypatch.setattr("scanner.sqlite_file._LOCK_TIMEOUT", 0.01)


def stored(path: Path, table: str = "verdicts") -> list[bytes]:
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute(f"SELECT name FROM {table} ORDER BY id")]  # noqa: S608


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  (nothing here could wake us: another thread does the work)
        await asyncio.sleep(0.01)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else writes, and takes his time."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def full(limit: int) -> Iterator[None]:
    """No file grows over `limit` bytes: what a full disk is to SQLite."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_restart_remembers(opened: Callable[..., Sqlite], events: list[Event]) -> None:
    async with opened() as cache:
        await cache.remember(KEY, CLEAN, 60)
        await cache.remember(OTHER, CLEAN, 60)
        await cache.remember(OTHER, INFECTED, 60)
        await cache.link(ALIAS, CONTENT)
    async with opened() as cache:
        assert await cache.verdict(KEY) == CLEAN
        assert await cache.verdict(OTHER) == INFECTED
        assert await cache.content(ALIAS) == CONTENT
    assert not events


async def test_entry_is_on_disk_soon(opened: Callable[..., Sqlite], path: Path) -> None:
    """A process that is killed forgets only what the last moment brought."""
    async with opened() as cache:
        await cache.remember(KEY, CLEAN, 60)
        await until(lambda: stored(path) == [KEY])


async def test_lifetime_goes_on_while_we_are_down(opened: Callable[..., Sqlite]) -> None:
    now = time.time()
    async with opened(clock=lambda: now) as cache:
        await cache.remember(KEY, CLEAN, 60)
        await cache.remember(OTHER, CLEAN, 3600)
        await cache.link(ALIAS, CONTENT)
    async with opened(clock=lambda: now + 61) as cache:
        assert await cache.verdict(KEY) is None
        assert await cache.verdict(OTHER) == CLEAN
        assert await cache.content(ALIAS) == CONTENT


async def test_entry_from_the_future_is_dropped_for_good(opened: Callable[..., Sqlite]) -> None:
    """The clock was wrong when it was written: it would live for years."""
    now = time.time()
    async with opened(clock=lambda: now + 1e9) as cache:
        await cache.remember(KEY, CLEAN, 60)
    for clock in (lambda: now, lambda: now + 1e9):
        async with opened(clock=clock) as cache:
            assert await cache.verdict(KEY) is None


async def test_file_keeps_the_newest_entries_only(opened: Callable[..., Sqlite], path: Path) -> None:
    async with opened(capacity=10) as cache:
        for number in range(50):
            await cache.remember(VerdictKey(bytes([number])), CLEAN, 60)
            await cache.link(Alias(bytes([number])), CONTENT)
    newest = [bytes([number]) for number in range(40, 50)]
    assert stored(path, "verdicts") == stored(path, "contents") == newest
    async with opened(capacity=10) as cache:
        assert cache.entries() == 20


async def test_only_the_owner_can_read_the_files(opened: Callable[..., Sqlite], path: Path) -> None:
    os.close(os.open(path, os.O_CREAT, 0o644))
    async with opened() as cache:
        await cache.remember(KEY, CLEAN, 60)
        await until(lambda: stored(path))
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(path.parent)}
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}


async def test_unreadable_entry_is_skipped(opened: Callable[..., Sqlite], path: Path) -> None:
    async with opened() as cache:
        await cache.remember(KEY, CLEAN, 60)
        await cache.remember(OTHER, CLEAN, 60)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE verdicts SET value = ? WHERE name = ?", (b'{"reports": \xff', KEY))
        connection.commit()
    async with opened() as cache:
        assert await cache.verdict(KEY) is None
        assert await cache.verdict(OTHER) == CLEAN


def overwrite(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(os.urandom(max(4096, path.stat().st_size - offset)))


@pytest.mark.parametrize("offset", [0, 4096])
async def test_corrupt_file_is_set_aside_and_a_fresh_one_made(
    opened: Callable[..., Sqlite], path: Path, events: list[Event], offset: int
) -> None:
    """Whether its first page is broken or only a later one."""
    async with opened() as cache:
        await cache.remember(OTHER, CLEAN, 60)
    overwrite(path, offset)
    async with opened() as cache:
        assert [type(event) for event in events] == [StoreFailed]
        await cache.remember(KEY, CLEAN, 60)
    assert {"verdicts.sqlite", "verdicts.sqlite.corrupt"} <= {entry.name for entry in os.scandir(path.parent)}
    async with opened() as cache:
        assert await cache.verdict(OTHER) is None
        assert await cache.verdict(KEY) == CLEAN


async def test_locked_file_fails_no_request_and_is_said_once(
    opened: Callable[..., Sqlite], path: Path, events: list[Event]
) -> None:
    async with opened() as cache:
        with locked(path):
            for _ in range(3):
                await cache.remember(KEY, CLEAN, 60)
                assert await cache.verdict(KEY) == CLEAN
                await until(lambda: events)
                await asyncio.sleep(0.05)
        assert [type(event) for event in events] == [StoreFailed]
        await cache.remember(OTHER, CLEAN, 60)
        await until(lambda: OTHER in stored(path))
        with locked(path):
            await cache.remember(KEY, CLEAN, 60)
            await until(lambda: len(events) == 2)


async def test_file_locked_at_the_start_is_used_later(
    opened: Callable[..., Sqlite], path: Path, events: list[Event]
) -> None:
    async with opened() as cache:
        await cache.remember(KEY, CLEAN, 60)
    with locked(path):
        cache = await opened().__aenter__()
    async with cache:
        await cache.remember(OTHER, CLEAN, 60)
    assert len(events) == 1
    async with opened() as cache:
        assert await cache.verdict(KEY) == await cache.verdict(OTHER) == CLEAN


async def test_full_disk_fails_no_request(opened: Callable[..., Sqlite], events: list[Event]) -> None:
    async with opened() as cache:
        await cache.remember(KEY, CLEAN, 60)
        with full(32 * 1024):
            for number in range(900):
                await cache.remember(VerdictKey(number.to_bytes(32)), CLEAN, 60)
            await until(lambda: events)
        assert [type(event) for event in events] == [StoreFailed]
        assert await cache.verdict(KEY) == CLEAN
        await cache.remember(OTHER, CLEAN, 60)
    async with opened() as cache:
        assert await cache.verdict(OTHER) == CLEAN


async def test_vanished_file_is_made_again(
    opened: Callable[..., Sqlite], path: Path, events: list[Event]
) -> None:
    async with opened() as cache:
        await cache.remember(KEY, CLEAN, 60)
        await until(lambda: stored(path))
        shutil.rmtree(path.parent)
        await cache.remember(KEY, CLEAN, 60)
        await until(lambda: events)
        await asyncio.to_thread(path.parent.mkdir)
        await cache.remember(OTHER, CLEAN, 60)
    assert [type(event) for event in events] == [StoreFailed]
    async with opened() as cache:
        assert await cache.verdict(OTHER) == CLEAN


async def test_directory_that_never_was_leaves_memory_alone(tmp_path: Path, events: list[Event]) -> None:
    async with Sqlite(tmp_path / "none" / "verdicts", events.append, Memory()) as cache:
        await cache.remember(KEY, CLEAN, 60)
        assert await cache.verdict(KEY) == CLEAN
    assert [type(event) for event in events] == [StoreFailed]
