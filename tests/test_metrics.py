from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from scanner.events import (
    ActionJudged,
    ActionsUnread,
    Answered,
    ArchiveJudged,
    AuditBroken,
    AuditSigned,
    BackendChanged,
    BadRequest,
    CanaryRan,
    Crashed,
    DecryptFailed,
    Delivered,
    Detected,
    EngineAnswered,
    EngineFailed,
    Event,
    FlightJoined,
    HomeserverTold,
    LibraryWarned,
    Observed,
    Occasion,
    Overridden,
    ProcessChanged,
    QuarantineFailed,
    QuarantineReplaced,
    QuarantineStored,
    Rejected,
    Reloaded,
    ReloadFailed,
    Scanned,
    SignaturesUpdated,
    Source,
    StageTimed,
    StoreFailed,
    UpstreamAnswered,
    VerdictLookedUp,
)
from scanner.media import MediaRef
from scanner.metric_labels import REASONS
from scanner.metrics import Metrics
from scanner.verdict import ContentId, Decision, Detection, Outcome, Override, Reason, Report, Verdict
from tests.contracts.event_sink import EventSinkContract
from tests.web.test_dialects import MATRIX_TABLE, TABLE

ROUTES = [("GET", "/scan/{media}"), ("POST", "/scan_encrypted")]
BACKENDS = [("clamav", "embedded"), ("clamav", "tcp:a:1")]
INFECTED = Verdict((Report("clamav", Outcome.INFECTED, detections=(Detection("Win.Trojan.Agent-1"),)),))
OCCASION = Occasion(MediaRef("example.org", "abc"), Source.DOWNLOAD, encrypted=True, request_id="r")

