"""The plots of docs/performance.md, from a record and nothing else."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.record import Measurements, Record
from tests.bench.scenarios import BY_SIZE, UNDER_LOAD
from tests.bench.tables import number
from tests.bench.targets import FLOOR, PRODUCT, REFERENCE, TARGETS

# Told apart by those who do not see red and green, and in print.
_COLOURS = {REFERENCE: "#8c8c8c", PRODUCT: "#1f6fb4", FLOOR: "#d9cfb8"}
_LABELS = {REFERENCE: "matrix-content-scanner", PRODUCT: "media-scanner", FLOOR: "floor (clamd alone)"}
_WIDTH = 0.27


def draw(record: Record, folder: Path) -> list[Path]:
    """The SVG files that could be drawn from what was measured."""
    plots = {"throughput.svg": _throughput, "latency.svg": _latency}
    drawn = []
    with _style():
        for name, plot in plots.items():
            if figure := plot(record):
                _save(figure, folder / name, record)
                drawn.append(folder / name)
    return drawn


def _style() -> AbstractContextManager[None]:
    """The same record gives the same bytes, with text that can be searched."""
    return mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "bench",
            "font.family": "sans-serif",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
        }
    )


def fingerprint(record: Record) -> str:
    """Stands in every plot, so that a plot of other figures is noticed."""
    return hashlib.sha256(record.model_dump_json().encode()).hexdigest()


def _save(figure: Figure, path: Path, record: Record) -> None:
    description = f"Drawn by tests/bench from figures with the SHA-256 {fingerprint(record)}"
    figure.savefig(path, metadata={"Date": None, "Creator": "tests/bench", "Description": description})
    # matplotlib leaves blanks at the ends of lines.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def _throughput(record: Record) -> Figure | None:
    """Bars of MB/s by size, files per second above them."""
    scenarios = record.named(each.name for each in BY_SIZE)
    if not scenarios:
        return None
    figure, axes = _blank("Scanning encrypted attachments, new ones, 8 at once: higher is better")
    for place, target in enumerate(TARGETS):
        measured = [(at, each) for at, each in enumerate(scenarios) if target in each.targets()]
        bars = axes.bar(
            [at + (place - 1) * _WIDTH for at, _ in measured],
            [each.median(target, "mb_s") for _, each in measured],
            _WIDTH * 0.94,
            color=_COLOURS[target],
            label=_LABELS[target],
        )
        rates = [number(each.median(target, "files_s")) for _, each in measured]
        axes.bar_label(bars, rates, padding=2, fontsize=8)
    axes.set_xticks(range(len(scenarios)), [_size(each.name) for each in scenarios])
    axes.set_ylabel("MB/s; above the bars: files/s")
    axes.grid(axis="y", color="#e5e5e5")
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    return figure


def _size(name: str) -> str:
    """`size-10k` is 10 KB."""
    return name.removeprefix("size-").replace("k", " KB").replace("m", " MB")


def _latency(record: Record) -> Figure | None:
    """Milliseconds by the number of callers, both axes logarithmic."""
    scenarios = record.named(each.name for each in UNDER_LOAD)
    if not scenarios:
        return None
    figure, axes = _blank("Scanning an encrypted 100 KB under load: lower is better")
    for target in (REFERENCE, PRODUCT):
        _latency_lines(axes, scenarios, target)
    callers = [each.callers for each in scenarios]
    axes.set_xscale("log", base=2)
    axes.set_xticks(callers, [str(each) for each in callers])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("requests at a time")
    axes.set_ylabel("milliseconds to the answer")
    axes.grid(color="#e5e5e5")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def _latency_lines(axes: Axes, scenarios: list[Measurements], target: str) -> None:
    measured = [each for each in scenarios if target in each.targets()]
    for metric, style, name in (("p50_ms", "-", "median"), ("p99_ms", "--", "99 of 100")):
        axes.plot(
            [each.callers for each in measured],
            [each.median(target, metric) for each in measured],
            style,
            color=_COLOURS[target],
            marker="o",
            markersize=4,
            label=f"{_LABELS[target]}, {name}",
        )


def _blank(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.6, 4.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11)
    return figure, axes
