"""What was measured, as it is kept in JSON, and what follows from it: medians and ratios.

Ratios are made inside a round, where both targets met the same neighbours on the machine, and only then is
the median taken.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from tests.bench.targets import REFERENCE, TARGETS


class Measured(BaseModel):
    """One scenario against one target, once. `_ms` is milliseconds, `_file` per file, `mb` 10^6 bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: int
    seconds: float
    files_s: float
    mb_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms_file: float  # of the target's processes, those it started included
    clamd_cpu_ms_file: float
    client_cpu_ms_file: float
    origin_cpu_ms_file: float
    mem_peak_mb: float
    scans: int  # that clamd did
    fetches: int  # bodies that the media repository sent
    background_files_s: float
    errors: dict[str, int]  # what was wrong with answers, and how often

    def value(self, metric: str) -> float:
        """A metric by its name; `errors` is their number."""
        if metric == "errors":
            return sum(self.errors.values())
        value = getattr(self, metric)
        assert isinstance(value, float | int)
        return value


class Measurements(BaseModel):
    """Of one scenario: for each round what each target did."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    callers: int
    rounds: list[dict[str, Measured]]

    def targets(self) -> list[str]:
        """That took part."""
        return [name for name in TARGETS if any(name in each for each in self.rounds)]

    def median(self, target: str, metric: str) -> float:
        """Of the rounds; the sum for errors. Raises StatisticsError where the target took no part."""
        values = [each[target].value(metric) for each in self.rounds if target in each]
        return sum(values) if metric == "errors" else statistics.median(values)

    def ratio(self, target: str, metric: str, to: str = REFERENCE) -> float | None:
        """Median of the rounds' ratios; None where there is nothing to divide."""
        pairs = [
            (each[target].value(metric), each[to].value(metric))
            for each in self.rounds
            if target in each and to in each
        ]
        ratios = [value / other for value, other in pairs if other]
        return statistics.median(ratios) if ratios else None


class Conditions(BaseModel):
    """Where, when and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str
    command: str
    processor: str
    cores: int
    memory_mb: int
    python: str
    product: str
    clamd: str
    scale: float  # of the signatures
    load_before: float
    seconds: float


class Record(BaseModel):
    """A whole run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conditions: Conditions
    scenarios: list[Measurements]

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls.model_validate_json(path.read_bytes())

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1) + "\n")

    def named(self, names: Iterable[str]) -> list[Measurements]:
        """Those that were measured, in the order of the names."""
        measured = {each.name: each for each in self.scenarios}
        return [measured[name] for name in names if name in measured]

    def errors(self, target: str) -> dict[str, int]:
        """All that was wrong with a target's answers."""
        found: dict[str, int] = {}
        for each in (m for s in self.scenarios for r in s.rounds for name, m in r.items() if name == target):
            for what, number in each.errors.items():
                found[what] = found.get(what, 0) + number
        return found