EVENTS: list[tuple[Event, dict[str, float]]] = [
    (
        Answered("/scan/{media}", "GET", 200, 0.5, "r"),
        {
            'http_requests_total{code="200",method="GET",route="/scan/{media}"}': 1,
            'http_request_duration_seconds_count{route="/scan/{media}"}': 1,
            'http_request_duration_seconds_sum{route="/scan/{media}"}': 0.5,
            'http_request_duration_seconds_bucket{le="0.5",route="/scan/{media}"}': 1,
        },
    ),
    (
        Answered("/scan_encrypted", "POST", 403, 0.5, "r", "MCS_MEDIA_NOT_CLEAN"),
        {
            'http_requests_total{code="403",method="POST",route="/scan_encrypted"}': 1,
            'blocked_responses_total{reason="MCS_MEDIA_NOT_CLEAN"}': 1,
        },
    ),
    (Rejected("overload"), {'requests_rejected_total{reason="overload"}': 1}),
    (
        UpstreamAnswered("homeserver", "200", 0.3),
        {
            'upstream_requests_total{code="200",upstream="homeserver"}': 1,
            'upstream_request_duration_seconds_sum{upstream="homeserver"}': 0.3,
        },
    ),
    (StageTimed("queue", 0.2), {'scan_duration_seconds_sum{stage="queue"}': 0.2}),
    (
        ArchiveJudged("zip", "unpacked", members=3, size=70_000),
        {
            'archive_answers_total{answer="unpacked",kind="zip"}': 1,
            "archive_members_total": 3,
            "archive_unpacked_bytes_total": 70_000,
        },
    ),
    (
        ArchiveJudged("other", "unscannable", Reason.DAMAGED),
        {
            'archive_answers_total{answer="unscannable",kind="other"}': 1,
            'archive_unscannable_total{reason="damaged"}': 1,
        },
    ),
    (DecryptFailed("hash"), {'decrypt_failures_total{reason="hash"}': 1}),
    (
        VerdictLookedUp("sqlite", "hit"),
        {'verdict_cache_requests_total{result="hit",tier="sqlite"}': 1},
    ),
    (FlightJoined("local"), {'singleflight_joined_total{scope="local"}': 1}),
    (
        EngineAnswered("clamav", "embedded", "found", 0.2),
        {
            'engine_requests_total{backend="embedded",engine="clamav",result="found"}': 1,
            'engine_request_duration_seconds_count{backend="embedded",engine="clamav"}': 1,
        },
    ),
    (
        Scanned(Source.SCAN, encrypted=False, size=3000, verdict=INFECTED),
        {
            'scans_total{encrypted="false",source="scan",verdict="infected"}': 1,
            'scanned_bytes_total{source="scan"}': 3000,
            'media_size_bytes_sum{source="scan"}': 3000,
        },
    ),
    (
        Detected(OCCASION, INFECTED, Decision(deliver=False, outcome=Outcome.INFECTED), 3000, None, 0.1),
        {'detections_total{category="trojan",encrypted="true",source="download"}': 1},
    ),
    (
        Observed(OCCASION, Outcome.UNSCANNABLE, Reason.ENCRYPTED_ARCHIVE),
        {
            'would_block_total{reason="encrypted_archive",source="download"}': 1,
            'fail_open_total{reason="observe"}': 1,
        },
    ),
    (
        Observed(OCCASION, Outcome.FAILED, "overload"),
        {
            'would_block_total{reason="overload",source="download"}': 1,
            'fail_open_total{reason="observe"}': 1,
        },
    ),
    (
        Observed(replace(OCCASION, source=Source.SCAN), Outcome.INFECTED, Reason.MALWARE),
        {
            'would_block_total{reason="malware",source="scan"}': 1,
            'fail_open_total{reason="observe"}': 0,
        },
    ),
    (Reloaded(("policy.mode",), ()), {}),
    (ReloadFailed("no such key"), {}),
    (CanaryRan("embedded", passed=True, seconds=0.25), {"canary_duration_seconds": 0.25}),
    (BadRequest("BadStatusLine"), {}),
    (Crashed("/scan/{media}", "KeyError", "a.py:1", "r"), {}),
    (EngineFailed("clamav", "gone"), {}),
    (BackendChanged("clamav", "embedded", "up"), {}),
    (StoreFailed("sqlite", "disk full"), {}),
    (ProcessChanged("clamd", "started"), {}),
    (Delivered(OCCASION, ContentId(b"c"), b"caller"), {}),
    (
        HomeserverTold("mxc://example.org/abc", "quarantined"),
        {'homeserver_quarantine_total{result="quarantined"}': 1},
    ),
    (HomeserverTold("", "failed", "gone"), {'homeserver_quarantine_total{result="failed"}': 1}),
    (QuarantineStored("s3", "v1/x", new=True), {'quarantine_writes_total{result="stored"}': 1}),
    (QuarantineStored("s3", "v1/x", new=False), {'quarantine_writes_total{result="existing"}': 1}),
    (QuarantineReplaced("s3", "v1/x"), {'quarantine_writes_total{result="replaced"}': 1}),
    (QuarantineFailed("s3", "v1/x", "gone"), {'quarantine_writes_total{result="failed"}': 1}),
    (SignaturesUpdated("failed", "no mirror"), {'signature_updates_total{result="failed"}': 1}),
    (LibraryWarned("asyncio", "slow"), {}),
    (
        Overridden(OCCASION, Outcome.INFECTED, Override(allow=True, reason="x", author="alice", expires=1.0)),
        {'overridden_total{override="allow"}': 1, 'overridden_total{override="deny"}': 0},
    ),
    (
        ActionJudged("x", "release", "forged", "0" * 64, "alice"),
        {'quarantine_actions_total{action="release",result="forged"}': 1},
    ),
    (ActionsUnread("gone"), {}),
    (AuditSigned(7, "0" * 64, "now", "scanner-1", "s", "k"), {}),
    (AuditBroken(7, "0" * 64), {}),
]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3", ROUTES, BACKENDS, "sqlite")


class TestMetrics(EventSinkContract):
    @pytest.fixture
    def sink(self, metrics: Metrics) -> Iterator[Metrics]:
        """One that can be scraped afterwards."""
        yield metrics
        metrics.render("")


def label(sample: Sample) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
    name = sample.name.removeprefix("media_scanner_")
    return f"{name}{{{labels}}}" if labels else name


def series(metrics: Metrics) -> dict[str, float]:
    """All samples of a scrape, without the prefix."""
    text = metrics.render("")[0].decode()
    return {label(sample): sample.value for family in parse_text(text) for sample in family.samples}


