"""Medians, ratios, and that a record survives its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.made_up import measured, measurements, record
from tests.bench.record import Record
from tests.bench.targets import FLOOR, PRODUCT, REFERENCE


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() -> None:
    rounds = [
        {REFERENCE: measured(files_s=of_reference), PRODUCT: measured(files_s=of_product)}
        for of_reference, of_product in ((10, 20), (100, 300), (1000, 500))
    ]
    scenario = measurements("a", *rounds)
    assert scenario.ratio(PRODUCT, "files_s") == 2
    assert scenario.median(PRODUCT, "files_s") / scenario.median(REFERENCE, "files_s") == 3


def test_errors_are_summed_over_the_rounds() -> None:
    rounds = [{PRODUCT: measured(errors={"status 503": 2})}, {PRODUCT: measured(errors={"wrong verdict": 1})}]
    scenario = measurements("a", *rounds)
    assert scenario.median(PRODUCT, "errors") == 3
    assert record(scenario, scenario).errors(PRODUCT) == {"status 503": 4, "wrong verdict": 2}


@pytest.mark.parametrize("scans", [0, 5])
def test_nothing_is_divided_by_nothing(scans: int) -> None:
    scenario = measurements("a", {REFERENCE: measured(scans=0), PRODUCT: measured(scans=scans)})
    assert scenario.ratio(PRODUCT, "scans") is None


def test_who_took_no_part_has_no_ratio() -> None:
    assert measurements("a", {REFERENCE: measured()}).ratio(FLOOR, "files_s") is None


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    kept = record(measurements("a", {PRODUCT: measured(errors={"status 503": 2})}))
    kept.save(tmp_path / "folder" / "kept.json")
    assert Record.load(tmp_path / "folder" / "kept.json") == kept
