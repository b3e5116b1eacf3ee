"""What strangers named does nothing to a terminal or a spreadsheet, and tables stand on 80 columns."""

from __future__ import annotations

import csv
import io
import unicodedata
from datetime import timedelta
from typing import Any

import pytest
from rich.cells import cell_len

from scanner.cli import quarantine_output as output
from scanner.cli.scan_output import Finding
from scanner.ports import Stored
from scanner.quarantine.catalogue import Content, Entry, SealedSample, fold
from tests.quarantine.stock import NOW, a_record, digest, sample_key

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "gpj\u202eexe.\u2066x",
    "a\r\nb\u2028c\u2029d\x85e",
    "\ud800",
    "[red]markup[/red] :skull: ",
    "日本" * 60,
    "x" * 300,
    "\u200b\u200d\ufeff\U000e0041",
)
KEY = f"v1/detections/2026/11/21/{'0' * 32}.json"
FORMULAS = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "=cmd|'/C calc'!A0",
    "\uff1d1",
    " =1",
    'a";=1',
    "a,=1",
)


def content(**changes: Any) -> Content:
    record = a_record(**changes)
    sample = SealedSample.of(Stored(sample_key(b"sample"), 158, NOW.timestamp()))
    assert sample is not None
    return fold([Entry.parse(KEY, record.to_json())], [sample], [])[0]


def everywhere(text: str) -> Content:
    """In every member that a stranger may have written."""
    names = ("sha1", "md5", "mime_type", "verdict", "source", "request_id", "media", "ciphertext_sha256")
    changes: dict[str, Any] = dict.fromkeys(names, text)
    return content(**changes, signatures=(text, text), engines={text: text})


def is_harmless(text: str) -> bool:
    return all(c == "\n" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stand_escaped_on_80_columns(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = everywhere(text)
    output.show_list([hostile])
    output.show_statistics(output.statistics([hostile]))
    output.show_rescans([(hostile, text, Finding.not_scanned(text, text), True)])
    output.tell(text)
    shown = capsys.readouterr().out
    assert is_harmless(shown)
    *tables, _ = shown.splitlines()
    assert max(map(cell_len, tables)) <= 80


@pytest.mark.parametrize("text", HOSTILE)
def test_json_is_ascii_and_exact(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.tell_json(output.document(everywhere(text)))
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert is_harmless(shown)
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_the_csv_is_a_formula_whatever_separates_cells(text: str) -> None:
    shown = output.as_csv([everywhere(text)])
    for separator in ",;\t|":
        rows = csv.reader(io.StringIO(shown), delimiter=separator)
        assert not {cell.strip()[:1] for row in rows for cell in row} & set("=+-@\uff1d")


def test_csv_holds_what_harmless_names_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.tell_text(output.as_csv([content()]))
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["sha256"] == digest(b"sample")
    assert (row["signatures"], row["size"], row["state"]) == ("Win.Trojan.Agent-1", "6", "kept")
    assert (row["media"], row["encrypted"], row["detections"]) == ("mxc://example.org/abc", "no", "1")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_signature_takes_the_room_there_is(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    output.show_list([content(signatures=("Win.Trojan." + "x" * 100,))])
    [_, line] = capsys.readouterr().out.splitlines()
    assert (columns < 80) or line.startswith(f"2026-11-21 12:00 {digest(b'sample')[:12]} Win.Trojan.")
    assert cell_len(line) <= columns
    assert ("x" * 100 in line) is (columns == 200)


def test_statistics_count_contents_detections_and_bytes() -> None:
    record = a_record(media="mxc://a.org/2", at=NOW - timedelta(days=1), encrypted=True, source="upload")
    one = content()
    again = Entry.parse(KEY, record.to_json())
    [both] = fold([*one.entries, again], one.samples, [])
    counted = output.statistics([both])
    assert counted["contents"] == counted["samples"] == counted["encrypted"] == 1
    assert (counted["detections"], counted["bytes"]) == (2, 158)
    assert counted["sources"] == {"download": 1, "upload": 1}
    assert list(counted["days"]) == ["2026-11-20", "2026-11-21"]


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (20 * 2**20, "20 MiB"),
        (2**40, "1.0 TiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_sizes_are_short(size: int, shown: str) -> None:
    assert output.sized(size) == shown
