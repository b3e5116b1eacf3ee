from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, generate_latest

from scanner.series import OTHER, Gauges, Series


def rendered(registry: CollectorRegistry) -> set[str]:
    return {line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")}


def test_declared_label_values_are_there_at_zero() -> None:
    registry = CollectorRegistry()
    Series(Counter("apples", "-", ("colour",), registry=registry), [("red",), ("green",)])
    assert {'apples_total{colour="red"} 0.0', 'apples_total{colour="green"} 0.0'} <= rendered(registry)


def test_any_other_value_counts_as_other() -> None:
    registry = CollectorRegistry()
    series = Series(Counter("apples", "-", ("colour", "size"), registry=registry), [("red", "big")])
    series["ultraviolet", "big"].inc()
    series["infrared", "big"].inc()
    assert f'apples_total{{colour="{OTHER}",size="big"}} 2.0' in rendered(registry)
    assert list(series) == [("red", "big")]


def test_gauges_are_asked_each_time() -> None:
    registry, values = CollectorRegistry(), iter([[(("a",), number)] for number in (1.0, 2.0, 3.0)])
    registry.register(Gauges("level", "-", lambda: next(values), ("tank",)))
    first, second = rendered(registry), rendered(registry)
    assert first != second
    assert all(line.startswith('level{tank="a"} ') for line in first | second)
