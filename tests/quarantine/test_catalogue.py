"""Records, samples and markers, folded into contents; filters; what strangers write."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scanner.ports import Stored
from scanner.quarantine.actions import Kind, Rules
from scanner.quarantine.catalogue import Content, Entry, Query, SealedSample, State, day_of, fold
from scanner.quarantine.markers import Marker
from scanner.quarantine.records import DetectionRecord
from tests.quarantine.people import ANALYSTS, FOUR_EYES, TWO_EYES, marker, signed
from tests.quarantine.stock import NOW, SIGNATURE, a_record, digest, record_key, sample_key

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)


def entry(content: bytes = b"sample", **changes: Any) -> Entry:
    record = a_record(content, **changes)
    return Entry.parse(record_key(record), record.to_json())


def sealed(content: bytes = b"sample", stored: float = 1.0) -> SealedSample:
    sample = SealedSample.of(Stored(sample_key(content), 158, stored))
    assert sample is not None
    return sample


def marked(what: Kind, content: bytes = b"sample", rules: Rules = TWO_EYES) -> Marker:
    return marker(signed(what, sha256=digest(content)), rules=rules)


ELSEWHERE = Rules("another", ANALYSTS)

# -- states --------------------------------------------------------------------------------------

HASH_ONLY = entry(sample=None, missing="hash_only")
FULL = entry(sample=None, missing="not written", media="mxc://a.org/full")


@pytest.mark.parametrize(
    ("entries", "samples", "markers", "state"),
    [
        ([entry()], [sealed()], [], State.KEPT),
        ([entry()], [sealed()], [marked(Kind.HOLD)], State.HELD),
        ([entry()], [sealed()], [marked(Kind.HOLD), marked(Kind.DELETE)], State.HELD),
        ([], [sealed()], [], State.UNRECORDED),
        ([entry()], [], [], State.MISSING),
        ([entry()], [], [marked(Kind.DELETE)], State.DELETED),
        ([entry()], [sealed()], [marked(Kind.DELETE)], State.KEPT),
        ([entry()], [sealed()], [marked(Kind.HOLD, rules=ELSEWHERE)], State.KEPT),
        ([entry()], [], [marked(Kind.DELETE, rules=FOUR_EYES)], State.MISSING),
        ([HASH_ONLY], [], [], State.HASH_ONLY),
        ([HASH_ONLY, FULL], [], [], State.NOT_KEPT),
        ([HASH_ONLY, entry(media="mxc://a.org/b")], [], [], State.MISSING),
    ],
)
def test_state_is_what_became_of_the_sample(
    entries: list[Entry], samples: list[SealedSample], markers: list[Marker], state: State
) -> None:
    [content] = fold(entries, samples, markers)
    assert content.state is state


def test_all_detections_of_a_content_stand_together_the_newest_first() -> None:
    old = entry(at=NOW - timedelta(days=3), signatures=("Old.Name-1", SIGNATURE))
    new = entry(media="mxc://a.org/new")
    other = entry(b"other", at=NOW - timedelta(days=1))
    contents = fold([old, other, new], [sealed(), sealed(b"other")], [])
    assert [content.sha256 for content in contents] == [digest(b"sample"), digest(b"other")]
    assert contents[0].entries == (new, old)
    assert contents[0].seen == NOW
    assert contents[0].signatures == (SIGNATURE, "Old.Name-1")
    assert contents[0].last == new.record


def test_records_without_a_hash_are_not_taken_for_one_content() -> None:
    nameless = [entry(sha256="", sample=None, missing="x", media=f"mxc://a.org/{name}") for name in "ab"]
    assert [content.sha256 for content in fold(nameless, [], [])] == ["", ""]


def test_markers_of_what_is_gone_make_no_content() -> None:
    assert fold([], [], [marked(Kind.HOLD)]) == []


def test_a_sample_without_a_record_was_seen_when_it_was_stored() -> None:
    [content] = fold([], [sealed(stored=NOW.timestamp())], [])
    assert (content.seen, content.last, content.signatures) == (NOW, None, ())


# -- what strangers write ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "../../etc/passwd"},
        {"sha256": "AB" * 32},
        {"at": "yesterday"},
        {"at": "2026-11-21T12:00:00"},
        {"at": "0001-01-01T00:00:00+23:00"},
        {"at": 5},
        {"size": "5"},
        {"size": -1},
        {"size": 10**400},
        {"size": True},
        {"signatures": [1]},
        {"signatures": None},
        {"engines": ["clamav"]},
        {"engines": {"clamav": 1}},
        {"media": {}},
        {"source": None},
        {"encrypted": "no"},
        {"more": "x"},
    ],
)
def test_what_has_not_the_types_of_a_record_is_none(changes: dict[str, Any]) -> None:
    content = {**asdict(a_record()), **changes}
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        Entry.parse("v1/detections/2026/11/21/x.json", json.dumps(content).encode())


def test_deep_nesting_is_no_record() -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        DetectionRecord.from_json(b"[" * 100_000)


@pytest.mark.parametrize(
    "key",
    [
        "v1/objects/x",
        sample_key(b"a").replace("/sha256/", "/md5/"),
        f"{sample_key(b'a')}.exe",
        f"v1/objects/{'0' * 16}/sha256/00/00/{digest(b'a')}",
        f"v1/objects/{'0' * 16}/sha256/\x1b[/2J/\x1b[2J{'0' * 60}",
    ],
)
def test_what_has_no_samples_name_is_none(key: str) -> None:
    assert SealedSample.of(Stored(key, 1, 0.0)) is None


def test_the_day_of_a_record_is_in_its_name() -> None:
    assert day_of(entry().key) == MIDNIGHT
    assert day_of(entry().key.replace("/11/21/", "/13/21/")) is None
    assert day_of("v1/detections/2026/11/21/../x.json") is None


@pytest.mark.parametrize("day", ["0001/01/01", "9999/12/31"])
def test_a_day_beyond_the_calendar_is_none(day: str) -> None:
    assert day_of(entry().key.replace("2026/11/21", day)) is None


# -- filters -------------------------------------------------------------------------------------

ONE = entry(ciphertext_sha256="12" * 32)


@pytest.mark.parametrize(
    ("query", "admitted"),
    [
        (Query(), True),
        (Query(since=NOW), True),
        (Query(since=NOW + timedelta(seconds=1)), False),
        (Query(until=NOW), False),
        (Query(until=NOW + timedelta(seconds=1)), True),
        (Query(signature="win.*"), True),
        (Query(signature="*agent*"), True),
        (Query(signature="Win"), False),
        (Query(hash=digest(b"sample")), True),
        (Query(hash=digest(b"sample")[:6].upper()), True),
        (Query(hash=ONE.record.md5), True),
        (Query(hash=ONE.record.sha1[:10]), True),
        (Query(hash="1212"), True),
        (Query(hash="0000"), False),
        (Query(media="mxc://example.org/abc"), True),
        (Query(media="example.org/abc"), True),
        (Query(media="mxc://example.org/*"), True),
        (Query(media="example.org"), False),
        (Query(source="download"), True),
        (Query(source="upload"), False),
        (Query(signature="win.*", source="upload"), False),
    ],
)
def test_a_detection_is_found_by_each_filter(query: Query, admitted: bool) -> None:
    assert query.admits(ONE) is admitted
    assert bool([*query.select(fold([ONE], [], []))]) is admitted


def test_a_record_without_media_is_no_match_for_any() -> None:
    assert not Query(media="*").admits(entry(media=None))


@pytest.mark.parametrize(
    ("query", "days"),
    [
        (Query(since=NOW), [0, 1]),
        (Query(until=NOW), [-1, 0, 1]),
        (Query(since=NOW - timedelta(days=1), until=NOW - timedelta(hours=13)), [-1, 0]),
    ],
)
def test_records_of_other_days_need_not_be_read(query: Query, days: list[int]) -> None:
    assert [day for day in (-1, 0, 1) if query.admits_day(MIDNIGHT + timedelta(days=day))] == days


def test_of_a_content_only_what_is_meant_is_left() -> None:
    mine, others = entry(media="mxc://a.org/1"), entry(media="mxc://b.org/2")
    [content] = Query(media="a.org/*").select(fold([mine, others], [sealed()], []))
    assert content.entries == (mine,)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), 1),
        (Query(hash=digest(b"sample")[:4]), 1),
        (Query(hash="0000"), 0),
        (Query(source="scan"), 0),
    ],
)
def test_a_sample_without_a_record_is_found_by_its_hash_alone(query: Query, found: int) -> None:
    contents: list[Content] = fold([], [sealed()], [])
    assert len([*query.select(contents)]) == found
