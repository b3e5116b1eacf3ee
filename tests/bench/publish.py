"""Puts a record into docs/: its JSON, the table made from it, the plots drawn from it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.bench.plots import draw
from tests.bench.record import Record
from tests.bench.scenarios import COMPARISON
from tests.bench.services import CHECKOUT, BenchError
from tests.bench.tables import conditions, markdown

DOCS = CHECKOUT / "docs"
PUBLISHED = "performance.json"
PAGE = "performance.md"

_BEGIN = "<!-- made by `make bench-docs` from performance.json -->"
_END = "<!-- end of what was made -->"


def publish(record: Record, docs: Path = DOCS) -> list[Path]:
    """The files that were written. Raises BenchError where the page has no place for the table."""
    page = docs / PAGE
    text = page.read_text()
    section = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if not section.search(text):
        raise BenchError(f"{page} has lost its marks: {_BEGIN} and {_END}")
    record.save(docs / PUBLISHED)
    page.write_text(section.sub(lambda _: generated(record), text))
    return [docs / PUBLISHED, page, *draw(record, docs)]


def generated(record: Record) -> str:
    """The part of the page that is made, marks included."""
    table = markdown(record, [each.name for each in COMPARISON])
    return f"{_BEGIN}\n{conditions(record)}\n\n{table}\n{_END}"
