from __future__ import annotations

from scanner.containers.recognise import _FORMATS
from scanner.metric_labels import KINDS, OUTCOMES, SOURCES
from scanner.verdict import Outcome


def test_metrics_know_every_kind_of_container() -> None:
    assert set(KINDS) == set(_FORMATS)
    assert len(KINDS) == len(set(KINDS))


def test_the_canary_is_no_source_of_scans() -> None:
    assert "canary" not in SOURCES
    assert set(OUTCOMES) == set(Outcome)
