"""Prometheus: an event sink that counts, and gauges that are asked at every scrape.

Nothing else increments a counter. Every label set is there from the start, at 0, because a counter whose
first sample is already 1 never shows an increase. A value that nobody declared counts as `other`, so
that no peer can make series.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import assert_never

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from scanner import metric_labels as values
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
    StageTimed,
    StoreFailed,
    UpstreamAnswered,
    VerdictLookedUp,
)
from scanner.series import OTHER, Gauges, Labels, Read, Series
from scanner.verdict import Category, Reason

_PREFIX = "media_scanner_"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
_SIZES = tuple(2**power for power in range(10, 26))


class Metrics:
    """An EventSink; gauges are added with `gauge`, and `render` is what `/metrics` answers.

    `routes` are pairs of method and template, `backends` pairs of engine and backend, `tier` is the
    verdict cache's name.
    """

    def __init__(
        self,
        version: str,
        routes: Iterable[tuple[str, str]],
        backends: Iterable[tuple[str, str]],
        tier: str,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, and nobody asks for it
        self._registry = CollectorRegistry()
        build = [((version, platform.python_version()), 1.0)]
        self.gauge("build_info", "What runs here.", lambda: build, ("version", "python"))
        self._define_http(dict.fromkeys(routes))
        self._define_scans()
        self._define_archives()
        self._define_work(tuple(backends), tier)
        self._define_quarantine()

    def _define_http(self, routes: Iterable[tuple[str, str]]) -> None:
        self._requests = self._counter(
            "http_requests_total",
            "Requests answered.",
            ("route", "method", "code"),
            _possible_answers(routes),
        )
        self._request_seconds = self._histogram(
            "http_request_duration_seconds",
            "From a request's head to the last byte of its answer.",
            ("route",),
            [(template,) for _, template in routes],
            _SECONDS,
        )
        self._rejected = self._counter(
            "requests_rejected_total",
            "Requests turned away unscanned.",
            ("reason",),
            product(values.REJECTIONS),
        )
        self._blocked = self._counter(
            "blocked_responses_total", "Refusals.", ("reason",), product(values.REASONS)
        )

    def _define_scans(self) -> None:
        self._scans = self._counter(
            "scans_total",
            "Contents judged by the engines; recalled verdicts do not count.",
            ("source", "verdict", "encrypted"),
            product(values.SOURCES, values.OUTCOMES.values(), values.BOOLEANS.values()),
        )
        self._scanned_bytes = self._counter(
            "scanned_bytes_total", "Sizes of the contents judged.", ("source",), product(values.SOURCES)
        )
        self._sizes = self._histogram(
            "media_size_bytes", "Sizes of the contents judged.", ("source",), product(values.SOURCES), _SIZES
        )
        self._detections = self._counter(
            "detections_total",
            "Requests for infected media, recalled verdicts included.",
            ("source", "encrypted", "category"),
            product(values.SOURCES, values.BOOLEANS.values(), Category),
        )
        self._would_block = self._counter(
            "would_block_total",
            "Requests that enforcing would have refused, counted while the policy observes.",
            ("source", "reason"),
            product(values.SOURCES, values.OBJECTIONS),
        )
        self._fail_open = self._counter(
            "fail_open_total",
            "Media handed over although they should have been withheld.",
            ("reason",),
            [("observe",)],
        )
        self._decrypt_failures = self._counter(
            "decrypt_failures_total",
            "Attachments that did not decrypt.",
            ("reason",),
            product(values.DECRYPT_FAILURES),
        )
        self._stage_seconds = self._histogram(
            "scan_duration_seconds", "Stages of scans.", ("stage",), product(values.STAGES), _SECONDS
        )

    def _define_archives(self) -> None:
        self._archives = self._counter(
            "archive_answers_total",
            "Archives and documents that the engines judged.",
            ("kind", "answer"),
            product(values.KINDS, values.ANSWERS),
        )
        self._archive_reasons = self._counter(
            "archive_unscannable_total", "Why those were that are.", ("reason",), product(Reason)
        )
        self._archive_members = self._total("archive_members_total", "Files unpacked.")
        self._archive_bytes = self._total("archive_unpacked_bytes_total", "Their sizes.")
        self._worker_restarts = self._counter(
            "archive_worker_restarts_total",
            "Processes that had to be replaced.",
            ("reason",),
            product(values.ENDS),
        )

    def _define_work(self, backends: Sequence[tuple[str, str]], tier: str) -> None:
        self._lookups = self._counter(
            "verdict_cache_requests_total",
            "Verdicts asked of a cache.",
            ("tier", "result"),
            product([tier], values.LOOKUPS),
        )
        self._joined = self._counter(
            "singleflight_joined_total",
            "Requests that joined work under way.",
            ("scope",),
            product(["local"]),
        )
        self._engine_requests = self._counter(
            "engine_requests_total",
            "Answers of engines' backends.",
            ("engine", "backend", "result"),
            [(*backend, result) for backend, result in product(backends, values.RESULTS)],
        )
        self._engine_seconds = self._histogram(
            "engine_request_duration_seconds",
            "How long engines' backends took.",
            ("engine", "backend"),
            backends,
            _SECONDS,
        )
        self._upstream_requests = self._counter(
            "upstream_requests_total",
            "Answers of the servers behind us.",
            ("upstream", "code"),
            product(values.UPSTREAMS, values.UPSTREAM_CODES),
        )
        self._upstream_seconds = self._histogram(
            "upstream_request_duration_seconds",
            "How long the servers behind us took to answer.",
            ("upstream",),
            product(values.UPSTREAMS),
            _SECONDS,
        )
        self._signature_updates = self._counter(
            "signature_updates_total", "Runs of our freshclam.", ("result",), product(values.UPDATES)
        )
        self._canary_success = self._number(
            "canary_last_success_timestamp_seconds", "When a backend last answered the canary rightly."
        )
        self._canary_seconds = self._number("canary_duration_seconds", "How long the last canary took.")

    def _define_quarantine(self) -> None:
        self._quarantine_writes = self._counter(
            "quarantine_writes_total",
            "Samples and records on their way.",
            ("result",),
            product(values.WRITES),
        )
        self._homeserver_quarantine = self._counter(
            "homeserver_quarantine_total", "What became of media there.", ("result",), product(values.FATES)
        )
        self._actions = self._counter(
            "quarantine_actions_total",
            "Analysts' statements found in the store.",
            ("action", "result"),
            product(values.ACTIONS, values.STANDINGS),
        )
        self._overridden = self._counter(
            "overridden_total",
            "Decisions that an analyst made.",
            ("override",),
            product(values.OVERRIDES.values()),
        )

    def __call__(self, event: Event) -> None:  # noqa: C901, PLR0912 - one case for each event
        """Count `event`."""
        match event:
            case StageTimed():
                self._stage_seconds[(event.stage,)].observe(event.seconds)
            case Answered():
                self._count_answer(event)
            case VerdictLookedUp():
                self._lookups[event.tier, event.result].inc()
            case UpstreamAnswered():
                self._count_upstream(event)
            case EngineAnswered():
                self._count_engine(event)
            case Scanned():
                self._count_scan(event)
            case ArchiveJudged():
                self._count_archive(event)
            case FlightJoined(scope):
                self._joined[(scope,)].inc()
            case Detected():
                self._count_detection(event)
            case Observed():
                self._count_observed(event)
            case DecryptFailed(cause):
                self._decrypt_failures[(cause,)].inc()
            case Rejected(cause):
                self._rejected[(cause,)].inc()
            case QuarantineStored() | QuarantineFailed() | QuarantineReplaced():
                self._count_write(event)
            case HomeserverTold(result=result):
                self._homeserver_quarantine[(result,)].inc()
            case ActionJudged(action=action, result=result):
                self._actions[action, result].inc()
            case Overridden(override=override):
                self._overridden[(values.OVERRIDES[override.allow],)].inc()
            case SignaturesUpdated(result):
                self._signature_updates[(result,)].inc()
            case ProcessChanged("unpacking", "ended", reason):
                self._worker_restarts[(reason,)].inc()
            case CanaryRan():
                self._count_canary(event)
            case ActionsUnread() | AuditBroken() | AuditSigned() | BackendChanged() | BadRequest():
                pass  # these and the next lines' are for the log
            case Crashed() | Delivered() | EngineFailed() | LibraryWarned() | ProcessChanged():
                pass
            case Reloaded() | ReloadFailed() | StoreFailed():
                pass
            case _:
                assert_never(event)

    def gauge(self, name: str, documentation: str, read: Read, labels: Sequence[str] = ()) -> None:
        """Add gauges that `read` knows; without labels, of one number and an empty tuple."""
        self._registry.register(Gauges(_PREFIX + name, documentation, read, labels))

    def render(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that the Accept header asks for, and its content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except TypeError:  # it compares versions, and one of them is no number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def _count_answer(self, event: Answered) -> None:
        self._requests[event.route, event.method, str(event.code)].inc()
        self._request_seconds[(event.route,)].observe(event.seconds)
        if event.reason is not None and event.code >= 400:
            self._blocked[(event.reason,)].inc()

    def _count_upstream(self, event: UpstreamAnswered) -> None:
        self._upstream_requests[event.upstream, event.code].inc()
        self._upstream_seconds[(event.upstream,)].observe(event.seconds)

    def _count_engine(self, event: EngineAnswered) -> None:
        self._engine_requests[event.engine, event.backend, event.result].inc()
        self._engine_seconds[event.engine, event.backend].observe(event.seconds)

    def _count_scan(self, event: Scanned) -> None:
        source = (event.source.value,)
        self._scans[*source, values.OUTCOMES[event.verdict.outcome], values.BOOLEANS[event.encrypted]].inc()
        self._scanned_bytes[source].inc(event.size)
        self._sizes[source].observe(event.size)

    def _count_archive(self, event: ArchiveJudged) -> None:
        self._archives[event.kind, event.answer].inc()
        self._archive_members.inc(event.members)
        self._archive_bytes.inc(event.size)
        if event.reason is not None:
            self._archive_reasons[(event.reason,)].inc()

    def _count_write(self, event: QuarantineStored | QuarantineFailed | QuarantineReplaced) -> None:
        result = "replaced" if isinstance(event, QuarantineReplaced) else "failed"
        if isinstance(event, QuarantineStored):
            result = "stored" if event.new else "existing"
        self._quarantine_writes[(result,)].inc()

    def _count_detection(self, event: Detected) -> None:
        category = next((found.category for found in event.verdict.detections), Category.OTHER)
        self._detections[event.occasion.source, values.BOOLEANS[event.occasion.encrypted], category].inc()

    def _count_observed(self, event: Observed) -> None:
        self._would_block[event.occasion.source, event.reason or OTHER].inc()
        if event.delivered:
            self._fail_open[("observe",)].inc()

    def _count_canary(self, event: CanaryRan) -> None:
        self._canary_seconds.set(event.seconds)
        if event.passed:
            self._canary_success.set(time.time())

    def _counter(
        self, name: str, documentation: str, labels: Sequence[str], declared: Iterable[Labels]
    ) -> Series[Counter]:
        return Series(Counter(_PREFIX + name, documentation, labels, registry=self._registry), declared)

    def _histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        declared: Iterable[Labels],
        buckets: Sequence[float],
    ) -> Series[Histogram]:
        metric = Histogram(_PREFIX + name, documentation, labels, registry=self._registry, buckets=buckets)
        return Series(metric, declared)

    def _total(self, name: str, documentation: str) -> Counter:
        return Counter(_PREFIX + name, documentation, registry=self._registry)

    def _number(self, name: str, documentation: str) -> Gauge:
        return Gauge(_PREFIX + name, documentation, registry=self._registry)


def _possible_answers(routes: Iterable[tuple[str, str]]) -> Iterator[Labels]:
    """Route, method and code of the answers there can be, but for those to a wrong method."""
    for method, template in routes:
        yield template, "OPTIONS", "204"
        for answered in ("GET", "HEAD") if method == "GET" else (method,):
            for code in values.CODES:
                yield template, answered, code
