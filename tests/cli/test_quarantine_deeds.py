"""What was done stands in the audit chain; with four eyes nothing is deleted on one person's word."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from scanner.analysts import rules_of
from scanner.config import Config
from scanner.crypto.signing import Signer, format_public_key
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Approval, Kind
from scanner.quarantine.audit import Record, problems
from scanner.quarantine.chain import read_records
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
        tree = {"analysts": analysts, "four_eyes": four_eyes}
        self.config.write_text(yaml.safe_dump({"state_dir": str(directory / "state"), "quarantine": tree}))
        asyncio.run(put_sample(self.store, b"sample"))
        asyncio.run(put_record(self.store))

    def quarantine(self, *arguments: str | Path, by: str | None = "alice") -> CompletedProcess[str]:
        key = () if by is None else ("--key", self.directory / by)
        return media_scanner("quarantine", *arguments, *key, "--config", self.config)

    def state(self) -> str:
        return asyncio.run(read_catalogue(self.store)).contents[0].state

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
    assert deeds == [
        ("alice", "export", f"{SHA256} zip"),
        ("bob", "hold", f"{SHA256} case 17"),
        ("bob", "unhold", f"{SHA256} case 17"),
        ("bob", "delete", f"{SHA256} case 17"),
    ]
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
    assert (done.returncode, done.stderr) == (0, "")
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


def test_ones_own_approval_is_none(four_eyes: Office) -> None:
    delete = ("delete", SHA256, *WHY, "--yes")
    four_eyes.quarantine(*delete, by="bob")
    four_eyes.approve("bob")
    assert "waits" in four_eyes.quarantine(*delete, by="bob").stdout
    assert four_eyes.state() == "kept"


def test_an_approval_is_for_one_deletion(four_eyes: Office) -> None:
    delete = ("delete", SHA256, *WHY, "--yes")
    four_eyes.quarantine(*delete)
    four_eyes.approve("bob")
    four_eyes.quarantine(*delete)
    asyncio.run(put_sample(four_eyes.store, b"sample"))  # detected again
    assert "waits" in four_eyes.quarantine(*delete).stdout
    assert four_eyes.state() == "kept"
