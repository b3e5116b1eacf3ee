"""How figures are shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from tests.bench.bars import Judged
from tests.bench.made_up import measured, measurements, record
from tests.bench.tables import bars_table, conditions, markdown, measured_table, ratio_table
from tests.bench.targets import FLOOR, PRODUCT, REFERENCE

SCENARIO = measurements(
    "hol-small-behind-20m",
    {
        REFERENCE: measured(files_s=12345.6, cpu_ms_file=10.0, mem_peak_mb=8000.0),
        PRODUCT: measured(files_s=61728.0, cpu_ms_file=1.234, mem_peak_mb=432.1, errors={"status 503": 2}),
    },
)


def lines(table: Table | None) -> list[str]:
    assert table is not None
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_row_for_every_target_and_the_scenario_only_once() -> None:
    rows = [line.split() for line in lines(measured_table(record(SCENARIO)))[-2:]]
    assert rows[0][:3] == ["hol-small-behind-20m", "reference", "12300"]
    assert rows[1] == ["product", "61700", "10", "20", "1.23", "432", "2"]


def test_tables_fit_into_80_columns() -> None:
    assert not any("…" in line for line in lines(measured_table(record(SCENARIO))))


def test_ratios_are_of_the_two_that_were_asked_for() -> None:
    assert lines(ratio_table(record(SCENARIO), PRODUCT, REFERENCE))[-1].split() == [
        "hol-small-behind-20m", "5", "1", "1", "0.12", "0.054",
    ]  # fmt: skip


def test_there_is_no_table_of_ratios_to_who_took_no_part() -> None:
    assert ratio_table(record(SCENARIO), PRODUCT, FLOOR) is None


@pytest.mark.parametrize(("passed", "word"), [(True, "pass"), (False, "MISS")])
def test_bars_say_whether_they_were_passed(passed: bool, word: str) -> None:
    assert lines(bars_table([Judged("a.files_s", 5.04, ">= 5", passed)]))[-1].split() == [
        "a.files_s", "5.04", ">=", "5", word,
    ]  # fmt: skip


def test_the_page_shows_rates_and_ratios() -> None:
    assert markdown(record(SCENARIO), ["hol-small-behind-20m", "not-measured"]).splitlines()[2:] == [
        "| the scenario hol-small-behind-20m | 12300 | 61700 | - | 5x | 1x | 1x | 0.12x | 0.054x |"
    ]


def test_wrong_answers_are_told() -> None:
    text = conditions(record(SCENARIO))
    assert text.endswith("Wrong answers: 2 x status 503 of ours, none of the reference.")
