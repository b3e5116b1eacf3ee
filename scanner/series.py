"""What prometheus_client lacks: metrics that are there from the start, and numbers that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import TypeVar

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase

OTHER = "other"

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)
Labels = tuple[str, ...]
# At every scrape: label values, in the order of the labels' names, and their number.
Read = Callable[[], Iterable[tuple[Sequence[str], float]]]


class Series(dict[Labels, _Metric]):
    """The children of one metric, made beforehand for all `declared` label values."""

    def __init__(self, metric: _Metric, declared: Iterable[Labels]) -> None:
        super().__init__({labels: metric.labels(*labels) for labels in declared})
        self._metric = metric
        self._known = [frozenset(values) for values in zip(*self, strict=True)]

    def __missing__(self, labels: Labels) -> _Metric:
        """Not kept: `labels` may be a peer's invention."""
        values = zip_longest(labels, self._known, fillvalue=frozenset[str]())
        return self._metric.labels(*(value if value in known else OTHER for value, known in values))


class Gauges:
    """A collector of numbers that somebody else knows."""

    def __init__(self, name: str, documentation: str, read: Read, labels: Sequence[str]) -> None:
        self._family = (name, documentation, labels)
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        name, documentation, labels = self._family
        family = GaugeMetricFamily(name, documentation, labels=labels)
        for values, number in self._read():
            family.add_metric(values, number)
        yield family
