"""The page about performance: made from the figures beside it, and from no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.made_up import measured, measurements, record
from tests.bench.plots import draw, fingerprint
from tests.bench.publish import DOCS, PAGE, PUBLISHED, generated, publish
from tests.bench.record import Record
from tests.bench.scenarios import BY_SIZE, COMPARISON, UNDER_LOAD
from tests.bench.services import BenchError
from tests.bench.targets import FLOOR, PRODUCT, REFERENCE

PLOTS = ("throughput.svg", "latency.svg")


@pytest.fixture(scope="module")
def published() -> Record:
    return Record.load(DOCS / PUBLISHED)


def everything() -> Record:
    rates = {REFERENCE: measured(), PRODUCT: measured(files_s=1234.0, p50_ms=2.0), FLOOR: measured()}
    scenarios = [*COMPARISON, *BY_SIZE, *UNDER_LOAD]
    return record(*(measurements(each.name, rates, callers=each.callers) for each in scenarios))


def test_the_page_holds_the_table_of_the_figures_beside_it(published: Record) -> None:
    assert generated(published) in (DOCS / PAGE).read_text()


@pytest.mark.parametrize("plot", PLOTS)
def test_plots_are_shown_and_drawn_from_the_figures_beside_them(published: Record, plot: str) -> None:
    assert fingerprint(published) in (DOCS / plot).read_text()
    assert f"]({plot})" in (DOCS / PAGE).read_text()


def test_every_scenario_was_measured(published: Record) -> None:
    scenarios = [*COMPARISON, *BY_SIZE, *UNDER_LOAD]
    assert [each.name for each in published.scenarios] == [each.name for each in scenarios]


def test_no_answer_of_ours_was_wrong(published: Record) -> None:
    assert published.errors(PRODUCT) == {}


def test_publishing_replaces_what_was_made_and_leaves_the_rest(tmp_path: Path) -> None:
    old = generated(record())
    (tmp_path / PAGE).write_text(f"before\n{old}\nafter\n")
    figures = everything()
    written = publish(figures, tmp_path)
    assert {path.name for path in written} == {PAGE, PUBLISHED, *PLOTS}
    assert (tmp_path / PAGE).read_text() == f"before\n{generated(figures)}\nafter\n"
    assert Record.load(tmp_path / PUBLISHED) == figures


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("mine")
    with pytest.raises(BenchError, match="marks"):
        publish(everything(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [PAGE]


def test_the_same_figures_give_the_same_plots(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = draw(everything(), tmp_path / "a"), draw(everything(), tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_plot_without_figures_is_not_drawn(tmp_path: Path) -> None:
    assert draw(record(measurements("load-1", {PRODUCT: measured()}, callers=1)), tmp_path) == [
        tmp_path / "latency.svg"
    ]
