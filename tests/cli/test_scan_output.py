"""What a scan prints: nothing is clean but what all engines called so, and names cannot forge a line."""

from __future__ import annotations

import base64
import json
import os
import pty
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from scanner.cli.scan_output import Finding, Printer, Result, Tally
from scanner.errors import ScannerError
from scanner.files import Skipped
from scanner.verdict import Detection, Outcome, Reason, Report, Verdict

CLEAN = Report("clamav", Outcome.CLEAN)
INFECTED = Report("clamav", Outcome.INFECTED, None, Reason.MALWARE, (Detection("Win.Test.EICAR_HDB-1"),))
FAILED = Report("clamav", Outcome.FAILED, None, Reason.ENGINE_UNAVAILABLE)
LOCKED = Report("archive", Outcome.UNSCANNABLE, None, Reason.ENCRYPTED_ARCHIVE)
FORBIDDEN = Report("mime", Outcome.FORBIDDEN, None, Reason.FORBIDDEN_TYPE)


@pytest.mark.parametrize(
    ("reports", "line"),
    [
        ((CLEAN,), "x: clean"),
        ((INFECTED,), "x: infected Win.Test.EICAR_HDB-1"),
        ((INFECTED, LOCKED), "x: infected Win.Test.EICAR_HDB-1"),
        ((CLEAN, LOCKED), "x: not scanned: archive with a password"),
        ((FAILED, LOCKED), "x: not scanned: clamd does not answer"),
        ((CLEAN, FORBIDDEN), "x: forbidden type"),
        ((FAILED, FORBIDDEN), "x: not scanned: clamd does not answer"),
        ((LOCKED, FORBIDDEN), "x: not scanned: archive with a password"),
        ((), "x: not scanned: no engine looked at it"),
    ],
)
def test_a_verdict_is_a_line(reports: tuple[Report, ...], line: str) -> None:
    assert Finding.of("x", Verdict(reports)).line() == line


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNSCANNABLE])
@pytest.mark.parametrize("reason", [*Reason, None])
def test_every_reason_is_told_in_words(outcome: Outcome, reason: Reason | None) -> None:
    finding = Finding.of("x", Verdict((CLEAN, Report("archive", outcome, None, reason))))
    assert finding.result is Result.NOT_SCANNED
    assert finding.info


def test_a_document_holds_what_the_line_says() -> None:
    assert json.loads(Finding.of("x", Verdict((INFECTED,))).document()) == {
        "path": "x",
        "result": "infected",
        "signatures": ["Win.Test.EICAR_HDB-1"],
        "reason": "malware",
        "info": "Win.Test.EICAR_HDB-1",
        "found": [{"signature": "Win.Test.EICAR_HDB-1", "path": ""}],
    }


def test_where_in_an_archive_something_was_found_is_told() -> None:
    placed = Detection("Win.Test.EICAR_HDB-1").inside(b"a \x1b b").inside(b"in.zip")
    inside = Report("archive", Outcome.INFECTED, None, Reason.MALWARE, (placed,))
    finding = Finding.of("x", Verdict((INFECTED, inside)))
    assert finding.line() == "x: infected Win.Test.EICAR_HDB-1 in in.zip/a \\x1b b"
    document = json.loads(finding.document())
    assert document["signatures"] == ["Win.Test.EICAR_HDB-1"]
    assert document["found"] == [{"signature": "Win.Test.EICAR_HDB-1", "path": "in.zip/a \\x1b b"}]


def test_names_cannot_forge_a_line_or_move_the_cursor() -> None:
    finding = Finding.of("a: clean\nb\x1b[1A\u202ec", Verdict((INFECTED,)))
    assert finding.line() == "a: clean\\x0ab\\x1b[1A\\x202ec: infected Win.Test.EICAR_HDB-1"
    document = finding.document()
    assert document.isascii()
    assert document.isprintable()
    assert json.loads(document)["path"] == finding.path


