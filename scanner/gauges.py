"""Numbers that are read at every scrape from whoever has them; events count everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scanner.admission import Budget, Slots
from scanner.clamd.backend import ClamdBackend
from scanner.clamd.findings import ENGINE
from scanner.metrics import Metrics
from scanner.ports import VerdictCache
from scanner.series import Read


def add_gauges(
    metrics: Metrics,
    *,
    clamds: Sequence[ClamdBackend],
    cache: VerdictCache,
    budget: Budget,
    slots: Slots,
    requests: Callable[[], int],
    log_lines_dropped: Callable[[], int],
    last_update: Callable[[], float | None],
) -> None:
    """Tell `metrics` where its gauges are read; `requests` are those being answered.

    `last_update` gives the Unix time at which our freshclam last succeeded, None where it did not.
    """
    _add_engine_gauges(metrics, clamds)
    metrics.gauge("engine_queue_length", "Samples that wait for a slot.", lambda: [((), slots.waiting)])
    metrics.gauge("scans_in_flight", "Samples that hold a slot.", lambda: [((), slots.in_flight)])
    metrics.gauge("http_requests_in_flight", "Being answered.", lambda: [((), requests())])
    metrics.gauge(
        "verdict_cache_entries", "Remembered.", lambda: [((cache.name,), cache.entries())], ("tier",)
    )
    metrics.gauge("log_lines_dropped", "Log lines that nobody took.", lambda: [((), log_lines_dropped())])
    metrics.gauge(
        "signature_update_last_success_timestamp_seconds",
        "When our freshclam last found nothing newer, or brought it.",
        lambda: [((), at)] if (at := last_update()) is not None else [],
    )
    metrics.gauge("buffer_bytes", "Reserved.", lambda: [(("memfd",), budget.reserved)], ("kind",))
    metrics.gauge("buffer_limit_bytes", "At most.", lambda: [(("memfd",), budget.capacity)], ("kind",))


def add_configuration_gauges(
    metrics: Metrics, *, mode: Callable[[], str], last_reload: Callable[[], tuple[bool, float]]
) -> None:
    """`last_reload` tells whether the last one succeeded, and the Unix time of the last that did."""
    metrics.gauge(
        "policy_mode",
        "1 for the mode in force.",
        lambda: [((each,), each == mode()) for each in ("enforce", "observe")],
        ("mode",),
    )
    metrics.gauge(
        "config_last_reload_successful",
        "Whether the configuration could be used when it was last read.",
        lambda: [((), last_reload()[0])],
    )
    metrics.gauge(
        "config_last_reload_success_timestamp_seconds",
        "When the configuration was last read and put in force.",
        lambda: [((), last_reload()[1])],
    )


def add_quarantine_gauges(metrics: Metrics, *, pending: Callable[[], int], held: Callable[[], int]) -> None:
    """Samples and records that wait for the store, and the bytes of those samples."""
    metrics.gauge("quarantine_pending_objects", "Waiting for the store.", lambda: [((), pending())])
    metrics.gauge("quarantine_pending_bytes", "Of samples that wait.", lambda: [((), held())])


def add_homeserver_quarantine_gauge(metrics: Metrics, pending: Callable[[], int]) -> None:
    """Media that the homeserver is still to be told of."""
    metrics.gauge("homeserver_quarantine_pending", "Still to be told.", lambda: [((), pending())])


def add_override_gauges(metrics: Metrics, *, count: Callable[[], int], read_at: Callable[[], float]) -> None:
    """How many are in force, and the Unix time at which the store was last read."""
    metrics.gauge("overrides", "Analysts' decisions in force.", lambda: [((), count())])
    metrics.gauge(
        "overrides_read_timestamp_seconds",
        "When analysts' statements were last read from the store.",
        lambda: [((), read_at())],
    )


def _add_engine_gauges(metrics: Metrics, clamds: Sequence[ClamdBackend]) -> None:
    def each(read: Callable[[ClamdBackend], float | None]) -> Read:
        """One number for each clamd that has one."""
        return lambda: [
            ((ENGINE, clamd.name), value) for clamd in clamds if (value := read(clamd)) is not None
        ]

    by_backend = ("engine", "backend")
    metrics.gauge(
        "engine_up", "Whether it answers.", each(lambda clamd: clamd.up and clamd.trusted), by_backend
    )
    metrics.gauge(
        "engine_info",
        "Which clamd it is, with which signatures.",
        lambda: [((ENGINE, clamd.name, clamd.version.text), 1.0) for clamd in clamds if clamd.version],
        (*by_backend, "version"),
    )
    metrics.gauge(
        "engine_kept_old_signatures",
        "Whether it could not load the newest that it was given.",
        each(lambda clamd: bool(clamd.kept)),
        by_backend,
    )
    metrics.gauge("engine_in_flight", "Scans it has.", each(lambda clamd: clamd.in_flight), by_backend)
    metrics.gauge(
        "engine_signature_version",
        "Number of its daily signatures.",
        each(lambda clamd: clamd.version.signature_version if clamd.version else None),
        by_backend,
    )
    metrics.gauge(
        "engine_signature_timestamp_seconds",
        "When its signatures were made.",
        each(lambda clamd: clamd.version.signature_timestamp if clamd.version else None),
        by_backend,
    )
