from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.verdict import (
    Category,
    ContentId,
    Decision,
    Detection,
    Hashes,
    IndexSecret,
    Outcome,
    Override,
    Policy,
    Reason,
    Report,
    Verdict,
    located,
    verdict_key,
)

SECRET = b"the index secret, 32 bytes long."
CONTENT = ContentId(b"c" * 32)

SEVERITY = [
    Outcome.CLEAN,
    Outcome.OPAQUE,
    Outcome.UNSCANNABLE,
    Outcome.FAILED,
    Outcome.FORBIDDEN,
    Outcome.INFECTED,
]

reports = st.builds(
    Report,
    engine=st.text(),
    outcome=st.sampled_from(Outcome),
    version=st.none() | st.text(),
    reason=st.none() | st.sampled_from(Reason),
    detections=st.lists(st.builds(Detection, st.text()), max_size=3).map(tuple),
)
verdicts = st.builds(
    Verdict,
    reports=st.lists(reports, max_size=4).map(tuple),
    judged_at=st.floats(allow_nan=False, allow_infinity=False),
    mime_type=st.text(),
    hashes=st.none() | st.builds(Hashes, st.text(), st.text(), st.text()),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def verdict_of(*outcomes: Outcome, reason: Reason | None = None) -> Verdict:
    return Verdict(tuple(Report(f"e{i}", outcome, "1", reason) for i, outcome in enumerate(outcomes)))


# -- what it adds up to --------------------------------------------------------------------------


def test_no_report_at_all_is_a_failure_and_is_not_conclusive() -> None:
    assert Verdict(()).outcome is Outcome.FAILED
    assert not Verdict(()).conclusive


@pytest.mark.parametrize("outcomes", [*itertools.product(Outcome, repeat=3)])
def test_worst_outcome_wins_whatever_the_order(outcomes: tuple[Outcome, ...]) -> None:
    assert verdict_of(*outcomes).outcome is max(outcomes, key=SEVERITY.index)


@pytest.mark.parametrize("other", Outcome)
def test_verdict_is_inconclusive_if_any_engine_failed_whatever_the_others_found(other: Outcome) -> None:
    assert not verdict_of(Outcome.FAILED, other).conclusive
    assert verdict_of(other).conclusive is (other is not Outcome.FAILED)


def test_versions_are_known_only_if_every_engine_is_certain_of_its_own() -> None:
    certain, uncertain = Report("a", Outcome.CLEAN, "1"), Report("b", Outcome.CLEAN)
    assert Verdict((certain,)).versions == {"a": "1"}
    assert Verdict((certain, uncertain)).versions is None


def test_two_reports_of_one_engine_have_no_versions() -> None:
    """One of the two versions would be lost, and the verdict recalled where only the other is in force."""
    assert Verdict((Report("a", Outcome.CLEAN, "1"), Report("a", Outcome.CLEAN, "2"))).versions is None


def test_versions_are_certain_only_if_what_is_inside_was_judged_by_those_that_judged_the_whole() -> None:
    whole = Report("a", Outcome.CLEAN, "1")
    inside = Report("b", Outcome.CLEAN, "7", asked=frozenset({("a", "1")}))
    assert Verdict((whole, inside)).versions == {"a": "1", "b": "7"}
    for others in ({("a", "2")}, {("a", None)}, {("a", "1"), ("a", "2")}, {("c", "1")}):
        assert Verdict((whole, replace(inside, asked=frozenset(others)))).versions is None


# -- detections ----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.text())
def test_signature_name_is_harmless_wherever_it_is_printed(name: str) -> None:
    signature = Detection(name).signature
    assert 1 <= len(signature) <= 128
    assert set(signature) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert Detection(signature).signature == signature, "a name that was stored comes back as it was"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Win.Trojan.Agent-1", "Win.Trojan.Agent-1"),
        ("Evil\n", "Evil_xa_"),
        ("\x1b[2J", "_x1b__x5b_2J"),
        ("=cmd()", "_x3d_cmd_x28__x29_"),
        ("\u202eexe", "_x202e_exe"),
        ("\u0661", "_x661_"),
        ("", "unnamed"),
        ("a" * 129, "a" * 128),
    ],
)
def test_hostile_signature_name_is_escaped(name: str, shown: str) -> None:
    assert Detection(name).signature == shown


