"""What was done stands in the audit chain; with four eyes nothing is deleted on one person's word."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from scanner.analysts import rules_of
from scanner.cli import quarantine_deeds
from scanner.config import Config
from scanner.crypto.signing import Signer, format_public_key
from scanner.errors import StoreError
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import NEVER, Approval, Kind, Signed, Statement, new_nonce
from scanner.quarantine.audit import Record, problems
from scanner.quarantine.chain import read_records
from scanner.quarantine.markers import new_marker
from scanner.quarantine.reading import read_catalogue
from scanner.stores.local import Local
from tests.cli.command import media_scanner, refused
from tests.quarantine.stock import SOC, digest, put_record, put_sample

SHA256 = digest(b"sample")
SECRETS = {"alice": b"a" * 32, "bob": b"b" * 32, "mallory": b"m" * 32}
WHY = ("--reason", "case 17")


class Office:
    """A configuration that lists alice, and bob who approves; its store has one sample."""

    def __init__(self, directory: Path, *, four_eyes: bool) -> None:
        self.directory = directory
        self.store = Local(directory / "state/quarantine")
        for name, secret in SECRETS.items():
            (directory / name).write_text(b64encode(secret).decode())
        (directory / "soc").write_text(b64encode(SOC).decode())
        self.keys = {name: Signer(secret).public_key for name, secret in SECRETS.items() if name != "mallory"}
        analysts = [
            {"name": name, "role": role, "public_key": format_public_key(self.keys[name])}
            for name, role in (("alice", "analyst"), ("bob", "approver"))
        ]
        self.config = directory / "scanner.yaml"
        tree = {"name": "office", "analysts": analysts, "four_eyes": four_eyes}
        self.config.write_text(yaml.safe_dump({"state_dir": str(directory / "state"), "quarantine": tree}))
        self.sample = asyncio.run(put_sample(self.store, b"sample"))
        asyncio.run(put_record(self.store))

    def quarantine(self, *arguments: str | Path, by: str | None = "alice") -> CompletedProcess[str]:
        key = () if by is None else ("--key", self.directory / by)
        return media_scanner("quarantine", *arguments, *key, "--config", self.config)

    def state(self) -> str:
        rules = rules_of(Config.load(self.config, {}))
        return asyncio.run(read_catalogue(self.store, rules)).contents[0].state

    def chain(self) -> list[tuple[str, str, str]]:
        """Author, action and subject of each record, in a chain without a flaw."""
        records = asyncio.run(read_records(self.store))
        assert problems(records, [], self.keys) == []
        found = [Record.from_json(records[number]) for number in sorted(records)]
        return [(record.author, record.action, record.subject) for record in found]

    def approve(self, by: str) -> None:
        """What waits."""
        signer = Signer(SECRETS[by])
        actions = Actions(self.store)
        [filed] = asyncio.run(actions.filed())
        assert filed.signed is not None
        approval = Approval.of(filed.signed.statement, signer, by)
        assert asyncio.run(actions.approve(filed.id, approval))


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path, four_eyes=False)


@pytest.fixture
def four_eyes(tmp_path: Path) -> Office:
    return Office(tmp_path, four_eyes=True)


def test_every_deed_is_in_the_chain_with_its_author(office: Office) -> None:
    soc = ("--key-file", office.directory / "soc")
    assert office.quarantine("export", SHA256, "--to", office.directory / "out", *soc).returncode == 0
    for words in (("hold", SHA256, *WHY), ("hold", SHA256, *WHY, "--end"), ("delete", SHA256, *WHY, "--yes")):
        assert office.quarantine(*words, by="bob").returncode == 0
    assert office.quarantine("purge", "--older-than", "2030-01-01", "--yes").returncode == 0
    *deeds, purge = office.chain()
    assert [(author, action) for author, action, _ in deeds] == [
        ("alice", "export"),
        *(("bob", action) for action in ("hold", "unhold", "delete")),
    ]
    assert deeds[0][2] == f"{SHA256} zip"
    assert all(re.fullmatch(rf"{SHA256} [0-9a-f]{{32}} case 17", subject) for _, _, subject in deeds[1:])
    assert purge[:2] == ("alice", "purge")
    assert purge[2].endswith("samples: 0 (0 B), records: 1")


@pytest.mark.parametrize("by", [None, "mallory"])
@pytest.mark.parametrize("words", [("hold", SHA256, *WHY), ("delete", SHA256, *WHY, "--yes")])
def test_who_is_not_listed_does_nothing(office: Office, by: str | None, words: tuple[str, ...]) -> None:
    assert refused(office.quarantine(*words, by=by)).startswith("--key: ")
    assert office.state() == "kept"
    assert office.chain() == []


def test_nothing_leaves_without_its_record(office: Office) -> None:
    target = office.directory / "out"
    soc = ("--key-file", office.directory / "soc")
    assert refused(office.quarantine("export", SHA256, "--to", target, *soc, by=None)).startswith("--key: ")
    assert not target.exists()


def test_where_nobody_is_listed_a_key_still_signs(tmp_path: Path) -> None:
    store = tmp_path / "store"
    asyncio.run(put_sample(Local(store), b"sample"))
    (tmp_path / "key").write_text(b64encode(SECRETS["alice"]).decode())
    done = media_scanner(
        "quarantine", "hold", SHA256, *WHY, "--store", store, "--key", tmp_path / "key", "--as", "alice"
    )
    assert done.returncode == 0
    assert "Without --key" not in done.stderr
    records = asyncio.run(read_records(Local(store)))
    assert problems(records, [], {"alice": Signer(SECRETS["alice"]).public_key}) == []


def test_with_four_eyes_a_deletion_waits_for_somebody_else(four_eyes: Office) -> None:
    delete = ("delete", SHA256, *WHY, "--yes")
    done = four_eyes.quarantine(*delete)
    assert done.returncode == 0
    assert "waits for a colleague's approval" in done.stdout
    assert four_eyes.state() == "kept"
    [filed] = asyncio.run(Actions(four_eyes.store).filed())
    assert filed.signed is not None
    assert filed.signed.statement.action is Kind.DELETE
    assert filed.signed.statement.store == rules_of(Config.load(four_eyes.config, {})).store

    four_eyes.approve("bob")
    assert four_eyes.quarantine(*delete).stdout == f"{SHA256}: deleted\n"
    assert four_eyes.state() == "deleted"
    assert [action for _, action, _ in four_eyes.chain()] == ["delete asked for", "delete"]


def test_with_four_eyes_nobody_ends_a_hold_alone(four_eyes: Office) -> None:
    """What is held no longer goes with the next purge: that would be a deletion on one person's word."""
    end = ("hold", SHA256, *WHY, "--end")
    assert four_eyes.quarantine("hold", SHA256, *WHY).returncode == 0
    done = four_eyes.quarantine(*end)
    assert (done.returncode, "waits for a colleague's approval" in done.stdout) == (0, True)
    assert four_eyes.state() == "held"
    four_eyes.approve("bob")
    assert four_eyes.quarantine(*end).stdout == f"{SHA256}: held no longer\n"
    assert four_eyes.state() == "kept"
    assert [action for _, action, _ in four_eyes.chain()] == ["hold", "unhold asked for", "unhold"]


