"""What `media-scanner quarantine` prints: tables for people, JSON and CSV for programs.

Names come from strangers: what a terminal or a spreadsheet would obey is made harmless here.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scanner.cli.scan_output import Finding, bar, note
from scanner.cli.terminal import one_line
from scanner.quarantine.catalogue import Content, State
from scanner.quarantine.markers import Marker
from scanner.quarantine.reading import Progress

SHOWN_DIGITS = 12
_OTHER_COLUMNS = 57
_TOP = 10
_STYLES = {State.MISSING: "bold red", State.UNRECORDED: "yellow", State.NOT_KEPT: "yellow"}
_COLUMNS = (
    *("last_seen", "sha256", "sha1", "md5", "size", "mime_type", "signatures"),
    *("detections", "state", "media", "sources", "encrypted"),
)
# Where a spreadsheet begins a cell, whatever separator it takes, and what makes it a formula.
_FORMULA = re.compile(r"(?:^|(?<=[,;|\"\t]))(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def document(content: Content) -> dict[str, Any]:
    """A content in brief, for JSON: its newest hashes, size and type, and what was seen of it."""
    last = content.last
    return {
        "sha256": content.sha256,
        "sha1": last.sha1 if last else "",
        "md5": last.md5 if last else "",
        "state": content.state,
        "held": content.held,
        "last_seen": content.seen.isoformat(timespec="milliseconds"),
        "detections": len(content.entries),
        "signatures": list(content.signatures),
        "size": last.size if last else None,
        "mime_type": last.mime_type if last else "",
        "media": sorted({entry.record.media for entry in content.entries if entry.record.media}),
        "sources": sorted({entry.record.source for entry in content.entries}),
        "encrypted": any(entry.record.encrypted for entry in content.entries),
    }


def as_csv(contents: Iterable[Content]) -> str:
    """A table with a header; several values of a cell are apart by spaces. No cell is a formula."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for content in contents:
        shown = document(content)
        writer.writerow([_cell(shown[name]) for name in _COLUMNS])
    return table.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = " ".join(value) if isinstance(value, list) else "" if value is None else str(value)
    return _FORMULA.sub("'", one_line(text))


def show_list(contents: Iterable[Content]) -> None:
    """A line for each content; the signature has what room the others leave."""
    target = console()
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("LAST SEEN (UTC)", no_wrap=True, width=16)
    table.add_column("SHA-256", no_wrap=True, width=SHOWN_DIGITS)
    table.add_column("SIGNATURE", no_wrap=True, max_width=max(target.width - _OTHER_COLUMNS, 9))
    table.add_column("SIZE", justify="right", no_wrap=True, width=8)
    table.add_column("SEEN", justify="right", no_wrap=True, width=5)
    table.add_column("STATE", no_wrap=True, width=10)
    for content in contents:
        size = content.last.size if content.last else None
        table.add_row(
            f"{content.seen:%Y-%m-%d %H:%M}",
            content.sha256[:SHOWN_DIGITS] or "-",
            safe(" ".join(content.signatures) or "-"),
            sized(size) if size is not None else "-",
            str(len(content.entries)),
            Text(words(content.state), _STYLES.get(content.state, "")),
        )
    target.print(table)


def show_rescans(done: Iterable[tuple[Content, str, Finding, bool]]) -> None:
    """Two lines for each content: what was said of it and what is said now, in colour if that differs."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("SHA-256", no_wrap=True, width=SHOWN_DIGITS)
    table.add_column("", no_wrap=True, width=4)
    table.add_column("VERDICT", overflow="fold")
    for content, then, now, differs in done:
        table.add_row(content.sha256[:SHOWN_DIGITS], "then", safe(f"{then} {' '.join(content.signatures)}"))
        table.add_row("", "now", Text.assemble((safe(_said(now)).plain, "bold yellow" if differs else "")))
    console().print(table)


def _said(finding: Finding) -> str:
    said = words(finding.result)
    return f"{said} {finding.info}" if finding.info else said


def statistics(contents: Sequence[Content]) -> dict[str, Any]:
    """How much there is of what, for JSON."""
    entries = [entry for content in contents for entry in content.entries]
    samples = [sample for content in contents for sample in content.samples]
    signatures = Counter(name for content in contents for name in content.signatures)
    days = Counter(f"{entry.at:%Y-%m-%d}" for entry in entries)
    return {
        "contents": len(contents),
        "detections": len(entries),
        "samples": len(samples),
        "bytes": sum(sample.size for sample in samples),
        "held": sum(content.held for content in contents),
        "states": dict(Counter(str(content.state) for content in contents).most_common()),
        "sources": dict(Counter(entry.record.source for entry in entries).most_common()),
        "encrypted": sum(entry.record.encrypted for entry in entries),
        "signatures": dict(signatures.most_common(_TOP)),
        "days": dict(sorted(days.items())),
    }


def show_statistics(counted: dict[str, Any]) -> None:
    """The same for people."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for name in ("contents", "detections", "samples", "held", "encrypted"):
        table.add_row(name, "", str(counted[name]))
    table.add_row("stored", "", sized(counted["bytes"]))
    for name in ("states", "sources", "signatures", "days"):
        for number, (value, times) in enumerate(counted[name].items()):
            table.add_row("" if number else name, safe(words(value)), str(times))
    console().print(table)


def tell(line: str) -> None:
    """One line of a result, on standard output."""
    typer.echo(_encodable(one_line(line)))


def tell_text(text: str) -> None:
    """Lines that are safe already."""
    typer.echo(_encodable(text), nl=False)


def tell_json(value: object) -> None:
    """A document, or a line of several, in ASCII."""
    typer.echo(json.dumps(value))


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A bar for work that may be long, where somebody sees one."""
    with bar() as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def sized(size: int) -> str:
    """Bytes, as people say it."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def note_ignored(markers: Sequence[Marker]) -> None:
    """That there are markers that do not count, on standard error."""
    if markers:
        note(f"{len(markers)} markers do not count, for want of a signature: see `quarantine verify`.")


def words(name: str) -> str:
    """A state as people read it."""
    return name.replace("_", " ")


def safe(text: str) -> Text:
    """Of one line, for a table."""
    return Text(_encodable(one_line(text)))


def _encodable(text: str) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def console() -> Console:
    """Prints tables and nothing else."""
    return Console(highlight=False, markup=False, emoji=False)
