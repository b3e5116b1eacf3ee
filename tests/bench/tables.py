"""The figures for people: on a terminal, and as the table of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from tests.bench.bars import Judged
from tests.bench.record import Measurements, Record
from tests.bench.targets import PRODUCT, REFERENCE, TARGETS

_NONE = "-"
_MEASURED = {
    "files_s": "files/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "cpu_ms_file": "cpu ms",
    "mem_peak_mb": "MB",
    "errors": "wrong",
}
_COMPARED = {
    "files_s": "files/s",
    "p50_ms": "p50",
    "p99_ms": "p99",
    "cpu_ms_file": "cpu",
    "mem_peak_mb": "memory",
}


def measured_table(record: Record) -> Table:
    """Medians of the rounds; `cpu` is the proxy's per file, without clamd's."""
    table = _table("measured", ["scenario", ""], _MEASURED.values())
    for measured in record.scenarios:
        for row, target in enumerate(measured.targets()):
            values = [number(measured.median(target, metric)) for metric in _MEASURED]
            table.add_row("" if row else measured.name, target, *values)
    return table


def ratio_table(record: Record, target: str, to: str) -> Table | None:
    """None where the two never met."""
    table = _table(f"{target} / {to}", ["scenario"], _COMPARED.values())
    for measured in record.scenarios:
        if {target, to} <= set(measured.targets()):
            ratios = [_ratio(measured.ratio(target, metric, to)) for metric in _COMPARED]
            table.add_row(measured.name, *ratios)
    return table if table.row_count else None


def bars_table(judged: Iterable[Judged]) -> Table:
    table = _table("bars", ["bar"], ["ratio", "wanted", ""])
    for each in judged:
        table.add_row(
            each.where, _ratio(each.ratio, digits=3), each.wanted, "pass" if each.passed else "MISS"
        )
    return table


def markdown(record: Record, names: Iterable[str]) -> str:
    """Files per second of each target, then the product's ratios to the reference."""
    lines = [
        "| scenario | reference | ours | floor | files/s | p50 | p99 | proxy CPU per file | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_markdown_row(measured) for measured in record.named(names)]
    return "\n".join(lines)


def conditions(record: Record) -> str:
    """Where the figures are from."""
    where = record.conditions
    return (
        f"Measured on {where.date} by `{where.command}` in {where.seconds:.0f} s. Machine: {where.cores} x "
        f"{where.processor}, {where.memory_mb / 1000:.0f} GB, load average {where.load_before:g} before; "
        f"Python {where.python}, {where.clamd}, signatures of scale {where.scale:g}. "
        f"Wrong answers: {_errors(record, PRODUCT)} of ours, {_errors(record, REFERENCE)} of the reference."
    )


def _errors(record: Record, target: str) -> str:
    found = record.errors(target)
    return ", ".join(f"{number} x {what}" for what, number in found.items()) or "none"


def _markdown_row(measured: Measurements) -> str:
    rates = [_rate(measured, target) for target in TARGETS]
    ratios = [_times(measured.ratio(PRODUCT, metric)) for metric in _COMPARED]
    return f"| {' | '.join([measured.title, *rates, *ratios])} |"


def _rate(measured: Measurements, target: str) -> str:
    return number(measured.median(target, "files_s")) if target in measured.targets() else _NONE


def _times(ratio: float | None) -> str:
    return _NONE if ratio is None else f"{_ratio(ratio)}x"


def _ratio(ratio: float | None, digits: int = 2) -> str:
    return _NONE if ratio is None else number(ratio, digits)


def number(value: float, digits: int = 3) -> str:
    """So many digits that count, never with an exponent."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:.0f}" if rounded >= 10 ** (digits - 1) else f"{rounded:g}"


def _table(title: str, left: Iterable[str], right: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table
