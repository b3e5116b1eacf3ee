"""What a file is to whoever keeps something in it; verdict_cache/test_sqlite.py causes more of its faults."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from scanner.errors import StoreError
from scanner.sqlite_file import SqliteFile

SCHEMA = ("CREATE TABLE IF NOT EXISTS things (name TEXT PRIMARY KEY)",)


def put(file: SqliteFile, *names: str) -> None:
    with file.transaction() as connection:
        connection.executemany("INSERT INTO things VALUES (?)", [(name,) for name in names])


def names(file: SqliteFile) -> list[str]:
    with file.transaction() as connection:
        return [name for (name,) in connection.execute("SELECT name FROM things ORDER BY name")]


@pytest.fixture
def file(tmp_path: Path) -> SqliteFile:
    return SqliteFile(tmp_path / "things.sqlite", SCHEMA)


def test_what_was_written_is_there_after_a_restart(file: SqliteFile, tmp_path: Path) -> None:
    put(file, "a")
    file.close()
    assert names(SqliteFile(tmp_path / "things.sqlite", SCHEMA)) == ["a"]
    assert stat.S_IMODE((tmp_path / "things.sqlite").stat().st_mode) == 0o600


def test_a_transaction_is_done_whole_or_not_at_all(file: SqliteFile) -> None:
    put(file, "b")
    with pytest.raises(StoreError):
        put(file, "a", "b")
    assert names(file) == ["b"]


def test_a_removed_file_leaves_nothing_and_can_be_used_again(file: SqliteFile, tmp_path: Path) -> None:
    put(file, "a")
    file.remove()
    assert list(tmp_path.iterdir()) == []
    assert names(file) == []
    SqliteFile(tmp_path / "never" / "was", SCHEMA).remove()


def test_a_file_that_is_none_of_sqlites_is_set_aside(file: SqliteFile, tmp_path: Path) -> None:
    (tmp_path / "things.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError):
        names(file)
    assert names(file) == []
    assert (tmp_path / "things.sqlite.corrupt").read_bytes().startswith(b"no database")


def test_a_locked_file_is_an_error_and_is_used_again(
    file: SqliteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanner.sqlite_file._LOCK_TIMEOUT", 0.01)
    put(file, "a")
    with closing(sqlite3.connect(tmp_path / "things.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError):
            put(file, "b")
    put(file, "c")
    assert names(file) == ["a", "c"]
