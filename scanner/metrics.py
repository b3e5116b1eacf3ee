"""Prometheus: an event sink that counts, and gauges that are asked at every scrape.

Nothing else increments a counter. Every label set is there from the start, at 0, because a counter whose
first sample is already 1 never shows an increase. A value that nobody declared counts as `other`, so
that no peer can make series.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product, zip_longest
from typing import TypeVar, assert_never

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase

from scanner.events import (
    ActionJudged,
    ActionsUnread,
    Answered,
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
    Source,
    StageTimed,
    StoreFailed,
    UpstreamAnswered,
    VerdictLookedUp,
)
from scanner.verdict import Category, Outcome, Reason

# The reasons of the scanner API and the errcodes on the homeserver's routes (facts/wire.md): ours, and those
# that it says of media every day; its others count as `other`.
REASONS = (
    *("M_CANNOT_OVERWRITE_MEDIA", "M_FORBIDDEN", "M_LIMIT_EXCEEDED", "M_MISSING_TOKEN", "M_NOT_FOUND"),
    *("M_NOT_YET_UPLOADED", "M_TOO_LARGE", "M_UNKNOWN", "M_UNKNOWN_TOKEN"),
    *("MCS_BAD_DECRYPTION", "MCS_MALFORMED_JSON", "MCS_MEDIA_FAILED_TO_DECRYPT", "MCS_MEDIA_NOT_CLEAN"),
    *("MCS_MEDIA_REQUEST_FAILED", "MCS_MIME_TYPE_FORBIDDEN"),
)
_REJECTIONS = ("overload", "shutdown", "timeout", "too_large")
_OBJECTIONS = (*Reason, "overload", "timeout")
_RESULTS = ("clean", "found", "error", "timeout", "limit", "eof")
_DECRYPT_FAILURES = ("body", "hash", "key", "version")
_WRITES = ("stored", "existing", "replaced", "failed")
# `upstream.admin.Fate`, and `failed`.
_FATES = ("quarantined", "protected", "gone", "released", "failed")
# `quarantine.actions` knows these words; a test holds both to each other.
_ACTIONS = ("release", "allow", "deny", "forget", "delete", "hold", "unhold", "export", "other")
_STANDINGS = (
    *("approved", "waiting", "early", "expired", "forged", "other_store"),
    *("self_approved", "replayed", "malformed"),
)
_OVERRIDES = {True: "allow", False: "deny"}
_UPDATES = ("updated", "current", "cooldown", "failed")
_LOOKUPS = ("hit", "miss", "stale")
_UPSTREAMS = ("homeserver",)
_PREFIX = "media_scanner_"
_OTHER = "other"
_CODES = tuple(map(str, (200, 304, 400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 500, 502, 503, 504)))
_UPSTREAM_CODES = (*_CODES, "301", "302", "307", "308", "501", "error", "timeout")
_SOURCES = tuple(source.value for source in Source if source is not Source.CANARY)
_OUTCOMES = {outcome: outcome.name.lower() for outcome in Outcome}
_BOOLEANS = {False: "false", True: "true"}
_STAGES = ("queue", "fetch", "decrypt", "engine", "quarantine", "total")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
_SIZES = tuple(2**power for power in range(10, 26))

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)
_Labels = tuple[str, ...]
# At every scrape: label values, in the order of the labels' names, and their number.
Read = Callable[[], Iterable[tuple[Sequence[str], float]]]


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
            "requests_rejected_total", "Requests turned away unscanned.", ("reason",), product(_REJECTIONS)
        )
        self._blocked = self._counter("blocked_responses_total", "Refusals.", ("reason",), product(REASONS))

    def _define_scans(self) -> None:
        self._scans = self._counter(
            "scans_total",
            "Contents judged by the engines; recalled verdicts do not count.",
            ("source", "verdict", "encrypted"),
            product(_SOURCES, _OUTCOMES.values(), _BOOLEANS.values()),
        )
        self._scanned_bytes = self._counter(
            "scanned_bytes_total", "Sizes of the contents judged.", ("source",), product(_SOURCES)
        )
        self._sizes = self._histogram(
            "media_size_bytes", "Sizes of the contents judged.", ("source",), product(_SOURCES), _SIZES
        )
        self._detections = self._counter(
            "detections_total",
            "Requests for infected media, recalled verdicts included.",
            ("source", "encrypted", "category"),
            product(_SOURCES, _BOOLEANS.values(), Category),
        )
        self._would_block = self._counter(
            "would_block_total",
            "Requests that enforcing would have refused, counted while the policy observes.",
            ("source", "reason"),
            product(_SOURCES, _OBJECTIONS),
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
            product(_DECRYPT_FAILURES),
        )
        self._stage_seconds = self._histogram(
            "scan_duration_seconds", "Stages of scans.", ("stage",), product(_STAGES), _SECONDS
        )

    def _define_work(self, backends: Sequence[tuple[str, str]], tier: str) -> None:
        self._lookups = self._counter(
            "verdict_cache_requests_total",
            "Verdicts asked of a cache.",
            ("tier", "result"),
            product([tier], _LOOKUPS),
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
            [(*backend, result) for backend, result in product(backends, _RESULTS)],
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
            product(_UPSTREAMS, _UPSTREAM_CODES),
        )
        self._upstream_seconds = self._histogram(
            "upstream_request_duration_seconds",
            "How long the servers behind us took to answer.",
            ("upstream",),
            product(_UPSTREAMS),
            _SECONDS,
        )
        self._signature_updates = self._counter(
            "signature_updates_total", "Runs of our freshclam.", ("result",), product(_UPDATES)
        )
        self._canary_success = self._number(
            "canary_last_success_timestamp_seconds", "When a backend last answered the canary rightly."
        )
        self._canary_seconds = self._number("canary_duration_seconds", "How long the last canary took.")

    def _define_quarantine(self) -> None:
        self._quarantine_writes = self._counter(
            "quarantine_writes_total", "Samples and records on their way.", ("result",), product(_WRITES)
        )
        self._homeserver_quarantine = self._counter(
            "homeserver_quarantine_total", "What became of media there.", ("result",), product(_FATES)
        )
        self._actions = self._counter(
            "quarantine_actions_total",
            "Analysts' statements found in the store.",
            ("action", "result"),
            product(_ACTIONS, _STANDINGS),
        )
        self._overridden = self._counter(
            "overridden_total", "Decisions that an analyst made.", ("override",), product(_OVERRIDES.values())
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
                self._upstream_requests[event.upstream, event.code].inc()
                self._upstream_seconds[(event.upstream,)].observe(event.seconds)
            case EngineAnswered():
                self._engine_requests[event.engine, event.backend, event.result].inc()
                self._engine_seconds[event.engine, event.backend].observe(event.seconds)
            case Scanned():
                self._count_scan(event)
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
            case QuarantineStored(new=new):
                self._quarantine_writes[("stored" if new else "existing",)].inc()
            case QuarantineFailed():
                self._quarantine_writes[("failed",)].inc()
            case QuarantineReplaced():
                self._quarantine_writes[("replaced",)].inc()
            case HomeserverTold(result=result):
                self._homeserver_quarantine[(result,)].inc()
            case ActionJudged(action=action, result=result):
                self._actions[action, result].inc()
            case Overridden(override=override):
                self._overridden[(_OVERRIDES[override.allow],)].inc()
            case SignaturesUpdated(result):
                self._signature_updates[(result,)].inc()
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
        self._registry.register(_Gauges(_PREFIX + name, documentation, read, labels))

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

    def _count_scan(self, event: Scanned) -> None:
        source = (event.source.value,)
        self._scans[*source, _OUTCOMES[event.verdict.outcome], _BOOLEANS[event.encrypted]].inc()
        self._scanned_bytes[source].inc(event.size)
        self._sizes[source].observe(event.size)

    def _count_detection(self, event: Detected) -> None:
        category = next((found.category for found in event.verdict.detections), Category.OTHER)
        self._detections[event.occasion.source, _BOOLEANS[event.occasion.encrypted], category].inc()

    def _count_observed(self, event: Observed) -> None:
        self._would_block[event.occasion.source, event.reason or _OTHER].inc()
        if event.delivered:
            self._fail_open[("observe",)].inc()

    def _count_canary(self, event: CanaryRan) -> None:
        self._canary_seconds.set(event.seconds)
        if event.passed:
            self._canary_success.set(time.time())

    def _counter(
        self, name: str, documentation: str, labels: Sequence[str], declared: Iterable[_Labels]
    ) -> _Series[Counter]:
        return _Series(Counter(_PREFIX + name, documentation, labels, registry=self._registry), declared)

    def _histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        declared: Iterable[_Labels],
        buckets: Sequence[float],
    ) -> _Series[Histogram]:
        metric = Histogram(_PREFIX + name, documentation, labels, registry=self._registry, buckets=buckets)
        return _Series(metric, declared)

    def _number(self, name: str, documentation: str) -> Gauge:
        return Gauge(_PREFIX + name, documentation, registry=self._registry)


class _Series(dict[_Labels, _Metric]):
    """The children of one metric, made beforehand for all `declared` label values."""

    def __init__(self, metric: _Metric, declared: Iterable[_Labels]) -> None:
        super().__init__({labels: metric.labels(*labels) for labels in declared})
        self._metric = metric
        self._known = [frozenset(values) for values in zip(*self, strict=True)]

    def __missing__(self, labels: _Labels) -> _Metric:
        """Not kept: `labels` may be a peer's invention."""
        values = zip_longest(labels, self._known, fillvalue=frozenset[str]())
        return self._metric.labels(*(value if value in known else _OTHER for value, known in values))


class _Gauges:
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


def _possible_answers(routes: Iterable[tuple[str, str]]) -> Iterator[_Labels]:
    """Route, method and code of the answers there can be, but for those to a wrong method."""
    for method, template in routes:
        yield template, "OPTIONS", "204"
        for answered in ("GET", "HEAD") if method == "GET" else (method,):
            for code in _CODES:
                yield template, answered, code