@pytest.mark.parametrize(
    ("signature", "category"),
    [
        ("Eicar-Test-Signature", Category.TEST),
        ("Win.Test.EICAR_HDB-1", Category.TEST),
        ("Win.Ransomware.WannaCry-1", Category.RANSOMWARE),
        ("Html.Phishing.Bank-1", Category.PHISHING),
        ("Heuristics.Phishing.Email", Category.PHISHING),
        ("Win.Exploit.CVE_2017_0144-1", Category.EXPLOIT),
        ("Doc.Dropper.Agent-1", Category.MACRO),
        ("PUA.Win.Packer.Upx-1", Category.PUA),
        ("Heuristics.Broken.Executable", Category.HEURISTIC),
        ("Win.Trojan.Agent-1", Category.TROJAN),
        ("Unix.Worm.Contest-1", Category.OTHER),
    ],
)
def test_category_is_read_from_the_signature_name(signature: str, category: Category) -> None:
    assert Detection(signature).category is category


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_a_name_in_an_archive_is_harmless_wherever_it_is_shown(names: list[bytes]) -> None:
    found = Detection("x")
    for name in names:
        found = found.inside(name)
    assert found.path.isprintable()
    assert not found.path.startswith("/")
    assert ".." not in found.path.split("/")
    assert Detection("x", found.path) == found, "a path that was told comes back as it was"


def test_a_path_leads_through_all_archives_and_keeps_its_end() -> None:
    assert Detection("x").inside(b"evil").inside(b"").inside(b"b.tar").path == "b.tar/evil"
    assert len(long := Detection("x").inside(b"e" * 3000).inside(b"b").path) == 1000
    assert long.startswith("...e")


def test_paths_are_kept_by_nobody_and_printed_by_no_accident() -> None:
    found = Detection("Eicar").inside(b"secret plan.pdf")
    reports = (Report("archive", Outcome.INFECTED, "1", Reason.MALWARE, (found, Detection("Eicar"))),)
    verdict = Verdict(reports)
    assert "secret" not in repr(verdict)
    assert "secret" not in verdict.to_json()
    assert verdict.without_paths().detections == (Detection("Eicar"),)
    plain = verdict.without_paths()
    assert plain.without_paths() is plain


def test_each_finding_is_told_once_and_with_its_place() -> None:
    placed, other = Detection("a").inside(b"x"), Detection("b")
    assert located((Detection("a"), placed, other, placed, other)) == (placed, other)


# -- stored --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(verdicts)
def test_verdict_survives_json(verdict: Verdict) -> None:
    assert Verdict.from_json(verdict.to_json()) == verdict


@settings(deadline=None)
@given(json_values)
def test_reading_anything_else_raises_one_of_three_errors(value: object) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Verdict.from_json(json.dumps(value))


@settings(deadline=None)
@given(st.sampled_from(["reports", "judged_at", "mime_type", "hashes"]), verdicts)
def test_member_that_is_missing_raises_key_error(member: str, verdict: Verdict) -> None:
    stored = json.loads(verdict.to_json())
    del stored[member]
    with pytest.raises(KeyError):
        Verdict.from_json(json.dumps(stored))


def test_stored_outcome_that_does_not_exist_is_not_read_as_clean() -> None:
    text = verdict_of(Outcome.CLEAN).to_json()
    for invented in ('"clean"', '"OK"', "0", "null"):
        with pytest.raises((KeyError, TypeError)):
            Verdict.from_json(text.replace('"CLEAN"', invented))


# -- names ---------------------------------------------------------------------------------------


