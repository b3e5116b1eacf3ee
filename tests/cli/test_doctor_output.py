from __future__ import annotations

import io
import json
import sys

import pytest

from scanner.cli.doctor_output import as_document, show
from scanner.doctor.examination import Section
from scanner.doctor.finding import Finding, Status

LONG = "set MaxFileSize 400M, MaxScanSize 400M in clamd.conf and restart clamd, then look again"
SECTIONS = [
    Section(
        "clamd",
        (
            Finding("", "updates", Status.OK, "by the service itself"),
            Finding("unix:/run/clamd", "transport", Status.WARNING, "stream only", "let it"),
            Finding("unix:/run/clamd", "MaxFileSize", Status.FAILED, "skips [bold]files[/]", LONG),
        ),
    ),
    Section("keys", (Finding("", "request secret", Status.SKIPPED, "/s\x1b[2J\udcff: closed"),)),
]


def shown(monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    monkeypatch.setenv("COLUMNS", "80")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        show(SECTIONS)
        sys.stdout.flush()
        return raw.getvalue().decode(encoding)


def test_lines_fit_80_columns_without_colours_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.rstrip() for line in lines] == [
        "clamd",
        "✓ ok      updates            by the service itself",
        "",
        "clamd unix:/run/clamd",
        "! warning transport          stream only",
        "                             to do: let it",
        "✗ failed  MaxFileSize        skips [bold]files[/]",
        "                             to do: set MaxFileSize 400M, MaxScanSize 400M in",
        "                             clamd.conf and restart clamd, then look again",
        "",
        "keys",
        "- skipped request secret     /s\\x1b[2J\\xff: closed",
        "",
        "1 ok, 1 warning, 1 failed, 1 skipped",
    ]


def test_a_terminal_that_knows_ascii_only_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, "ascii")
    assert "x failed  MaxFileSize" in text
    assert "+ ok      updates" in text


def test_the_document_has_every_finding_and_the_worst_status() -> None:
    document = json.loads(as_document(SECTIONS, "1.2"))
    assert {key: document[key] for key in ("version", "status")} == {"version": "1.2", "status": "failed"}
    assert document["findings"][1] == {
        "group": "clamd",
        "subject": "unix:/run/clamd",
        "name": "transport",
        "status": "warning",
        "found": "stream only",
        "advice": "let it",
    }
    assert len(document["findings"]) == 4
