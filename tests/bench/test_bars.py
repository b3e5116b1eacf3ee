"""Which bars are passed."""

from __future__ import annotations

import pytest

from tests.bench.bars import BARS, Bar
from tests.bench.made_up import measured, measurements, record
from tests.bench.scenarios import COMPARISON
from tests.bench.services import BenchError
from tests.bench.targets import PRODUCT, REFERENCE

TWICE_AS_FAST = record(
    measurements("fast-1", {REFERENCE: measured(files_s=10.0), PRODUCT: measured(files_s=20.0)})
)


@pytest.mark.parametrize(
    ("bar", "passed"),
    [
        ("fast-1.files_s>=2", True),
        ("fast-*.files_s >= 2.1", False),
        ("fast-1.files_s<=2", True),
        ("fast-1.files_s<=1.9", False),
        ("fast-1.scans>=1", True),
    ],
)
def test_a_bar_is_about_the_ratio_of_the_product_to_the_reference(bar: str, passed: bool) -> None:
    assert [judged.passed for judged in Bar.parse(bar).judge(TWICE_AS_FAST)] == [passed]


def test_a_bar_on_what_was_not_measured_is_missed() -> None:
    (judged,) = Bar.parse("slow-*.files_s>=0").judge(TWICE_AS_FAST)
    assert (judged.passed, judged.ratio) == (False, None)


@pytest.mark.parametrize("text", ["", "fast", "fast-1.files_s=2", "fast-1.files_s>=", "fast-1.speed>=2"])
def test_what_is_no_bar_is_refused(text: str) -> None:
    with pytest.raises(BenchError, match="is no bar"):
        Bar.parse(text)


@pytest.mark.parametrize("bar", BARS)
def test_the_bars_of_the_project_are_about_scenarios_that_run(bar: str) -> None:
    assert Bar.parse(bar).pattern in {scenario.name for scenario in COMPARISON}
