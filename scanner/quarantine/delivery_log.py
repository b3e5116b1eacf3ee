"""Deliveries of the last days in a file, by content: what `deliveries` writes and reads in its thread.

A row is what one caller was given of one content under one media ID on one day (UTC), so that a day can be
dropped at once. What is new is appended to `recent`, and sorted into `deliveries` many rows at a time: one by
one, each row would rewrite a page of its own. The names of contents and callers are keyed hashes, cut to 16
bytes.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from scanner.quarantine.delivery_records import Delivery
from scanner.sqlite_file import SqliteFile
from scanner.verdict import ContentId

_DAY = 86400
_NAME_BYTES = 16
LARGEST = 2 * 2**30
_MOST_RECENT = 50_000
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS deliveries (
        day INTEGER, content BLOB, media TEXT, caller BLOB,
        first REAL NOT NULL, last REAL NOT NULL, count INTEGER NOT NULL,
        PRIMARY KEY (day, content, media, caller)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS recent (
        day INTEGER, content BLOB, media TEXT, caller BLOB, first REAL, last REAL, count INTEGER)""",
    "CREATE TABLE IF NOT EXISTS told (content BLOB PRIMARY KEY, day INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS replica (name TEXT NOT NULL)",
)
# All rows in one step, in which Python's other threads run: `names` are contents and callers in turn.
_APPEND = f"""
INSERT INTO recent
SELECT value ->> 0,
    substr(:names, key * {2 * _NAME_BYTES} + 1, {_NAME_BYTES}), value ->> 1,
    substr(:names, key * {2 * _NAME_BYTES} + {_NAME_BYTES + 1}, {_NAME_BYTES}),
    value ->> 2, value ->> 3, value ->> 4
FROM json_each(:rows)"""  # noqa: S608 - constants
_UNTOLD = f"""
SELECT key FROM json_each(:rows) WHERE NOT EXISTS (
    SELECT 1 FROM told WHERE content = substr(:names, key * {_NAME_BYTES} + 1, {_NAME_BYTES}))
ORDER BY key"""  # noqa: S608 - constants
_SORT_IN = """
INSERT INTO deliveries
SELECT day, content, media, caller, min(first), max(last), sum(count)
FROM recent GROUP BY day, content, media, caller
ON CONFLICT DO UPDATE SET last = max(last, excluded.last), count = count + excluded.count"""
_FIRST_DAY = """
SELECT min(day) FROM (SELECT min(day) AS day FROM deliveries UNION ALL SELECT min(day) FROM recent)"""
# Day by day, since a day comes first in every sorted row's key.
_FIND = """
WITH RECURSIVE days(day) AS (
    SELECT min(day) FROM deliveries
    UNION ALL SELECT day + 1 FROM days WHERE day < (SELECT max(day) FROM deliveries)),
found AS (
    SELECT media, caller, first, last, count FROM days CROSS JOIN deliveries USING (day)
    WHERE content = :content
    UNION ALL SELECT media, caller, first, last, count FROM recent WHERE content = :content)
SELECT media, hex(caller), min(first) AS first, max(last), sum(count)
FROM found GROUP BY media, caller ORDER BY first"""


class Noted(NamedTuple):
    """What was delivered, under which name, and to whom."""

    content: ContentId
    media: str
    caller: bytes


@dataclass(slots=True)
class Times:
    """When first, when last (Unix times), and how often."""

    first: float
    last: float
    count: int = 1


class DeliveryLog:
    """Of the last `retention` seconds and at most `largest` bytes: then the oldest day goes first.

    Used by one thread only; every method raises StoreError.
    """

    def __init__(
        self,
        path: Path,
        retention: float,
        *,
        largest: int = LARGEST,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = SqliteFile(path, _SCHEMA)
        self._retention = retention
        self._largest = largest
        self._clock = clock

    def append(self, noted: Mapping[Noted, Times]) -> None:
        """All of it, or nothing; what is too old goes at the same time."""
        rows = [(_day(t.first), n.media, t.first, t.last, t.count) for n, t in noted.items()]
        names = b"".join(_name(name) for n in noted for name in (n.content, n.caller))
        with self._file.transaction() as connection:
            connection.execute(_APPEND, {"rows": json.dumps(rows), "names": names})
            self._sort_in(connection)
            self._prune(connection)

    def find(self, content: ContentId) -> list[Delivery]:
        """All that is known of a content, the first delivery first."""
        with self._file.transaction() as connection:
            found = connection.execute(_FIND, {"content": _name(content)}).fetchall()
        return [Delivery(media, caller.lower(), *rest) for media, caller, *rest in found]

    def untold(self, contents: Sequence[ContentId]) -> list[ContentId]:
        """Those about which `tell` was not called, in their order."""
        names = b"".join(map(_name, contents))
        with self._file.transaction() as connection:
            found = connection.execute(_UNTOLD, {"rows": json.dumps([0] * len(contents)), "names": names})
            return [contents[key] for (key,) in found]

    def tell(self, contents: Sequence[ContentId]) -> None:
        """Their deliveries are in the outbox."""
        today = _day(self._clock())
        with self._file.transaction() as connection:
            rows = [(_name(content), today) for content in contents]
            connection.executemany("INSERT OR IGNORE INTO told VALUES (?, ?)", rows)

    def since(self) -> str | None:
        """The first day that it knows of, RFC 3339 in UTC."""
        with self._file.transaction() as connection:
            [(day,)] = connection.execute(_FIRST_DAY).fetchall()
        return None if day is None else datetime.fromtimestamp(day * _DAY, UTC).isoformat()

    def replica(self) -> str:
        """Names this file, and so this replica, for good."""
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO replica SELECT ? WHERE NOT EXISTS (SELECT 1 FROM replica)", (token_hex(8),)
            )
            [(name,)] = connection.execute("SELECT name FROM replica").fetchall()
        return str(name)

    def close(self) -> None:
        """Nothing is lost by not calling it."""
        self._file.close()

    def remove(self) -> None:
        """All that was ever noted. Raises OSError."""
        self._file.remove()

    def _sort_in(self, connection: sqlite3.Connection) -> None:
        """What is recent, once it is much or of another day."""
        newest, first_day = connection.execute(
            "SELECT (SELECT max(rowid) FROM recent), (SELECT day FROM recent LIMIT 1)"
        ).fetchone()
        if newest >= _MOST_RECENT or first_day != _day(self._clock()):
            connection.execute(_SORT_IN)
            connection.execute("DELETE FROM recent")

    def _prune(self, connection: sqlite3.Connection) -> None:
        oldest = _day(self._clock() - self._retention)
        for table in ("deliveries", "told"):
            connection.execute(f"DELETE FROM {table} WHERE day < ?", (oldest,))  # noqa: S608 - a constant
        if _size(connection) > self._largest:
            connection.execute("DELETE FROM deliveries WHERE day = (SELECT min(day) FROM deliveries)")


def _size(connection: sqlite3.Connection) -> int:
    """Bytes in use; what was deleted is used again, and not given back."""
    with closing(connection.cursor()) as cursor:
        names = ("page_count", "freelist_count", "page_size")
        pages, free, size = (cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)


def _day(seconds: float) -> int:
    return int(seconds // _DAY)


def _name(keyed_hash: bytes) -> bytes:
    return keyed_hash[:_NAME_BYTES]
