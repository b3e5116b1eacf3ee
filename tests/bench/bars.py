"""Bars: what the ratio of the product to the reference has to be, such as `thumb-10k-c32.files_s>=5`."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from typing import NamedTuple, Self

from tests.bench.record import Measured, Measurements, Record
from tests.bench.services import BenchError
from tests.bench.targets import PRODUCT

# What a change must not make worse.
BARS = (
    "thumb-10k-c32.files_s>=5",
    "thumb-10k-c32.cpu_ms_file<=0.12",
    "scan-enc-100k-c8.files_s>=3",
    "dl-warm-1m-c8.files_s>=0.7",
    "burst-8x20m.mem_peak_mb<=0.6",
)

_BAR = re.compile(r"(?P<pattern>[\w*?-]+)\.(?P<metric>\w+)\s*(?P<order><=|>=)\s*(?P<limit>\d+(\.\d+)?)")


class Judged(NamedTuple):
    """One bar at one scenario; `ratio` is None where it was not measured."""

    where: str
    ratio: float | None
    wanted: str
    passed: bool


class Bar(NamedTuple):
    """For every scenario whose name fits the pattern."""

    pattern: str
    metric: str
    at_least: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BenchError."""
        found = _BAR.fullmatch(text.strip())
        if found is None or found["metric"] not in Measured.model_fields:
            raise BenchError(f"{text!r} is no bar; SCENARIO.METRIC>=RATIO or <=RATIO is")
        return cls(found["pattern"], found["metric"], found["order"] == ">=", float(found["limit"]))

    def judge(self, record: Record) -> list[Judged]:
        """At least one: what was not measured is missed."""
        fitting = [each for each in record.scenarios if fnmatch(each.name, self.pattern)]
        return [self._judged(each) for each in fitting] or [self._missing()]

    def _judged(self, measured: Measurements) -> Judged:
        ratio = measured.ratio(PRODUCT, self.metric)
        passed = ratio is not None and (ratio >= self.limit if self.at_least else ratio <= self.limit)
        return Judged(f"{measured.name}.{self.metric}", ratio, self._wanted(), passed)

    def _missing(self) -> Judged:
        return Judged(f"{self.pattern}.{self.metric}", None, self._wanted(), passed=False)

    def _wanted(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"