def test_index_secret_shows_nothing_of_itself() -> None:
    secret = IndexSecret(SECRET)
    shown = f"{secret} {secret!r} {[secret]} {secret.content(b'')!r}"
    assert SECRET.decode() not in shown
    assert SECRET.hex() not in shown
    assert not hasattr(secret, "__dict__")
    assert repr(copy.copy(secret)) == "<IndexSecret>"


def test_content_id_depends_on_the_secret() -> None:
    assert IndexSecret(SECRET).content(b"h" * 32) != IndexSecret(bytes(32)).content(b"h" * 32)
    assert IndexSecret(SECRET).content(b"h" * 32) == IndexSecret(SECRET).content(b"h" * 32)


def test_callers_are_told_apart_and_not_named() -> None:
    index = IndexSecret(SECRET)
    assert index.caller("Bearer alice") == index.caller("Bearer alice") != index.caller("Bearer bob")
    assert index.caller("Bearer alice") != IndexSecret(bytes(32)).caller("Bearer alice")
    assert b"alice" not in index.caller("Bearer alice")


def test_alias_is_never_a_content_id() -> None:
    index = IndexSecret(SECRET)
    assert bytes(index.alias("a.org", "id", b"key")) != bytes(index.content(b"a.org/id\0key"))


def test_alias_tells_origin_media_id_and_attachment_apart() -> None:
    index = IndexSecret(SECRET)
    parts = [
        ("a.org", "id", b"key"),
        ("a.org", "idk", b"ey"),
        ("a.or", "gid", b"key"),
        ("a.org", "id2", b"key"),
    ]
    parts += [("a.org", "id", b"\0key"), ("b.org", "id", b"key"), ("a.org", "id", b"kez")]
    assert len({index.alias(*part) for part in parts}) == len(parts)


def test_verdict_key_changes_with_every_engine_and_version_and_not_with_their_order() -> None:
    keys = [
        verdict_key(CONTENT, {}),
        verdict_key(CONTENT, {"a": "1"}),
        verdict_key(CONTENT, {"a": "2"}),
        verdict_key(CONTENT, {"b": "1"}),
        verdict_key(CONTENT, {"a": "1", "b": "1"}),
        verdict_key(CONTENT, {"a": '1"], ["b", "1'}),
        verdict_key(ContentId(b"d" * 32), {"a": "1"}),
        verdict_key(CONTENT, {"a": "1"}, keyless=True),
    ]
    assert len(set(keys)) == len(keys)
    assert verdict_key(CONTENT, {"b": "2", "a": "1"}) == verdict_key(CONTENT, {"a": "1", "b": "2"})


# -- the policy ----------------------------------------------------------------------------------

OPEN = Policy(deliver_encrypted_archives=True, deliver_encrypted_documents=True, deliver_unscannable=True)
CLOSED = Policy()
unscannable = [
    *(Reason.LIMIT, Reason.TIME_LIMIT, Reason.DAMAGED, Reason.AMBIGUOUS, Reason.READERS_DISAGREE),
    None,
]


def decide(policy: Policy, *found: tuple[Outcome, Reason | None]) -> Decision:
    return policy.decide(Verdict(tuple(Report(f"e{i}", o, "1", r) for i, (o, r) in enumerate(found))))


@pytest.mark.parametrize("policy", [OPEN, CLOSED])
def test_clean_is_delivered(policy: Policy) -> None:
    assert decide(policy, (Outcome.CLEAN, None)) == Decision(deliver=True, outcome=Outcome.CLEAN)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.FORBIDDEN, Outcome.INFECTED])
@pytest.mark.parametrize("reason", [*Reason, None])
def test_failed_forbidden_and_infected_are_withheld_under_every_policy_that_enforces(
    outcome: Outcome, reason: Reason | None
) -> None:
    for policy in (OPEN, CLOSED):
        for other in Outcome:
            assert not decide(policy, (other, None), (outcome, reason)).deliver


