"""A SQLite file that may be lost, locked, full or unreadable at any time, and then starts afresh.

Used by one thread only. What it knows is worth keeping, and nothing depends on it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from scanner.errors import StoreError

_LOCK_TIMEOUT = 2.0
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class SqliteFile:
    """`schema` is what creates its tables, if they are not there; only its owner can read it."""

    def __init__(self, path: Path, schema: Sequence[str]) -> None:
        self._path = path
        self._schema = schema
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it, or nothing. Raises StoreError."""
        try:
            with self._opened() as connection:
                yield connection
        except (sqlite3.Error, OSError) as error:
            self.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT:
                self._set_aside()
            raise StoreError(f"{self._path.name}: {error}") from error

    def close(self) -> None:
        """SQLite folds its write-ahead log into the file."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def remove(self) -> None:
        """With all that SQLite keeps beside it. Raises OSError."""
        self.close()
        for path in self._files():
            path.unlink(missing_ok=True)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._inode = self._create()
            self._connection = self._connect()
        elif self._path.stat().st_ino != self._inode:
            raise FileNotFoundError("the file is no longer the one that was opened")
        return self._connection

    def _create(self) -> int:
        """SQLite would give a new file whatever mode the umask leaves."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            for statement in self._schema:
                connection.execute(statement)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _set_aside(self) -> None:
        """Keep an unusable file for whoever wants to know why, in place of an older such."""
        for path in self._files():
            suffix = path.name.removeprefix(self._path.name)
            with suppress(OSError):
                path.replace(f"{self._path}.corrupt{suffix}")

    def _files(self) -> list[Path]:
        return [Path(f"{self._path}{suffix}") for suffix in ("", "-wal", "-shm")]
