"""`media-scanner quarantine hold|delete|purge`."""

from __future__ import annotations

import io
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scanner.quarantine.actions import Kind
from scanner.quarantine.catalogue import State
from scanner.quarantine.layout import deliveries_key
from scanner.quarantine.markers import new_marker
from scanner.stores.local import Local
from tests.cli.command import media_scanner, refused
from tests.cli.desk import Desk
from tests.quarantine.people import signed
from tests.quarantine.stock import OTHER, SOC, digest, put_record, put_sample

SHA256 = digest(b"sample")
WHY = ("--reason", "case 17")


@pytest.fixture(autouse=True)
def nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))


def test_what_is_held_is_neither_deleted_nor_purged_until_that_ends(desk: Desk) -> None:
    desk.keep(at=datetime(2020, 1, 1, tzinfo=UTC))
    done = desk.quarantine("hold", SHA256[:8], *WHY)
    assert (done.returncode, done.stdout) == (0, f"{SHA256}: held\n")
    assert desk.contents()[0].state is State.HELD
    assert refused(desk.quarantine("delete", SHA256, *WHY, "--yes")).endswith("is held; nothing is deleted")
    assert desk.quarantine("purge", "--older-than", "0d", "--yes").returncode == 1
    assert desk.contents()[0].state is State.HELD
    assert desk.lines("hold", SHA256, *WHY, "--end") == [
        {"sha256": SHA256, "held": False, "legal_hold": False, "waits_for_approval": None}
    ]
    assert desk.quarantine("delete", SHA256, *WHY, "--yes").returncode == 0
    assert desk.contents()[0].state is State.DELETED


def test_all_copies_are_deleted_and_the_records_stay(desk: Desk) -> None:
    desk.keep()
    desk.do(put_sample(desk.store, b"sample", OTHER))
    desk.keep(b"other")
    [said] = desk.lines("delete", SHA256, *WHY, "--yes")
    assert said == {"sha256": SHA256, "deleted": True, "waits_for_approval": None}
    states = {content.sha256: content.state for content in desk.contents()}
    assert states == {SHA256: State.DELETED, digest(b"other"): State.KEPT}


def test_a_deletion_needs_a_reason_and_somebody_who_says_yes(desk: Desk) -> None:
    desk.keep()
    assert "--reason" in desk.quarantine("delete", SHA256, "--yes").stderr
    assert refused(desk.quarantine("delete", SHA256, *WHY)) == "nobody is there to be asked: say --yes"
    assert desk.contents()[0].state is State.KEPT
    assert not desk.contents()[0].markers


def test_a_purge_deletes_what_is_old_and_a_dry_run_only_says_so(desk: Desk) -> None:
    now = datetime.now(UTC)
    desk.keep(b"new", at=now)
    for content in (b"old", b"seen again"):
        name = desk.do(put_sample(desk.store, content, SOC))
        aged = (now - timedelta(days=100)).timestamp()
        os.utime(desk.folder / name, (aged, aged))
        desk.do(put_record(desk.store, content, at=now - timedelta(days=100), media="mxc://a.org/1"))
    desk.do(put_record(desk.store, b"seen again", at=now, media="mxc://a.org/2"))
    [plan] = desk.lines("purge", "--older-than", "90d", "--dry-run")
    assert plan.items() >= {"dry_run": True, "samples": 1, "records": 2, "held": 0}.items()
    assert len(desk.contents()) == 3
    assert refused(desk.quarantine("purge", "--older-than", "90d")).startswith("nobody is there")
    done = desk.quarantine("purge", "--older-than", "90d", "--yes")
    assert (done.returncode, done.stdout) == (0, "purged: samples: 1 (155 B), records: 2\n")
    left = {content.sha256: (content.state, len(content.entries)) for content in desk.contents()}
    assert left == {digest(b"new"): (State.KEPT, 1), digest(b"seen again"): (State.KEPT, 1)}


def test_the_configuration_says_how_old_is_old(desk: Desk, tmp_path: Path) -> None:
    said = refused(desk.quarantine("purge", "--yes"))
    assert said == "--older-than: needed where no configuration has quarantine.retention"
    config = tmp_path / "config.yaml"
    desk.folder.rename(tmp_path / "quarantine")
    store = Local(tmp_path / "quarantine")
    desk.do(put_record(store, b"old", at=datetime.now(UTC) - timedelta(days=100)))
    for retention, purged in (("101d", 0), ("99d", 1)):
        config.write_text(f"{{state_dir: {tmp_path}, quarantine: {{retention: {retention}}}}}")
        done = media_scanner("quarantine", "purge", "--yes", "--json", "--config", config)
        assert json.loads(done.stdout)["records"] == purged


def test_with_a_content_goes_what_is_known_of_who_was_given_it(desk: Desk) -> None:
    for content in (b"old", b"new"):
        at = datetime(2020, 1, 1, tzinfo=UTC) if content == b"old" else datetime.now(UTC)
        desk.do(put_record(desk.store, content, at=at))
        desk.do(desk.store.put(deliveries_key(digest(content), "r1"), b"sealed"))
        desk.do(desk.store.put(*new_marker(signed(Kind.DELETE, sha256=digest(content)))))
    assert desk.quarantine("purge", "--older-than", "90d", "--yes").returncode == 0
    left = [path.relative_to(desk.folder) for path in desk.folder.rglob("*") if path.is_file()]
    assert len(left) == 3
    assert not [path for path in left if digest(b"old") in str(path)]


def test_nothing_old_is_exit_code_1(desk: Desk) -> None:
    desk.keep(at=datetime.now(UTC))
    done = desk.quarantine("purge", "--older-than", "90d", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["records"] == 0


def test_an_age_that_is_none_is_refused(desk: Desk) -> None:
    assert refused(desk.quarantine("purge", "--older-than", "old")).startswith("--older-than: old: neither")
