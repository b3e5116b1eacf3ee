"""Holds and deletions, as the store lists them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from scanner.ports import Stored
from scanner.quarantine.markers import Marker, Marking, is_held, new_marker

SHA256 = "ab" * 32
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def marker(what: Marking, at: datetime = AT, stored: float = 0.0) -> Marker:
    key, content = new_marker(SHA256, what, by="alice", reason="why", at=at, nonce="01234567")
    found = Marker.of(Stored(key, len(content), stored))
    assert found is not None
    return found


def test_its_name_says_what_and_when_and_its_content_who_and_why() -> None:
    key, content = new_marker(SHA256, Marking.HOLD, by="alice", reason="a case", at=AT, nonce="89abcdef01")
    found = Marker.of(Stored(key, 1, 2.0))
    assert found == Marker(key, SHA256, Marking.HOLD, AT, 2.0)
    assert key.endswith("-hold-89abcdef.json")
    assert json.loads(content).items() >= {"by": "alice", "reason": "a case", "sha256": SHA256}.items()


def test_it_stays_under_two_kilobytes_whatever_is_said() -> None:
    _, content = new_marker(
        SHA256, Marking.DELETE, by="\U0001f600" * 999, reason="\U0001f600" * 999, at=AT, nonce="0" * 8
    )
    assert len(content) < 2048


@pytest.mark.parametrize(
    "key",
    [
        "v1/markers/x/20261121T120000.000000Z-hold-01234567.json",
        f"v1/markers/{SHA256}/20261121T120000.000000Z-steal-01234567.json",
        f"v1/markers/{SHA256}/20261399T120000.000000Z-hold-01234567.json",
        f"v1/markers/{SHA256}/../20261121T120000.000000Z-hold-01234567.json",
    ],
)
def test_what_has_no_such_name_is_no_marker(key: str) -> None:
    assert Marker.of(Stored(key, 1, 0.0)) is None


def test_the_last_one_counts_by_the_clock_of_the_store() -> None:
    slow_clock = AT - timedelta(days=1)
    assert not is_held([])
    assert is_held([marker(Marking.HOLD)])
    assert not is_held([marker(Marking.HOLD, AT, 10.0), marker(Marking.UNHOLD, slow_clock, 20.0)])
    assert is_held([marker(Marking.UNHOLD, AT, 10.0), marker(Marking.HOLD, slow_clock, 20.0)])


def test_within_a_second_the_clock_of_the_workstation_decides() -> None:
    later = AT + timedelta(milliseconds=300)
    assert not is_held([marker(Marking.UNHOLD, later, 10.2), marker(Marking.HOLD, AT, 10.0)])


def test_a_deletion_says_nothing_of_a_hold() -> None:
    assert is_held([marker(Marking.HOLD, AT, 1.0), marker(Marking.DELETE, AT, 9.0)])
