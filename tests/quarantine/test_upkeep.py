"""What a purge would delete."""

from __future__ import annotations

from datetime import datetime, timedelta

from scanner.ports import Stored
from scanner.quarantine.actions import Kind, Signed
from scanner.quarantine.catalogue import Entry, SealedSample, fold
from scanner.quarantine.markers import Marker
from scanner.quarantine.upkeep import Plan, purge_plan
from tests.quarantine.people import marker, signed, statement
from tests.quarantine.stock import NOW, a_record, digest, record_key, sample_key

CUTOFF = NOW - timedelta(days=90)
OLD, NEW = CUTOFF - timedelta(days=1), CUTOFF + timedelta(days=1)


def detected(at: datetime, media: str = "mxc://a.org/1") -> Entry:
    record = a_record(at=at, media=media)
    return Entry.parse(record_key(record), record.to_json())


def stored(at: datetime) -> SealedSample:
    sample = SealedSample.of(Stored(sample_key(b"sample"), 158, at.timestamp()))
    assert sample is not None
    return sample


def plan(entries: list[Entry], samples: list[SealedSample], markers: list[Marker] | None = None) -> Plan:
    return purge_plan(fold(entries, samples, markers or []), CUTOFF)


def test_what_was_stored_and_last_seen_before_goes() -> None:
    entry, sample = detected(OLD), stored(OLD)
    found = plan([entry], [sample])
    assert (found.samples, found.records, found.size, found.held) == ((sample.key,), (entry.key,), 158, 0)
    assert found.gone == [digest(b"sample")]


def test_what_is_new_stays() -> None:
    assert plan([detected(NEW)], [stored(NEW)]) == Plan((), (), (), 0)


def test_a_sample_that_was_seen_again_stays_and_its_old_records_go() -> None:
    old = detected(OLD)
    found = plan([old, detected(NEW, "mxc://a.org/2")], [stored(OLD)])
    assert (found.samples, found.records, found.gone) == ((), (old.key,), [])


def test_a_sample_that_was_stored_again_stays() -> None:
    assert plan([detected(OLD)], [stored(NEW)]).samples == ()


def test_a_sample_without_a_record_goes_by_its_own_age() -> None:
    assert plan([], [stored(OLD)]).samples == (sample_key(b"sample"),)
    assert plan([], [stored(NEW)]).samples == ()


def test_what_is_held_stays_whatever_its_age_and_is_counted() -> None:
    hold = marker(signed(Kind.HOLD, sha256=digest(b"sample")))
    assert plan([detected(OLD)], [stored(OLD)], [hold]) == Plan((), (), (), 1)


def test_a_hold_that_nobody_signed_holds_nothing() -> None:
    hold = marker(Signed(statement(Kind.HOLD, sha256=digest(b"sample")), ""))
    assert plan([detected(OLD)], [stored(OLD)], [hold]).held == 0
