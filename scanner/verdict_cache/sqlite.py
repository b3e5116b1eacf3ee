"""Verdicts and aliases that survive a restart.

Every answer comes from memory; the file is a log of it, read once at the start and written behind the
requests' backs: what a fifth of a second brought goes into one transaction in one worker thread. So a
file that is slow, locked, full or gone costs nothing but what a restart would have remembered.

The file knows only the time of day, which may jump: an entry from the future is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Self, TypeVar

from scanner.errors import StoreError
from scanner.events import Publish, StoreFailed
from scanner.ports import VerdictCache
from scanner.sqlite_file import SqliteFile
from scanner.verdict import Alias, ContentId, Verdict, VerdictKey

_FLUSH_INTERVAL = 0.2
_MAX_QUEUED = 50_000

_VERDICTS, _CONTENTS = _TABLES = ("verdicts", "contents")
# Ids only grow, so that the newest entries are a range of them.
_CREATE = """
CREATE TABLE IF NOT EXISTS {} (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    value BLOB NOT NULL,
    stored REAL NOT NULL,
    ends REAL NOT NULL
)"""
_DROP = "DELETE FROM {} WHERE stored > :now OR ends <= :now"
_LOAD = "SELECT name, value, ends - :now FROM {} ORDER BY id"
_STORE = "REPLACE INTO {} (name, value, stored, ends) VALUES (?, ?, ?, ?)"
_PRUNE = "DELETE FROM {0} WHERE id <= (SELECT max(id) FROM {0}) - ?"

# Name, value and lifetime in seconds: as remembered, and as read back.
Remembered = tuple[bytes, Verdict | ContentId, float]
Loaded = tuple[bytes, bytes, float]
T = TypeVar("T")


class Sqlite:
    """A VerdictCache over another one, `memory`, that a file makes durable.

    Use it as an async context manager. `capacity` bounds the verdicts and the aliases in the file;
    `clock` is the time of day in seconds.
    """

    name = "sqlite"

    def __init__(
        self,
        path: Path,
        publish: Publish,
        memory: VerdictCache,
        capacity: int = 100_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = _File(path, capacity, clock)
        self._publish = publish
        self._memory = memory
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="verdicts")
        self._queued = _nothing_queued()
        self._flushing: asyncio.Task[None] | None = None
        self._failing = False

    async def __aenter__(self) -> Self:
        loaded = await self._in_worker(self._file.load) or {}
        for name, value, lifetime in loaded.get(_VERDICTS, ()):
            with suppress(ValueError, KeyError, TypeError):
                await self._memory.remember(VerdictKey(name), Verdict.from_json(value.decode()), lifetime)
        for name, value, _ in loaded.get(_CONTENTS, ()):
            await self._memory.link(Alias(name), ContentId(value))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._flushing is not None:
            await self._flushing
        await self._in_worker(self._file.close)
        self._worker.shutdown(wait=False)

    async def verdict(self, key: VerdictKey) -> Verdict | None:
        """What `remember` was told, in this run or an earlier one."""
        return await self._memory.verdict(key)

    async def remember(self, key: VerdictKey, verdict: Verdict, lifetime: float) -> None:
        """Keep `verdict` for `lifetime` seconds, restarts included."""
        await self._memory.remember(key, verdict, lifetime)
        self._queue(_VERDICTS, (key, verdict, lifetime))

    async def content(self, alias: Alias) -> ContentId | None:
        """What `link` was told, in this run or an earlier one."""
        return await self._memory.content(alias)

    async def link(self, alias: Alias, content: ContentId) -> None:
        """Keep where `alias` leads to."""
        await self._memory.link(alias, content)
        self._queue(_CONTENTS, (alias, content, inf))

    def entries(self) -> int:
        """How many verdicts and aliases can be answered."""
        return self._memory.entries()

    def _queue(self, table: str, entry: Remembered) -> None:
        if len(self._queued[table]) < _MAX_QUEUED:
            self._queued[table].append(entry)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        try:
            while any(self._queued.values()):
                await asyncio.sleep(_FLUSH_INTERVAL)
                queued, self._queued = self._queued, _nothing_queued()
                await self._in_worker(self._file.append, queued)
        finally:  # whatever ended it, the next entry starts it anew
            self._flushing = None

    async def _in_worker(self, work: Callable[..., T], *arguments: object) -> T | None:
        """None where the file failed; the first failure in a row is an event."""
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)
        except StoreError as error:
            if not self._failing:
                self._publish(StoreFailed(self.name, error.info))
            self._failing = True
            return None
        self._failing = False
        return done


class _File:
    """The database; used by one thread only. Every method raises StoreError, and then starts afresh."""

    def __init__(self, path: Path, capacity: int, clock: Callable[[], float]) -> None:
        self._file = SqliteFile(path, [_CREATE.format(table) for table in _TABLES])
        self._capacity = capacity
        self._clock = clock

    def load(self) -> dict[str, list[Loaded]]:
        """What is still valid, the oldest first; the rest is dropped from the file, too."""
        now = {"now": self._clock()}
        loaded = {}
        with self._file.transaction() as connection:
            for table in _TABLES:
                connection.execute(_DROP.format(table), now)
                connection.execute(_PRUNE.format(table), (self._capacity,))
                loaded[table] = connection.execute(_LOAD.format(table), now).fetchall()
        return loaded

    def append(self, queued: Mapping[str, Sequence[Remembered]]) -> None:
        """All of it, or nothing."""
        now = self._clock()
        with self._file.transaction() as connection:
            for table, entries in queued.items():
                rows = [(name, _stored(value), now, now + lifetime) for name, value, lifetime in entries]
                connection.executemany(_STORE.format(table), rows)
                connection.execute(_PRUNE.format(table), (self._capacity,))

    def close(self) -> None:
        """SQLite folds its write-ahead log into the file."""
        self._file.close()


def _nothing_queued() -> dict[str, list[Remembered]]:
    return {table: [] for table in _TABLES}


def _stored(value: Verdict | ContentId) -> bytes:
    return value.to_json().encode() if isinstance(value, Verdict) else value