def test_a_name_that_is_no_text_is_valid_json_and_can_be_had_whole() -> None:
    raw = b"caf\xe9"
    document = json.loads(Finding.not_scanned(os.fsdecode(raw), "gone").document())
    assert document["path"] == "caf\\xe9"
    assert base64.b64decode(document["path_base64"]) == raw


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ((), 0),
        ((Result.CLEAN,), 0),
        ((Result.CLEAN, Result.INFECTED), 1),
        ((Result.CLEAN, Result.FORBIDDEN), 1),
        ((Result.CLEAN, Result.NOT_SCANNED), 2),
        ((Result.INFECTED, Result.NOT_SCANNED), 2),
    ],
)
def test_the_exit_code_tells_first_of_all_that_something_was_not_scanned(
    results: tuple[Result, ...], code: int
) -> None:
    tally = Tally()
    for result in results:
        tally.add(result)
    assert tally.exit_code == code


def test_the_tally_counts_everything() -> None:
    tally = Tally()
    for result in (Result.CLEAN, Result.CLEAN, Result.INFECTED):
        tally.add(result)
    assert tally.line(1.23) == "files: 3 in 1.2 s, 2 clean, 1 infected, 0 not scanned"
    tally.add(Result.FORBIDDEN)
    tally.skipped = 7
    assert tally.line(1.23) == (
        "files: 4 in 1.2 s, 2 clean, 1 infected, 1 forbidden, 0 not scanned"
        "; left out: 7 (links, pipes, sockets, devices)"
    )
    assert json.loads(tally.document(1.23, complete=True)) == {
        "summary": {
            "files": 4,
            "clean": 2,
            "infected": 1,
            "forbidden": 1,
            "not_scanned": 0,
            "skipped": 7,
            "complete": True,
            "seconds": 1.23,
        }
    }


def show(printer: Printer) -> None:
    with printer:
        printer.show(Finding.of("good", Verdict((CLEAN,))))
        printer.show(Finding.of("bad", Verdict((INFECTED,))))
        printer.show(Skipped("link"))
    printer.summarise(complete=True)


def test_results_go_to_standard_output_and_the_count_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(Printer(as_json=False, clean_too=True))
    said = capsys.readouterr()
    assert said.out == "good: clean\nbad: infected Win.Test.EICAR_HDB-1\n"
    assert said.err.startswith("files: 2 in 0.")


def test_clean_files_can_be_left_out_and_are_counted_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(Printer(as_json=False, clean_too=False))
    said = capsys.readouterr()
    assert said.out == "bad: infected Win.Test.EICAR_HDB-1\n"
    assert "1 clean" in said.err


def test_json_is_a_line_for_each_file_and_one_that_counts(capsys: pytest.CaptureFixture[str]) -> None:
    show(Printer(as_json=True, clean_too=True))
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [line.get("path") for line in lines] == ["good", "bad", None]
    assert lines[-1]["summary"]["skipped"] == 1
    assert said.err == ""


def test_an_output_that_is_not_unicode_gets_what_it_can_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        Printer(as_json=False, clean_too=True).show(Finding("é", Result.CLEAN))
    assert (tmp_path / "out").read_text() == "\\xe9: clean\n"


def test_an_output_that_takes_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(os.open("/dev/full", os.O_WRONLY), "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(ScannerError, match="standard output: No space left on device"):
            show(Printer(as_json=False, clean_too=True))


def all_of(terminal: int) -> str:
    """What was written to a terminal that is closed by now; one read need not get it all."""
    shown = b""
    with suppress(OSError):  # EIO: that is its end
        while piece := os.read(terminal, 65536):
            shown += piece
    os.close(terminal)
    return shown.decode()


def test_a_terminal_shows_a_bar_and_results_above_it_unwrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        printer = Printer(as_json=False, clean_too=True)
        assert printer.has_bar
        with printer:
            printer.expect(3)
            printer.show(Finding("x" * 300, Result.CLEAN))
    shown = all_of(ours)
    assert "x" * 300 + ": clean" in shown
    assert "1/3" in shown