def test_nothing_judged_is_withheld_under_every_policy_that_enforces() -> None:
    assert decide(OPEN) == Decision(deliver=False, outcome=Outcome.FAILED)


@pytest.mark.parametrize(
    ("policy", "delivered"),
    [
        (Policy(deliver_encrypted_archives=True), [Reason.ENCRYPTED_ARCHIVE]),
        (Policy(deliver_encrypted_documents=True), [Reason.ENCRYPTED_DOCUMENT]),
        (Policy(deliver_unscannable=True), unscannable),
        (CLOSED, []),
        (OPEN, [Reason.ENCRYPTED_ARCHIVE, Reason.ENCRYPTED_DOCUMENT, *unscannable]),
    ],
)
def test_each_kind_of_unscannable_has_a_switch_of_its_own(
    policy: Policy, delivered: list[Reason | None]
) -> None:
    for reason in (Reason.ENCRYPTED_ARCHIVE, Reason.ENCRYPTED_DOCUMENT, *unscannable):
        decision = decide(policy, (Outcome.CLEAN, None), (Outcome.UNSCANNABLE, reason))
        assert decision == Decision(reason in delivered, Outcome.UNSCANNABLE, reason)


def test_one_withheld_reason_is_enough_and_is_the_one_named() -> None:
    found = ((Outcome.UNSCANNABLE, Reason.ENCRYPTED_ARCHIVE), (Outcome.UNSCANNABLE, Reason.DAMAGED))
    policy = Policy(deliver_encrypted_archives=True)
    for order in (found, found[::-1]):
        assert decide(policy, *order) == Decision(
            deliver=False, outcome=Outcome.UNSCANNABLE, reason=Reason.DAMAGED
        )


def test_every_reason_of_one_report_has_to_be_delivered() -> None:
    both = (Reason.ENCRYPTED_ARCHIVE, Reason.ENCRYPTED_DOCUMENT)
    for first, second in (both, both[::-1]):
        verdict = Verdict((Report("archive", Outcome.UNSCANNABLE, "1", first, also=frozenset({second})),))
        assert OPEN.decide(verdict).deliver
        assert CLOSED.decide(verdict).reason is first
        for policy, withheld in (
            (Policy(deliver_encrypted_archives=True), Reason.ENCRYPTED_DOCUMENT),
            (Policy(deliver_encrypted_documents=True), Reason.ENCRYPTED_ARCHIVE),
        ):
            assert policy.decide(verdict) == Decision(False, Outcome.UNSCANNABLE, withheld)
        assert Verdict.from_json(verdict.to_json()) == verdict


def test_a_verdict_from_before_there_were_several_reasons_is_read() -> None:
    report = '["e", "UNSCANNABLE", "1", "limit", []]'
    old = f'{{"reports": [{report}], "judged_at": 1.0, "mime_type": "a/b", "hashes": null}}'
    assert Verdict.from_json(old).reports == (Report("e", Outcome.UNSCANNABLE, "1", Reason.LIMIT),)


def test_decision_names_the_reason_of_the_worst_report() -> None:
    decision = decide(
        CLOSED,
        (Outcome.UNSCANNABLE, Reason.LIMIT),
        (Outcome.INFECTED, Reason.MALWARE),
        (Outcome.FAILED, Reason.ENGINE_TIMEOUT),
    )
    assert decision == Decision(deliver=False, outcome=Outcome.INFECTED, reason=Reason.MALWARE)


# -- analysts ------------------------------------------------------------------------------------

ALLOW = Override(allow=True, reason="a false positive", author="alice", expires=1e12)
DENY = replace(ALLOW, allow=False)


def overruled(policy: Policy, outcome: Outcome, override: Override, *, upload: bool = False) -> Decision:
    return policy.decide(Verdict((Report("e", outcome, "1"),)), override, upload=upload)