def test_every_kind_of_event_is_tried_here() -> None:
    assert {type(event) for event, _ in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize(("event", "expected"), EVENTS, ids=lambda value: type(value).__name__)
def test_event_counts_in_its_metrics(metrics: Metrics, event: Event, expected: dict[str, float]) -> None:
    metrics(event)
    assert {name: series(metrics)[name] for name in expected} == expected


def test_all_series_are_there_at_zero_before_anything_happens(metrics: Metrics) -> None:
    before = series(metrics)
    assert {name for name, value in before.items() if value} == {
        name for name in before if name.startswith("build_info")
    }
    for event, _ in EVENTS:
        metrics(event)
    assert series(metrics).keys() == before.keys()


def test_every_reason_of_ours_can_be_counted(metrics: Metrics) -> None:
    """Those of the scanner API, and errcodes."""
    assert set(REASONS) > {code for _, code in (*TABLE.values(), *MATRIX_TABLE.values())}
    for reason in REASONS:
        metrics(Answered("/scan/{media}", "GET", 404, 0, "r", reason))
    counted = series(metrics)
    assert {counted[f'blocked_responses_total{{reason="{reason}"}}'] for reason in REASONS} == {1}


def test_unclean_verdict_of_a_scan_is_no_refusal(metrics: Metrics) -> None:
    metrics(Answered("/scan/{media}", "GET", 200, 0, "r", "MCS_MEDIA_NOT_CLEAN"))
    assert series(metrics)['blocked_responses_total{reason="MCS_MEDIA_NOT_CLEAN"}'] == 0


def test_values_that_peers_invent_make_one_series(metrics: Metrics) -> None:
    metrics(Answered("unknown", "PROPFIND", 404, 0, "r"))
    before = series(metrics)
    for number in range(20):
        metrics(Answered(f"/{number}", f"METHOD{number}", 404, 0, "r", f"REASON{number}"))
        metrics(UpstreamAnswered("homeserver", str(600 + number), 0))
    after = series(metrics)
    assert after['http_requests_total{code="404",method="other",route="other"}'] == 21
    assert after.keys() - before.keys() == {
        'blocked_responses_total{reason="other"}',
        'upstream_requests_total{code="other",upstream="homeserver"}',
    }


def test_scanner_without_backends_counts_all_the_same() -> None:
    metrics = Metrics("1", ROUTES, [], "memory")
    metrics(EngineAnswered("clamav", "embedded", "clean", 0.1))
    assert series(metrics)['engine_requests_total{backend="other",engine="other",result="other"}'] == 1


def test_canary_success_is_a_time_and_stays_when_it_fails(metrics: Metrics) -> None:
    metrics(CanaryRan("embedded", passed=True, seconds=0.1))
    metrics(CanaryRan("embedded", passed=False, seconds=0.1))
    metrics(CanaryRan("embedded", passed=None, seconds=0.1))
    assert series(metrics)["canary_last_success_timestamp_seconds"] == pytest.approx(time.time(), abs=5)


def test_gauges_are_asked_at_every_scrape(metrics: Metrics) -> None:
    up = {("clamav", "embedded"): 1.0}
    metrics.gauge("engine_up", "Whether it answers.", up.items, ("engine", "backend"))
    metrics.gauge("scans_in_flight", "Now.", lambda: [((), len(up))])
    assert series(metrics)['engine_up{backend="embedded",engine="clamav"}'] == 1
    up |= {("clamav", "embedded"): 0.0, ("clamav", "tcp:a:1"): 1.0}
    assert series(metrics)['engine_up{backend="embedded",engine="clamav"}'] == 0
    assert series(metrics)["scans_in_flight"] == 2


def test_two_instances_share_nothing(metrics: Metrics) -> None:
    metrics(Rejected("overload"))
    assert series(Metrics("1", ROUTES, BACKENDS, "sqlite"))['requests_rejected_total{reason="overload"}'] == 0


def test_scraper_chooses_the_format(metrics: Metrics) -> None:
    payload, content_type = metrics.render("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    assert {
        family.name
        for family in parse_openmetrics(payload.decode())  # type: ignore[no-untyped-call]
    } == {family.name for family in parse_text(metrics.render("")[0].decode())}
    assert metrics.render("text/plain")[1] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
def test_a_version_that_is_no_number_is_no_crash(metrics: Metrics, kind: str) -> None:
    assert metrics.render(f"{kind}; version=1.x")[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_names_follow_the_conventions(metrics: Metrics) -> None:
    for family in parse_text(metrics.render("")[0].decode()):
        assert re.fullmatch(r"media_scanner_[a-z][a-z_]*[a-z]", family.name)
        assert family.documentation.endswith(".")
        assert family.type in {"counter", "gauge", "histogram"}
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes"))
