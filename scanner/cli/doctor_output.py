"""What `media-scanner doctor` prints: lines for people, one document for programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scanner.cli.terminal import one_line
from scanner.doctor.examination import Section, worst
from scanner.doctor.finding import Finding, Status

# Symbol, the same in ASCII, and colour.
_MARKS = {
    Status.OK: ("✓", "+", "green"),
    Status.WARNING: ("!", "!", "yellow"),
    Status.FAILED: ("✗", "x", "bold red"),
    Status.SKIPPED: ("-", "-", "dim"),
}
_NAME_WIDTH = 18


def as_document(sections: Sequence[Section], version: str) -> str:
    """JSON: `version` of the product, the worst `status` of all, and all `findings` in order."""
    findings = [
        {"group": section.group, **asdict(finding)} for section in sections for finding in section.findings
    ]
    return json.dumps({"version": version, "status": worst(list(sections)), "findings": findings}, indent=2)


def show(sections: Sequence[Section]) -> None:
    """A table for each thing that was looked at, and a line that counts."""
    console = Console(highlight=False, markup=False, emoji=False)
    for section in sections:
        for subject, findings in groupby(section.findings, key=lambda finding: finding.subject):
            console.print(Text(one_line(f"{section.group} {subject}".strip()), "bold"))
            console.print(_table(findings, ascii_only=console.options.ascii_only))
            console.print()
    console.print(_summary(sections))


def _table(findings: Iterable[Finding], *, ascii_only: bool) -> Table:
    table = Table.grid(padding=(0, 1), pad_edge=False)
    table.add_column(width=1)
    table.add_column(width=len(Status.WARNING), no_wrap=True)
    table.add_column(width=_NAME_WIDTH)
    table.add_column(overflow="fold")
    for finding in findings:
        symbol, plain, style = _MARKS[finding.status]
        text = Text(_printable(finding.found))
        if finding.advice:
            text.append(f"\nto do: {_printable(finding.advice)}", "bold")
        table.add_row(
            Text(plain if ascii_only else symbol, style),
            Text(finding.status, style),
            Text(_printable(finding.name)),
            text,
        )
    return table


def _summary(sections: Sequence[Section]) -> str:
    counts = Counter(finding.status for section in sections for finding in section.findings)
    return ", ".join(f"{counts[status]} {status}" for status in _MARKS)


def _printable(text: str) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    return one_line(text).encode(encoding, "backslashreplace").decode(encoding)