@pytest.mark.parametrize("found", [Outcome.INFECTED, Outcome.FORBIDDEN])
def test_what_an_analyst_allows_is_withheld_where_another_engine_did_not_judge_it(found: Outcome) -> None:
    failed = Report("other", Outcome.FAILED, reason=Reason.ENGINE_TIMEOUT)
    decision = Policy().decide(Verdict((Report("e", found, "1"), failed)), ALLOW)
    assert decision == Decision(deliver=False, outcome=Outcome.FAILED, reason=Reason.ENGINE_TIMEOUT)


@pytest.mark.parametrize("policy", [OPEN, CLOSED])
@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.FAILED}))
@pytest.mark.parametrize("upload", [False, True])
def test_what_an_analyst_allows_is_delivered_whatever_was_found(
    policy: Policy, outcome: Outcome, *, upload: bool
) -> None:
    decision = overruled(policy, outcome, ALLOW, upload=upload)
    assert (decision.deliver, decision.approved, decision.outcome) == (True, True, Outcome.CLEAN)
    assert decision.override == (None if outcome is Outcome.CLEAN else ALLOW)


def test_what_was_not_judged_is_delivered_on_nobodys_word() -> None:
    assert overruled(OPEN, Outcome.FAILED, ALLOW) == decide(OPEN, (Outcome.FAILED, None))
    assert not OPEN.decide(Verdict(()), ALLOW).deliver


@pytest.mark.parametrize("policy", [OPEN, CLOSED])
@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.INFECTED}))
def test_what_an_analyst_denies_is_withheld_whatever_was_found(policy: Policy, outcome: Outcome) -> None:
    assert overruled(policy, outcome, DENY) == Decision(
        deliver=False, outcome=Outcome.FORBIDDEN, reason=Reason.DENIED, override=DENY
    )


def test_denied_malware_stays_malware() -> None:
    assert overruled(CLOSED, Outcome.INFECTED, DENY) == decide(CLOSED, (Outcome.INFECTED, None))


def test_observing_hands_over_what_is_denied_and_says_so() -> None:
    decision = overruled(Policy(observe=True), Outcome.CLEAN, DENY)
    assert (decision.deliver, decision.observed, decision.reason) == (True, True, Reason.DENIED)


# -- observing -----------------------------------------------------------------------------------


@given(verdicts, st.booleans())
def test_observing_delivers_everything_and_says_what_enforcing_would(verdict: Verdict, lenient: bool) -> None:
    enforcing = OPEN if lenient else CLOSED
    observed = replace(enforcing, observe=True).decide(verdict)
    enforced = enforcing.decide(verdict)
    assert observed.deliver
    assert observed.approved is enforced.deliver is enforced.approved
    assert (observed.outcome, observed.reason) == (enforced.outcome, enforced.reason)
    assert observed.observed is not enforced.deliver
    assert not enforced.observed


def test_observing_delivers_what_nobody_judged() -> None:
    decision = Policy(observe=True).decide(Verdict(()))
    assert decision == Decision(deliver=True, outcome=Outcome.FAILED, observed=True)


@pytest.mark.parametrize("upload", [True, False])
@pytest.mark.parametrize("delivered", ["uploads", "downloads", "neither"])
def test_what_is_opaque_is_judged_by_where_it_goes(delivered: str, *, upload: bool) -> None:
    policy = Policy(
        deliver_opaque_uploads=delivered == "uploads", deliver_opaque_downloads=delivered == "downloads"
    )
    decision = policy.decide(verdict_of(Outcome.CLEAN, Outcome.OPAQUE, reason=Reason.OPAQUE), upload=upload)
    assert decision.deliver is (delivered == ("uploads" if upload else "downloads"))
    assert (decision.outcome, decision.reason) == (Outcome.OPAQUE, Reason.OPAQUE)


@pytest.mark.parametrize("worse", SEVERITY[2:])
def test_opaque_is_never_what_something_worse_becomes(worse: Outcome) -> None:
    policy = Policy(deliver_opaque_uploads=True, deliver_opaque_downloads=True)
    assert not policy.decide(verdict_of(Outcome.OPAQUE, worse), upload=True).deliver