def test_an_approved_end_of_a_hold_ends_no_later_one(four_eyes: Office) -> None:
    end = ("hold", SHA256, *WHY, "--end")
    four_eyes.quarantine("hold", SHA256, *WHY)
    four_eyes.quarantine(*end)
    four_eyes.approve("bob")
    four_eyes.quarantine("hold", SHA256, *WHY, by="bob")
    assert "waits" in four_eyes.quarantine(*end).stdout
    assert four_eyes.state() == "held"


def test_ones_own_approval_is_none(four_eyes: Office) -> None:
    delete = ("delete", SHA256, *WHY, "--yes")
    four_eyes.quarantine(*delete, by="bob")
    four_eyes.approve("bob")
    assert "waits" in four_eyes.quarantine(*delete, by="bob").stdout
    assert four_eyes.state() == "kept"


def test_an_approval_is_for_what_was_there_when_it_was_asked_for(four_eyes: Office) -> None:
    delete = ("delete", SHA256, *WHY, "--yes")
    four_eyes.quarantine(*delete)
    four_eyes.approve("bob")
    four_eyes.quarantine(*delete)
    asyncio.run(put_sample(four_eyes.store, b"sample"))  # detected again
    later = time.time() + 5
    os.utime(four_eyes.directory / "state/quarantine" / four_eyes.sample, (later, later))
    assert "waits" in four_eyes.quarantine(*delete).stdout
    assert four_eyes.state() == "kept"


