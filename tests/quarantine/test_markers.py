"""Holds and deletions: signed, and what counts of them."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from scanner.quarantine.actions import NEVER, Approval, Kind, Rules, Signed, Standing
from scanner.quarantine.markers import Marker, content_of, counting, is_held, new_marker
from tests.quarantine.people import (
    ANALYSTS,
    FOUR_EYES,
    HOUR,
    MALLORY,
    NOBODY,
    SHA256,
    TWO_EYES,
    approved,
    marker,
    signed,
    statement,
)

NOW = int(time.time())


def test_its_name_says_when_and_what_and_nobody_knows_it_before() -> None:
    what = signed(Kind.HOLD, issued=1_000_000)
    key, content = new_marker(what)
    assert content_of(key) == SHA256
    assert "/19700112T134640Z-hold-" in key
    assert key != new_marker(what)[0]
    assert json.loads(content).items() >= {"author": "alice", "reason": "a false positive"}.items()


@pytest.mark.parametrize("letter", ["x", "\u00fc", "\0", "\U0001f600"])
def test_it_stays_under_two_kilobytes_whatever_is_said(letter: str) -> None:
    longest = 500
    while longest and not (what := _said(letter * longest)):
        longest -= 1
    assert longest >= 100
    assert what
    assert len(new_marker(what, Approval("b" * 64, approved(what, "bob").signature))[1]) < 2048


def _said(reason: str) -> Signed | None:
    try:
        return signed(Kind.DELETE, reason=reason, store="x" * 200)
    except ValueError:
        return None


@pytest.mark.parametrize(
    "key",
    ["v1/markers/x/a.json", f"v1/markers/{SHA256}/a", f"v1/markers/{SHA256}/../a.json", "v1/markers/readme"],
)
def test_what_has_no_such_name_is_no_marker(key: str) -> None:
    assert content_of(key) == ""


# -- which count ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.HOLD, Kind.UNHOLD, Kind.DELETE])
def test_one_that_an_analyst_signed_counts(kind: Kind) -> None:
    assert marker(signed(kind)).counts


def test_forged_ones_are_ignored() -> None:
    for forged in (
        Signed.by(MALLORY, statement(Kind.HOLD)),
        Signed(statement(Kind.HOLD), ""),
        Signed(statement(Kind.HOLD, reason="another"), signed(Kind.HOLD).signature),
        signed(Kind.UNHOLD, author="dave"),
    ):
        found = marker(forged)
        assert (found.counts, found.standing) == (False, Standing.FORGED)
        assert not is_held([found])


def test_one_for_another_store_is_ignored() -> None:
    assert marker(signed(Kind.HOLD), rules=Rules("another", ANALYSTS)).standing is Standing.OTHER_STORE


def test_one_that_lies_beside_another_content_is_ignored() -> None:
    _, content = new_marker(signed(Kind.HOLD))
    other = f"v1/markers/{'00' * 32}/x.json"
    assert Marker.read(other, content, TWO_EYES, NOW).standing is Standing.MALFORMED
    assert not Marker.read(other, content, NOBODY, NOW).counts


@pytest.mark.parametrize("kind", [Kind.RELEASE, Kind.ALLOW, Kind.DENY])
def test_other_statements_are_no_markers(kind: Kind) -> None:
    assert marker(signed(kind)).standing is Standing.MALFORMED


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff"])
def test_what_is_none_is_ignored_even_where_nobody_checks(data: bytes) -> None:
    found = Marker.read(new_marker(signed(Kind.HOLD))[0], data, NOBODY, NOW)
    assert (found.said, found.counts) == (None, False)


@pytest.mark.parametrize("kind", [Kind.UNHOLD, Kind.DELETE])
def test_with_four_eyes_a_hold_needs_one_signature_and_its_end_and_a_deletion_two(kind: Kind) -> None:
    assert marker(signed(Kind.HOLD), rules=FOUR_EYES).counts
    what = signed(kind)
    assert marker(what, rules=FOUR_EYES).standing is Standing.WAITING
    assert marker(what, approved(what, "bob"), FOUR_EYES).counts
    assert marker(what, Approval("bob", what.signature), FOUR_EYES).standing is Standing.FORGED
    own = signed(kind, author="bob")
    assert marker(own, approved(own, "bob"), FOUR_EYES).standing is Standing.SELF_APPROVED


def test_what_was_done_stays_so_when_its_approval_is_over_and_a_hold_ends_with_its_expiry() -> None:
    delete, unhold, hold = (
        signed(kind, issued=NOW - 2 * HOUR, expires=NOW - HOUR)
        for kind in (Kind.DELETE, Kind.UNHOLD, Kind.HOLD)
    )
    assert marker(delete).counts
    assert marker(unhold).counts
    assert marker(hold).standing is Standing.EXPIRED
    assert marker(replace_expiry(hold)).counts


def replace_expiry(what: Signed) -> Signed:
    return signed(Kind.HOLD, issued=what.statement.issued, expires=NEVER)


@pytest.mark.parametrize("kind", [Kind.HOLD, Kind.UNHOLD, Kind.DELETE])
def test_nobody_has_the_last_word_for_good_who_dates_it_far_ahead(kind: Kind) -> None:
    """Nothing could be said after it; clocks of workstations are wrong by minutes, or S3 refuses them."""
    for issued in (NOW + 25 * HOUR, NEVER - 1):
        ahead = signed(kind, issued=issued, expires=NEVER)
        assert marker(ahead, approved(ahead, "bob"), FOUR_EYES).standing is Standing.EARLY


def test_what_somebody_held_stays_held_when_he_leaves_and_the_rest_does_not_count() -> None:
    """A purge would delete evidence on the day on which he goes."""
    assert marker(signed(Kind.HOLD, author="dave")).counts
    for kind in (Kind.UNHOLD, Kind.DELETE):
        assert marker(signed(kind, author="dave")).standing is Standing.FORGED


def test_a_hold_by_a_clock_that_is_ahead_holds() -> None:
    assert marker(signed(Kind.HOLD, issued=NOW + 9 * HOUR, expires=NEVER)).counts


def test_where_nobody_is_listed_what_stands_there_is_believed() -> None:
    found = marker(Signed(statement(Kind.HOLD), ""), rules=NOBODY)
    assert (found.counts, found.standing) == (True, None)


# -- what they say -------------------------------------------------------------------------------


def test_the_last_one_counts_by_the_time_that_was_signed() -> None:
    hold, unhold = marker(signed(Kind.HOLD, issued=NOW)), marker(signed(Kind.UNHOLD, issued=NOW + 1))
    assert not is_held([])
    assert is_held([hold])
    assert not is_held([unhold, hold])
    assert is_held([marker(signed(Kind.HOLD, issued=NOW + 2)), unhold, hold])


def test_of_two_at_once_the_hold_counts() -> None:
    both = [marker(signed(kind, issued=NOW)) for kind in (Kind.HOLD, Kind.UNHOLD)]
    assert is_held(both)
    assert is_held(reversed(both))


def test_an_old_hold_that_is_put_again_holds_nothing() -> None:
    hold = signed(Kind.HOLD, issued=NOW)
    ended = [marker(hold), marker(signed(Kind.UNHOLD, issued=NOW + 1))]
    assert not is_held([*ended, marker(hold)])


def test_a_deletion_says_nothing_of_a_hold() -> None:
    markers = [marker(signed(Kind.HOLD)), marker(signed(Kind.DELETE, issued=NOW + 9))]
    assert is_held(markers)
    assert [said.action for said in counting(markers, Kind.DELETE)] == [Kind.DELETE]
    assert counting([replace(each, standing=Standing.FORGED) for each in markers], Kind.DELETE) == []
