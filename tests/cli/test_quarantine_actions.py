"""Releasing, and that it takes two where it takes two."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Kind
from scanner.quarantine.layout import action_key, approval_key
from tests.cli.command import refused
from tests.cli.office import Office
from tests.quarantine.people import SIGNERS, approved, signed
from tests.quarantine.stock import digest, put_sample

SAMPLE = b"a sample"
RELEASE = ("quarantine", "release", digest(SAMPLE)[:12], "--reason", "a false positive")


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """With four eyes, and a sample."""
    asyncio.run(put_sample(Office(tmp_path).store, SAMPLE))
    return Office(tmp_path, four_eyes=True)


def released(office: Office, by: str = "alice") -> str:
    """Its name."""
    told = office.told(*RELEASE, by=by)
    assert (told["action"], told["sha256"], told["waits_for_approval"]) == ("release", digest(SAMPLE), True)
    return str(told["id"])


def test_release_counts_once_a_colleague_approved(office: Office) -> None:
    name = released(office)
    assert office.standings() == {"release": "waiting"}
    done = office.run("quarantine", "approve", name, "--yes", by="bob")
    assert (done.returncode, done.stdout) == (0, f"{name}: approved\n")
    assert f"alice: release {digest(SAMPLE)}\n" in done.stderr
    assert "because: a false positive" in done.stderr
    assert office.standings() == {"release": "approved"}
    tail = [json.loads(line) for line in office.run("audit", "tail", "--json").stdout.splitlines()]
    assert [(each["author"], each["action"]) for each in tail] == [("alice", "release"), ("bob", "approve")]
    assert office.run("audit", "verify").returncode == 0


def test_release_counts_at_once_where_one_person_is_enough(office: Office, tmp_path: Path) -> None:
    alone = Office(tmp_path)
    assert not alone.told(*RELEASE, by="alice")["waits_for_approval"]
    assert alone.standings() == {"release": "approved"}
    name = json.loads(alone.run("verdict", "list", "--json").stdout)["id"]
    assert refused(alone.run("quarantine", "approve", name, "--yes", by="bob")) == "it needs no approval"


def test_nobody_approves_what_he_said_himself(office: Office) -> None:
    name = released(office, by="bob")
    said = refused(office.run("quarantine", "approve", name, "--yes", by="bob"))
    assert said == "you said this yourself: another person must approve it"
    assert office.standings() == {"release": "waiting"}


def test_only_an_approver_approves_and_only_once(office: Office) -> None:
    name = released(office, by="bob")
    said = refused(office.run("quarantine", "approve", name, "--yes", by="alice"))
    assert said == "--key: alice is no approver in quarantine.analysts"
    assert office.run("quarantine", "approve", name, "--yes", by="carol").returncode == 0
    assert office.run("quarantine", "approve", name, "--yes", by="carol").returncode == 2


def test_without_yes_somebody_must_be_there_to_be_asked(office: Office) -> None:
    done = office.run("quarantine", "approve", released(office), by="bob")
    assert done.returncode == 2
    assert done.stderr.endswith("nobody is there to be asked: say --yes\n")
    assert office.standings() == {"release": "waiting"}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (signed(store="elsewhere"), "is about another store"),
        (signed(author="dave"), "is not signed by anybody in quarantine.analysts"),
    ],
)
def test_what_does_not_count_anyway_is_not_approved(office: Office, what: object, said: str) -> None:
    name = asyncio.run(Actions(office.store).file(what))  # type: ignore[arg-type]
    assert refused(office.run("quarantine", "approve", name, "--yes", by="bob")) == f"{name}: {said}"


def test_what_is_over_replayed_or_not_there_is_not_approved(office: Office, tmp_path: Path) -> None:
    store = str(tmp_path / "quarantine")
    over = signed(store=store, issued=1, expires=2)

    async def filed() -> None:
        await Actions(office.store).file(over)
        await office.store.put(action_key("second"), signed(Kind.DELETE, store=store).to_json())

    asyncio.run(filed())
    for name, said in (
        (over.id, "is over"),
        ("second", "was put there a second time, or its nonce was used before"),
        ("absent", "is no statement"),
    ):
        assert refused(office.run("quarantine", "approve", name, "--yes", by="bob")) == f"{name}: {said}"


def test_forged_approval_in_a_colleagues_place_changes_nothing_and_shows(office: Office) -> None:
    name = released(office)
    what = next(each.signed for each in asyncio.run(Actions(office.store).filed()) if each.signed)
    forged = approved(what, "bob", SIGNERS["alice"])
    asyncio.run(office.store.put(approval_key(name, "bob", forged.digest), forged.to_json()))
    assert office.standings() == {"release": "forged"}
    assert name in office.run("verdict", "list").stdout
    assert office.run("quarantine", "approve", name, "--yes", by="bob").returncode == 0
    assert office.standings() == {"release": "approved"}


def test_what_was_never_quarantined_is_not_released(office: Office) -> None:
    done = office.run("quarantine", "release", "0" * 64, "--reason", "x", by="alice")
    assert (done.returncode, done.stdout) == (1, "")
    assert office.standings() == {}