def test_a_deletion_that_was_broken_off_is_finished_with_the_same_approval(four_eyes: Office) -> None:
    delete = ("delete", SHA256, *WHY, "--yes")
    four_eyes.quarantine(*delete)
    four_eyes.approve("bob")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Local, "delete", refusing)
        assert refused(four_eyes.quarantine(*delete)) == "denied"
    assert four_eyes.state() == "kept"
    assert four_eyes.quarantine(*delete).stdout == f"{SHA256}: deleted\n"


async def refusing(store: Local, key: str) -> None:
    raise StoreError("denied")


def test_nobody_uses_up_an_approval_who_copies_it(four_eyes: Office) -> None:
    """Whoever may put could make a marker of it before the deletion."""
    delete = ("delete", SHA256, *WHY, "--yes")
    four_eyes.quarantine(*delete)
    four_eyes.approve("bob")
    [filed] = asyncio.run(Actions(four_eyes.store).filed())
    assert filed.signed is not None
    asyncio.run(four_eyes.store.put(*new_marker(filed.signed, filed.approvals[0])))
    assert four_eyes.state() == "kept"
    assert four_eyes.quarantine(*delete).stdout == f"{SHA256}: deleted\n"


def test_an_approval_that_is_over_deletes_nothing(four_eyes: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine_deeds, "_WAITS", 2)
    delete = ("delete", SHA256, *WHY, "--yes")
    four_eyes.quarantine(*delete)
    four_eyes.approve("bob")
    time.sleep(2.1)
    assert "waits" in four_eyes.quarantine(*delete).stdout
    assert four_eyes.state() == "kept"


def test_with_four_eyes_one_person_purges_nothing_young(four_eyes: Office) -> None:
    said = refused(four_eyes.quarantine("purge", "--older-than", "0d", "--yes"))
    assert said == "--older-than: with quarantine.four_eyes no less than quarantine.retention"
    assert four_eyes.state() == "kept"
    assert four_eyes.quarantine("purge", "--yes").returncode == 1  # nothing is that old


@pytest.mark.parametrize("command", ["verify", "rescan"])
def test_whoever_opens_samples_is_asked_who_he_is(office: Office, command: str) -> None:
    soc = ("--key-file", office.directory / "soc")
    assert refused(office.quarantine(command, SHA256, *soc, by=None)).startswith("--key: ")
    assert refused(office.quarantine(command, SHA256, *soc, by="mallory")).startswith("--key: ")
    assert office.chain() == []


def test_what_is_opened_stands_in_the_chain(office: Office) -> None:
    soc = ("--key-file", office.directory / "soc")
    assert office.quarantine("verify", SHA256, *soc, by="bob").returncode == 0
    assert office.quarantine("verify", *soc).returncode == 0
    assert office.quarantine("verify", by=None).returncode == 0  # from outside
    assert office.chain() == [
        ("bob", "verify", f"samples: 1: {SHA256}"),
        ("alice", "verify", f"samples: 1: {SHA256}"),
    ]


