"""Deliveries of the last days, on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from scanner.errors import StoreError
from scanner.quarantine import delivery_log as log_module
from scanner.quarantine.delivery_log import DeliveryLog, Noted, Times
from scanner.quarantine.delivery_records import Delivery
from scanner.verdict import ContentId

DAY = 86400.0
NOW = 20_000 * DAY + 3600
CONTENT, OTHER = ContentId(b"c" * 32), ContentId(b"o" * 32)
ALICE, BOB = b"a" * 32, b"b" * 32
MXC = "mxc://example.org/abc"


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[DeliveryLog]:
    log = DeliveryLog(tmp_path / "deliveries.sqlite", 30 * DAY, clock=clock)
    yield log
    log.close()


def given(
    log: DeliveryLog, at: float, content: ContentId = CONTENT, caller: bytes = ALICE, media: str = MXC
) -> None:
    log.append({Noted(content, media, caller): Times(at, at)})


def test_deliveries_of_all_days_are_one_for_each_caller_and_media(log: DeliveryLog) -> None:
    given(log, NOW - 9 * DAY)
    given(log, NOW - 2 * DAY, caller=BOB)
    given(log, NOW - 8)
    given(log, NOW - 4)
    given(log, NOW - 4, content=OTHER)
    given(log, NOW - 3, media="mxc://example.org/other")
    assert log.find(CONTENT) == [
        Delivery(MXC, ALICE[:16].hex(), NOW - 9 * DAY, NOW - 4, 3),
        Delivery(MXC, BOB[:16].hex(), NOW - 2 * DAY, NOW - 2 * DAY, 1),
        Delivery("mxc://example.org/other", ALICE[:16].hex(), NOW - 3, NOW - 3, 1),
    ]


def test_an_empty_log_knows_nobody(log: DeliveryLog) -> None:
    assert log.find(CONTENT) == []
    assert log.since() is None


def test_what_is_older_than_the_retention_is_forgotten(log: DeliveryLog, clock: Clock) -> None:
    given(log, NOW)
    log.tell([CONTENT])
    clock.now = NOW + 30 * DAY
    given(log, clock.now, content=OTHER)
    assert log.find(CONTENT)
    assert log.since() == "2024-10-04T00:00:00+00:00"
    clock.now += DAY
    given(log, clock.now, content=OTHER)
    assert log.find(CONTENT) == []
    assert log.untold([CONTENT]) == [CONTENT]


def test_the_oldest_day_goes_where_there_is_no_room(tmp_path: Path) -> None:
    log = DeliveryLog(tmp_path / "small.sqlite", 30 * DAY, largest=200_000, clock=Clock())
    for day in range(10, 0, -1):
        log.append(
            {
                Noted(CONTENT, f"{MXC}{day}-{number}", ALICE): Times(NOW - day * DAY, NOW)
                for number in range(300)
            }
        )
    kept = {delivery.media.removeprefix(MXC).partition("-")[0] for delivery in log.find(CONTENT)}
    assert "1" in kept
    assert 1 < len(kept) < 10
    assert "10" not in kept
    log.close()


def test_what_was_told_is_known_for_good(log: DeliveryLog, tmp_path: Path) -> None:
    assert log.untold([CONTENT, OTHER]) == [CONTENT, OTHER]
    log.tell([CONTENT])
    log.tell([CONTENT, CONTENT])
    log.close()
    assert log.untold([CONTENT, OTHER]) == [OTHER]
    assert log.untold([]) == []


def test_a_replica_keeps_its_name(log: DeliveryLog, tmp_path: Path) -> None:
    name = log.replica()
    log.close()
    assert log.replica() == name
    assert DeliveryLog(tmp_path / "other.sqlite", DAY).replica() != name


def test_neither_contents_nor_callers_stand_there_in_clear(log: DeliveryLog, tmp_path: Path) -> None:
    given(log, NOW)
    log.close()
    stored = (tmp_path / "deliveries.sqlite").read_bytes()
    assert bytes(CONTENT) not in stored
    assert ALICE not in stored


def test_a_content_is_found_without_looking_at_the_others(log: DeliveryLog, tmp_path: Path) -> None:
    given(log, NOW)
    log.close()
    explain = f"EXPLAIN QUERY PLAN {log_module._FIND}"  # noqa: SLF001 - the query itself is the matter
    with closing(sqlite3.connect(tmp_path / "deliveries.sqlite")) as connection:
        plan = [row[3] for row in connection.execute(explain, {"content": b""})]
        first = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {log_module._FIRST_DAY}")]  # noqa: SLF001 - likewise
    assert "SEARCH deliveries USING PRIMARY KEY" in first
    assert any("USING PRIMARY KEY (day=? AND content=?)" in step for step in plan)
    assert not any(step == "SCAN deliveries" for step in plan)


def test_a_file_that_cannot_be_used_is_an_error_of_one_kind(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        given(DeliveryLog(tmp_path / "none" / "deliveries.sqlite", DAY), NOW)


def test_many_recent_ones_are_sorted_in_and_found_all_the_same(
    log: DeliveryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_MOST_RECENT", 4)
    for second in range(7):
        given(log, NOW + second)
    assert log.find(CONTENT) == [Delivery(MXC, ALICE[:16].hex(), NOW, NOW + 6, 7)]
    assert log.since() == "2024-10-04T00:00:00+00:00"
    log.close()
    with closing(sqlite3.connect(tmp_path / "deliveries.sqlite")) as connection:
        assert connection.execute("SELECT count FROM deliveries").fetchall() == [(4,)]
        assert connection.execute("SELECT count(*) FROM recent").fetchall() == [(3,)]


def test_a_new_day_sorts_the_last_one_in(log: DeliveryLog, tmp_path: Path, clock: Clock) -> None:
    given(log, NOW)
    clock.now += DAY
    given(log, clock.now)
    given(log, clock.now)
    assert log.find(CONTENT) == [Delivery(MXC, ALICE[:16].hex(), NOW, NOW + DAY, 3)]
    log.close()
    with closing(sqlite3.connect(tmp_path / "deliveries.sqlite")) as connection:
        assert connection.execute("SELECT count FROM deliveries").fetchall() == [(1,), (1,)]
        assert connection.execute("SELECT count(*) FROM recent").fetchall() == [(1,)]
