"""Which statements count, and that nothing else does."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from scanner.metric_labels import ACTIONS, STANDINGS
from scanner.quarantine.actions import (
    LONGEST_REASON,
    NEVER,
    Approval,
    Filed,
    Kind,
    Role,
    Rules,
    Signed,
    Standing,
    without_repeats,
    words_on_contents,
)
from tests.quarantine.people import (
    ANALYSTS,
    FOUR_EYES,
    HOUR,
    MALLORY,
    SHA256,
    SIGNERS,
    STORE,
    TWO_EYES,
    approved,
    filed,
    signed,
    statement,
)

NOW = time.time()


def test_statement_of_an_analyst_counts() -> None:
    assert TWO_EYES.judge(filed(signed()), NOW) is Standing.APPROVED


def test_statement_and_approval_survive_json_and_are_small() -> None:
    what = signed(reason="x" * LONGEST_REASON, store="x" * 200)
    approval = approved(what, "bob")
    assert Signed.from_json(what.to_json()) == what
    assert Approval.from_json(approval.to_json()) == approval
    assert len(what.to_json()) < 2_048


# -- refused -------------------------------------------------------------------------------------


def test_expired_statement_is_refused_from_its_very_last_second() -> None:
    what = filed(signed())
    expires = what.signed.statement.expires if what.signed else 0
    assert TWO_EYES.judge(what, expires - 1) is Standing.APPROVED
    assert TWO_EYES.judge(what, expires) is Standing.EXPIRED


@pytest.mark.parametrize(
    "change",
    [
        {"action": Kind.ALLOW},
        {"sha256": "0" * 64},
        {"store": "elsewhere"},
        {"reason": "another"},
        {"author": "bob"},
        {"nonce": "0" * 32},
        {"issued": 1},
        {"expires": int(NOW) + 9 * HOUR},
    ],
    ids=lambda change: next(iter(change)),
)
def test_forged_statement_is_refused_whatever_was_changed(change: dict[str, object]) -> None:
    what = signed()
    forged = replace(what, statement=replace(what.statement, **change))  # type: ignore[arg-type]
    assert TWO_EYES.judge(filed(forged), NOW) is Standing.FORGED


def test_statement_under_a_strangers_key_or_in_a_strangers_name_is_refused() -> None:
    assert TWO_EYES.judge(filed(Signed.by(MALLORY, statement())), NOW) is Standing.FORGED
    stranger = Signed.by(MALLORY, statement(author="mallory"))
    assert TWO_EYES.judge(filed(stranger), NOW) is Standing.FORGED


def test_statement_of_somebody_who_left_is_refused() -> None:
    assert ANALYSTS["dave"].role is Role.FORMER
    assert TWO_EYES.judge(filed(signed(author="dave")), NOW) is Standing.FORGED


def test_statement_for_another_store_is_refused() -> None:
    other = Rules("https://s3.example.org/staging/", ANALYSTS)
    assert other.judge(filed(signed()), NOW) is Standing.OTHER_STORE


def test_statement_from_the_future_waits_but_for_what_clocks_differ() -> None:
    ahead = int(NOW) + 2 * HOUR
    what = filed(signed(issued=ahead, expires=ahead + HOUR))
    assert TWO_EYES.judge(what, NOW) is Standing.EARLY
    assert TWO_EYES.judge(what, ahead - 60) is Standing.APPROVED


def test_second_copy_under_another_name_is_refused() -> None:
    what = signed()
    assert TWO_EYES.judge(Filed("20261121T120000Z-00000000", what), NOW) is Standing.REPLAYED


def test_nonce_that_was_used_is_not_used_again_by_whoever_used_it() -> None:
    first, at = signed(Kind.DENY), int(NOW)
    nonce = first.statement.nonce
    again = signed(Kind.ALLOW, nonce=nonce, issued=at + 1)
    anothers = signed(Kind.ALLOW, nonce=nonce, author="bob", issued=at + 1)
    over = signed(Kind.DENY, nonce="0" * 32, issued=at - 9, expires=at - 1)
    after = signed(Kind.DENY, nonce="0" * 32)
    judged = TWO_EYES.judge_all(map(filed, (first, again, anothers, over, after)), NOW)
    assert [standing for _, standing in judged] == [
        *(Standing.APPROVED, Standing.REPLAYED, Standing.APPROVED, Standing.EXPIRED, Standing.REPLAYED)
    ]


def test_what_does_not_count_uses_no_nonce() -> None:
    genuine = filed(signed())
    refusals = set(Standing) - {Standing.APPROVED, Standing.EXPIRED}
    judged = [(genuine, standing) for standing in sorted(refusals)] + [(genuine, Standing.APPROVED)]
    assert [*without_repeats(judged)][-1] == (genuine, Standing.APPROVED)


def test_what_is_no_statement_is_refused() -> None:
    assert TWO_EYES.judge(filed(None), NOW) is Standing.MALFORMED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action", "destroy"),
        ("sha256", "A" * 64),
        ("sha256", "0" * 63),
        ("nonce", ""),
        ("reason", ""),
        ("reason", "x" * (LONGEST_REASON + 1)),
        ("author", "x" * 1_001),
        ("issued", -1),
        ("issued", 2**41),
        ("expires", 0),
        ("expires", 2**41),
        ("expires", NEVER + 1),
        ("expires", 1.5),
        ("version", 2),
        ("more", "x"),
    ],
)
def test_json_with_an_odd_member_is_no_statement(name: str, value: object) -> None:
    content = {**json.loads(signed().to_json()), name: value}
    data = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        Signed.from_json(data)


# -- four eyes -----------------------------------------------------------------------------------

NEED_TWO = [Kind.RELEASE, Kind.ALLOW, Kind.FORGET, Kind.DELETE, Kind.UNHOLD]


@pytest.mark.parametrize("kind", NEED_TWO)
def test_with_four_eyes_one_person_is_not_enough(kind: Kind) -> None:
    what = signed(kind)
    assert FOUR_EYES.judge(filed(what), NOW) is Standing.WAITING
    assert FOUR_EYES.judge(filed(what, approved(what, "bob")), NOW) is Standing.APPROVED


@pytest.mark.parametrize("kind", sorted(set(Kind) - set(NEED_TWO)))
def test_what_is_urgent_or_a_note_needs_one_person(kind: Kind) -> None:
    assert FOUR_EYES.judge(filed(signed(kind)), NOW) is Standing.APPROVED


def test_self_approved_statement_is_refused() -> None:
    what = signed(author="bob")
    assert FOUR_EYES.judge(filed(what, approved(what, "bob")), NOW) is Standing.SELF_APPROVED


def test_whoever_has_no_key_of_the_authors_makes_nobody_approve_himself() -> None:
    what = signed(author="bob")
    assert FOUR_EYES.judge(filed(what, approved(what, "bob", MALLORY)), NOW) is Standing.FORGED
    assert FOUR_EYES.unapproved().judge(filed(what, approved(what, "bob", MALLORY)), NOW) is Standing.APPROVED


def test_approval_under_the_authors_key_in_anothers_name_is_refused() -> None:
    what = signed()
    forged = approved(what, "bob", SIGNERS["alice"])
    assert FOUR_EYES.judge(filed(what, forged), NOW) is Standing.FORGED


def test_approval_of_another_statement_is_refused() -> None:
    what = signed()
    assert FOUR_EYES.judge(filed(what, approved(signed(), "bob")), NOW) is Standing.FORGED


def test_authors_signature_is_no_approval() -> None:
    what = signed(author="carol")
    reused = Approval("bob", what.signature)
    assert FOUR_EYES.judge(filed(what, reused), NOW) is Standing.FORGED


@pytest.mark.parametrize("by", ["alice", "dave", "mallory"])
def test_only_an_approver_approves(by: str) -> None:
    what = signed(author="carol")
    approval = approved(what, by, SIGNERS.get(by, MALLORY))
    assert FOUR_EYES.judge(filed(what, approval), NOW) is Standing.FORGED


def test_approval_that_counts_is_not_spoilt_by_what_others_put_beside_it() -> None:
    what = signed()
    beside = [approved(what, "alice"), approved(what, "carol", MALLORY), Approval("bob", "")]
    assert FOUR_EYES.judge(filed(what, *beside, approved(what, "bob")), NOW) is Standing.APPROVED


def test_approved_statement_expires_as_well() -> None:
    what = signed()
    both = filed(what, approved(what, "bob"))
    assert FOUR_EYES.judge(both, what.statement.expires) is Standing.EXPIRED


# -- what holds ----------------------------------------------------------------------------------


def test_last_word_on_a_content_holds_until_it_is_taken_back() -> None:
    at = int(NOW)
    words = [statement(kind, issued=at + n) for n, kind in enumerate([Kind.ALLOW, Kind.DENY, Kind.RELEASE])]
    assert words_on_contents(words)[SHA256].action is Kind.RELEASE
    assert words_on_contents(reversed(words))[SHA256].action is Kind.RELEASE
    assert words_on_contents(words[:2])[SHA256].action is Kind.DENY
    forgotten = statement(Kind.FORGET, issued=at + 9)
    assert words_on_contents([forgotten, *words]) == {}
    assert words_on_contents([*words, forgotten, statement(Kind.DENY, issued=at + 10)]).keys() == {SHA256}


def test_notes_are_no_words_on_a_content() -> None:
    assert words_on_contents([statement(kind) for kind in (Kind.HOLD, Kind.UNHOLD, Kind.DELETE)]) == {}


def test_contents_are_kept_apart() -> None:
    words = words_on_contents([statement(Kind.DENY), statement(Kind.FORGET, sha256="0" * 64)])
    assert words.keys() == {SHA256}


def test_names_sort_by_time_and_are_those_of_what_is_said() -> None:
    assert signed().id != signed().id
    assert signed(issued=1_000_000).id < signed(issued=1_000_001).id
    assert signed(issued=1_000_000).id.startswith("19700112T134640Z-")
    what = signed()
    assert Signed.from_json(what.to_json()).id == what.id


def test_author_is_known_by_the_key() -> None:
    assert TWO_EYES.author_of(SIGNERS["bob"].public_key) == ANALYSTS["bob"]
    assert TWO_EYES.author_of(MALLORY.public_key) is None
    assert TWO_EYES.store == STORE


def test_metrics_know_every_action_and_standing() -> None:
    assert set(ACTIONS) == {*Kind, "other"}
    assert set(STANDINGS) == set(Standing)