def test_a_record_of_what_was_opened_stays_small() -> None:
    subject = quarantine_deeds.opened_samples([f"{number:064x}" for number in range(1_000)])
    assert subject.startswith("samples: 1000: 0000")
    assert subject.endswith(" ...")
    assert len(subject) < 1_500


class Terminal(io.StringIO):
    """Where somebody sits."""

    def isatty(self) -> bool:
        return True


def test_what_is_held_while_somebody_is_asked_is_not_deleted(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held_meanwhile(question: str, **_: object) -> bool:
        said = Statement(
            Kind.HOLD,
            SHA256,
            rules_of(Config.load(office.config, {})).store,
            "case 18",
            "bob",
            new_nonce(),
            int(time.time()),
            NEVER,
        )
        with ThreadPoolExecutor(1) as other:  # we are in an event loop
            held = office.store.put(*new_marker(Signed.by(Signer(SECRETS["bob"]), said)))
            other.submit(asyncio.run, held).result()
        return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("typer.confirm", held_meanwhile)
    assert refused(office.quarantine("delete", SHA256, *WHY)).endswith("is held; nothing is deleted")
    assert office.state() == "held"


# -- what others put there -----------------------------------------------------------------------


def forge(office: Office, kind: Kind, author: str = "alice") -> None:
    """In somebody's name, by whoever may put objects and has no key that is listed."""
    now, store = int(time.time()), rules_of(Config.load(office.config, {})).store
    said = Statement(kind, SHA256, store, "forged", author, new_nonce(), now, NEVER)
    asyncio.run(office.store.put(*new_marker(Signed.by(Signer(SECRETS["mallory"]), said))))


def test_a_forged_hold_keeps_nothing_and_is_reported(office: Office) -> None:
    forge(office, Kind.HOLD)
    assert office.state() == "kept"
    shown = office.quarantine("show", SHA256, by=None).stdout
    assert "(it is not signed by anybody in quarantine.analysts)" in " ".join(shown.split())
    for words in (("list",), ("purge", "--older-than", "2030-01-01", "--dry-run")):
        by = "alice" if words[0] == "purge" else None
        assert "1 markers do not count" in office.quarantine(*words, by=by).stderr
    verified = office.quarantine("verify", by=None)
    assert verified.returncode == 1
    assert "does not count: it is not signed by anybody in quarantine.analysts" in verified.stdout
    done = office.quarantine("delete", SHA256, *WHY, "--yes")
    assert done.stdout == f"{SHA256}: deleted\n"
    assert "1 markers do not count" in done.stderr


def test_a_forged_end_of_a_hold_ends_nothing(office: Office) -> None:
    office.quarantine("hold", SHA256, *WHY)
    forge(office, Kind.UNHOLD)
    assert office.state() == "held"
    assert "is held" in office.quarantine("delete", SHA256, *WHY, "--yes").stderr


@pytest.mark.parametrize("four", [False, True])
def test_a_forged_or_a_lone_deletion_hides_nothing(tmp_path: Path, four: bool) -> None:
    office = Office(tmp_path, four_eyes=four)
    forge(office, Kind.DELETE)
    asyncio.run(office.store.delete(office.sample))
    assert office.state() == "missing"


def test_a_hold_after_another_is_the_later_one_whatever_the_clocks_say(office: Office) -> None:
    for end in ((), ("--end",), (), ("--end",)):
        assert office.quarantine("hold", SHA256, *WHY, *end).returncode == 0
        assert office.state() == ("kept" if end else "held")


def test_a_reason_that_is_too_long_is_refused_before_anything_happens(office: Office) -> None:
    said = refused(office.quarantine("hold", SHA256, "--reason", "x" * 501))
    assert said.startswith("--reason")
    assert office.chain() == []
