"""`media-scanner quarantine rescan`, with a real clamd."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from scanner.quarantine.audit import Record
from scanner.quarantine.chain import read_records
from tests.archives import zip_of
from tests.cli.command import refused
from tests.cli.desk import Desk
from tests.cli.test_scan import configuration
from tests.quarantine.stock import digest, put_record
from tests.real_clamd import EICAR, Clamd


@pytest.fixture
def config(tmp_path: Path, clamd: Clamd) -> Path:
    return configuration(tmp_path, f"unix:{clamd.socket}")


@pytest.mark.real
def test_todays_verdict_stands_beside_the_old_one(desk: Desk, config: Path) -> None:
    desk.keep(EICAR, signatures=("Old.Name-1",))
    done = desk.quarantine("rescan", "--all", "--key-file", desk.soc, "--clamd-config", config)
    assert done.returncode == 0
    [_, then, now] = map(str.split, done.stdout.splitlines())
    assert then == [digest(EICAR)[:12], "then", "infected", "Old.Name-1"]
    assert now == ["now", "infected", "Eicar-Test-Signature.UNOFFICIAL"]


@pytest.mark.real
def test_what_is_opened_stands_in_the_audit_chain(desk: Desk, config: Path) -> None:
    desk.keep(EICAR)
    signed = ("--key", desk.secret("alice", b"a" * 32), "--as", "alice")
    words = ("rescan", "--all", "--key-file", desk.soc, "--clamd-config", config)
    assert desk.quarantine(*words, *signed).returncode == 0
    [record] = [Record.from_json(data) for data in desk.do(read_records(desk.store)).values()]
    assert (record.author, record.action) == ("alice", "rescan")
    assert record.subject == f"samples: 1: {digest(EICAR)}"


@pytest.mark.real
def test_what_is_clean_today_is_exit_code_1(desk: Desk, config: Path) -> None:
    desk.keep(b"a false positive")
    desk.keep(EICAR)
    words = ("rescan", "--all", "--key-file", desk.soc, "--clamd-config", config)
    assert desk.quarantine(*words).returncode == 1
    found = {line["sha256"]: line for line in desk.lines(*words)}
    assert found[digest(b"a false positive")]["differs"]
    nothing: dict[str, object] = {"verdict": "clean", "signatures": [], "reason": None, "found": []}
    assert found[digest(b"a false positive")]["now"] == nothing
    assert not found[digest(EICAR)]["differs"]


@pytest.mark.real
def test_where_in_an_archive_it_is_is_told(desk: Desk, config: Path) -> None:
    desk.keep(zip_of({"folder/eicar.com": EICAR}, zipfile.ZIP_LZMA), signatures=("Old.Name-1",))
    words = ("rescan", "--all", "--key-file", desk.soc, "--clamd-config", config)
    assert "in folder/eicar.com" in " ".join(desk.quarantine(*words).stdout.split())
    (line,) = desk.lines(*words)
    assert [found["path"] for found in line["now"]["found"]] == ["folder/eicar.com"]


@pytest.mark.real
def test_what_cannot_be_opened_or_is_not_there_is_exit_code_2(desk: Desk, config: Path) -> None:
    desk.keep(EICAR)
    desk.do(put_record(desk.store, b"gone"))
    words = ("rescan", digest(EICAR), digest(b"gone"), "--clamd-config", config, "--key-file")
    done = desk.quarantine(*words, desk.other)
    assert done.returncode == 2
    assert "given: 0" in " ".join(done.stdout.split())
    assert "there is no sample of it" in " ".join(done.stdout.split())


@pytest.mark.parametrize("words", [(), ("--all", "af2bdbe1")])
def test_samples_are_named_or_all_are_meant(desk: Desk, words: tuple[str, ...]) -> None:
    said = refused(desk.quarantine("rescan", *words, "--key-file", desk.soc))
    assert said == "rescan: name samples, or say --all"


def test_without_a_key_nothing_is_opened(desk: Desk) -> None:
    assert refused(desk.quarantine("rescan", "--all")).startswith("--key-file: needed")


def test_an_empty_store_is_exit_code_1(desk: Desk) -> None:
    assert desk.quarantine("rescan", "--all", "--key-file", desk.soc).returncode == 1
