"""Figures that nobody measured, for the tests of what is made from figures."""

from __future__ import annotations

from tests.bench.record import Conditions, Measured, Measurements, Record

_MEASURED = Measured(
    files=100,
    seconds=1.0,
    files_s=100.0,
    mb_s=1.0,
    p50_ms=10.0,
    p95_ms=15.0,
    p99_ms=20.0,
    cpu_ms_file=5.0,
    clamd_cpu_ms_file=1.0,
    client_cpu_ms_file=0.1,
    origin_cpu_ms_file=0.1,
    mem_peak_mb=100.0,
    scans=100,
    fetches=100,
    background_files_s=0.0,
    errors={},
)
_CONDITIONS = Conditions(
    date="2026-01-02",
    command="python -m tests.bench run",
    processor="Some processor",
    cores=2,
    memory_mb=8000,
    python="3.11.0",
    product="1.0",
    clamd="ClamAV 1.4.6",
    scale=0,
    load_before=0.1,
    seconds=200,
)


def measured(**changes: object) -> Measured:
    return _MEASURED.model_copy(update=changes)


def measurements(name: str, *rounds: dict[str, Measured], callers: int = 8) -> Measurements:
    return Measurements(name=name, title=f"the scenario {name}", callers=callers, rounds=list(rounds))


def record(*scenarios: Measurements) -> Record:
    return Record(conditions=_CONDITIONS, scenarios=list(scenarios))
