"""What every command has in common by which an analyst says something."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scanner.cli.statements import checked_sha256, end_of
from scanner.errors import ConfigError
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import NEVER, Kind
from scanner.quarantine.audit import Record
from scanner.quarantine.chain import read_records
from tests.cli.command import refused
from tests.cli.office import Office
from tests.quarantine.people import SHA256, signed

SAYING = ("verdict", "deny", SHA256, "--reason", "seen elsewhere")


def test_what_is_said_is_filed_with_an_audit_record(tmp_path: Path) -> None:
    office = Office(tmp_path)
    told = office.told(*SAYING, "--expires", "2d", by="alice")
    assert (told["action"], told["sha256"], told["waits_for_approval"]) == ("deny", SHA256, False)
    ends = datetime.fromisoformat(told["expires"]) - datetime.now(UTC)
    assert timedelta(days=2, minutes=-1) < ends <= timedelta(days=2)
    [record] = [Record.from_json(data) for data in asyncio.run(read_records(office.store)).values()]
    assert (record.author, record.action) == ("alice", "deny")
    assert record.subject.startswith(SHA256)
    assert record.subject.endswith("seen elsewhere")
    assert office.standings() == {"deny": "approved"}


def test_people_are_told_what_follows_on_one_line(tmp_path: Path) -> None:
    said = Office(tmp_path).run(*SAYING, by="alice").stdout
    assert said.startswith(f"deny {SHA256}: in force within 10 s, as 20")
    waiting = Office(tmp_path, four_eyes=True).run("verdict", "allow", SHA256, "--reason", "x", by="alice")
    assert f"allow {SHA256}: waits for approval: quarantine approve 20" in waiting.stdout


@pytest.mark.parametrize("name", ["mallory", "dave"])
def test_key_of_nobody_who_may_sign_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    office = Office(tmp_path)
    said = refused(office.run(*SAYING, by=name))
    assert said == f"--key: {office.key(name)}: its public key is of nobody in quarantine.analysts"
    assert not (tmp_path / "quarantine").exists()


def test_key_that_cannot_be_read_is_one_line_that_does_not_show_it(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.key("alice").write_text("damaged")
    assert refused(office.run(*SAYING, by="alice")).endswith("alice.key: a secret must be 32 bytes in base64")


def test_reason_must_be_given_and_not_be_too_long(tmp_path: Path) -> None:
    office = Office(tmp_path)
    for reason in ("", "x" * 501):
        said = refused(office.run("verdict", "deny", SHA256, "--reason", reason, by="alice"))
        assert said == "--reason: must have 1 to 500 characters, fewer where many are not ASCII"
    assert office.run("verdict", "deny", SHA256, by="alice").returncode == 2


def test_nobody_puts_off_what_others_say_by_a_clock_that_is_ahead(tmp_path: Path) -> None:
    """What would follow his words in time would be put off as long: `deny` is urgent."""
    office = Office(tmp_path)
    later = int(time.time()) + 86_400
    store = str(tmp_path / "quarantine")
    ahead = signed(Kind.ALLOW, author="bob", store=store, issued=later, expires=NEVER)
    asyncio.run(Actions(office.store).file(ahead))
    done = office.run(*SAYING, by="alice")
    assert done.returncode == 0
    assert "bob says allow of it, which begins " in done.stderr
    assert office.standings() == {"allow": "early", "deny": "approved"}


@pytest.mark.parametrize("text", ["", "abc", "0" * 63, "g" * 64, "0" * 65])
def test_what_is_no_sha256_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no SHA-256"):
        checked_sha256(text)
    assert checked_sha256("AB" * 32) == "ab" * 32


def test_end_is_so_far_ahead_or_a_date() -> None:
    now = datetime.now(UTC).timestamp()
    assert abs(end_of("12h") - now - 12 * 3600) < 2
    assert end_of("2999-01-31") == datetime(2999, 2, 1, tzinfo=UTC).timestamp()
    assert end_of("2999-01-31T12:00:00Z") == datetime(2999, 1, 31, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["2020-01-01", "0d"])
def test_end_that_is_over_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="over already"):
        end_of(text)


@pytest.mark.parametrize("text", ["", "soon", "12"])
def test_end_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--expires"):
        end_of(text)
