"""The audit chain on the command line."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scanner.quarantine.chain import Chain
from scanner.quarantine.layout import audit_key, head_key
from tests.cli.command import media_scanner_process, refused
from tests.cli.office import Office
from tests.quarantine.people import MALLORY, SIGNERS


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """In which three things were done."""
    office = Office(tmp_path)
    for number in range(3):
        asyncio.run(Chain(office.store, SIGNERS["alice"], "alice").append("deny", f"content {number}"))
    return office


def problems(office: Office, *arguments: str | Path) -> list[int]:
    done = office.run("audit", "verify", "--json", *arguments)
    told = json.loads(done.stdout)
    assert done.returncode == (1 if told["problems"] else 0)
    return [problem["number"] for problem in told["problems"]]


def head(office: Office) -> str:
    return str(office.told("audit", "verify")["head"])


def test_chain_that_is_whole_is_verified(office: Office) -> None:
    done = office.run("audit", "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"records: 3, problems: 0, head: {head(office)}\n"
    assert problems(office, "--head", head(office)) == []


def test_empty_chain_is_whole(tmp_path: Path) -> None:
    assert Office(tmp_path).run("audit", "verify").stdout == "records: 0, problems: 0, head: none\n"


def test_edit_and_gap_are_found(office: Office, tmp_path: Path) -> None:
    record = tmp_path / "quarantine" / audit_key(2)
    record.write_bytes(record.read_bytes().replace(b"content", b"another"))
    assert problems(office) == [2, 3]
    record.unlink()
    assert problems(office) == [2]
    assert "record 2: is missing" in office.run("audit", "verify").stdout


def test_another_order_is_found(office: Office, tmp_path: Path) -> None:
    first, last = (tmp_path / "quarantine" / audit_key(number) for number in (1, 3))
    record = first.read_bytes()
    first.write_bytes(last.read_bytes())
    last.write_bytes(record)
    assert {1, 3} <= {*problems(office)}


@pytest.mark.slow
def test_two_analysts_at_their_workstations_make_one_chain(tmp_path: Path) -> None:
    """Each a process of its own, all at once."""
    office = Office(tmp_path)

    def deny(number: int) -> int:
        by = office.key("alice" if number % 2 else "bob")
        words = ("verdict", "deny", f"{number:064x}", "--reason", "x")
        return media_scanner_process(*words, "--key", by, "--config", office.config).returncode

    with ThreadPoolExecutor(4) as workstations:
        assert [*workstations.map(deny, range(8))] == [0] * 8
    assert office.told("audit", "verify")["records"] == 8
    tail = [json.loads(line) for line in office.run("audit", "tail", "--json").stdout.splitlines()]
    assert sorted(each["author"] for each in tail) == ["alice"] * 4 + ["bob"] * 4


@pytest.mark.parametrize("form", ["plain", "plain file", "head", "log line"])
def test_end_that_was_cut_off_is_found_by_a_head_from_elsewhere(
    office: Office, tmp_path: Path, form: str
) -> None:
    known, file = head(office), tmp_path / "head"
    number, _, sha256 = known.partition(":")
    fields = {"number": int(number), "sha256": sha256, "at": "2026-11-21T12:00:00.000Z"}
    file.write_text(
        {"plain file": f"{known}\n", "head": json.dumps(fields)}.get(
            form, json.dumps({"media_scanner": fields})
        )
    )
    (tmp_path / "quarantine" / audit_key(3)).unlink()
    assert problems(office) == []
    assert problems(office, "--head", known if form == "plain" else file) == [3]


def test_head_of_this_machines_scanner_is_believed_and_another_named(office: Office, tmp_path: Path) -> None:
    chain = Chain(office.store, MALLORY, "scanner-0000000000000000")
    asyncio.run(chain.sign_head(asyncio.run(chain.tail())))
    assert problems(office) == [3]
    (tmp_path / "quarantine" / head_key(3, "scanner-0000000000000000")).unlink()


@pytest.mark.parametrize("text", ["absent", "12", "1:abc"])
def test_head_that_is_none_is_one_line(office: Office, text: str) -> None:
    assert refused(office.run("audit", "verify", "--head", text)).startswith(f"--head: {text}: ")


def test_file_of_any_size_is_no_head(office: Office, tmp_path: Path) -> None:
    with (tmp_path / "head").open("wb") as file:
        file.truncate(2**40)
    said = refused(office.run("audit", "verify", "--head", tmp_path / "head"))
    assert said == f"--head: {tmp_path}/head: is too large"
    assert refused(office.run("audit", "verify", "--head", "/dev/zero")).endswith("is no regular file")


def test_file_that_holds_no_head_is_one_line(office: Office, tmp_path: Path) -> None:
    for content in ("", "[]", "{}", '{"media_scanner": 1}', '{"number": null, "sha256": ""}'):
        (tmp_path / "head").write_text(content)
        said = refused(office.run("audit", "verify", "--head", tmp_path / "head"))
        assert said == f"--head: {tmp_path}/head: holds neither NUMBER:SHA256 nor a head"


def test_last_records_are_told_on_a_line_each_and_harmless(office: Office, tmp_path: Path) -> None:
    asyncio.run(Chain(office.store, SIGNERS["bob"], "bob").append("allow", "a\x1b[31m\nb"))
    lines = office.run("audit", "tail", "-n", "2").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["3", "4"]
    assert lines[1].endswith(r"bob: allow a\x1b[31m\x0ab")
    (tmp_path / "quarantine" / audit_key(5)).write_text("?")
    assert office.run("audit", "tail", "-n", "1").stdout == "5 no audit record\n"
    [told] = [
        json.loads(line) for line in office.run("audit", "tail", "-n", "1", "--json").stdout.splitlines()
    ]
    assert told == {"number": 5, "problem": "no audit record"}
