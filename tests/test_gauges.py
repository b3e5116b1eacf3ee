"""Gauges: whoever has a number is asked at every scrape."""

from __future__ import annotations

from scanner.admission import Budget, Slots
from scanner.clamd.backend import Clamd, ClamdBackend
from scanner.clamd.control import ClamdVersion
from scanner.clamd.protocol import ClamdAddress
from scanner.gauges import (
    add_configuration_gauges,
    add_gauges,
    add_homeserver_quarantine_gauge,
    add_override_gauges,
)
from scanner.metrics import Metrics
from scanner.verdict_cache.memory import Memory


def backend(name: str) -> ClamdBackend:
    address = ClamdAddress.parse("unix:/nonexistent/clamd.sock")
    return ClamdBackend(Clamd(address, name=name), publish=lambda _: None, scan_timeout=1.0)


def scraped(metrics: Metrics) -> list[str]:
    text, _ = metrics.render("")
    return [line.removeprefix("media_scanner_") for line in text.decode().splitlines()]


async def test_gauges_follow_what_they_are_read_from() -> None:
    clamds, budget, slots, requests = [backend("one"), backend("two")], Budget(800, 1.0), Slots(1, 1.0), [0]
    metrics, updated = Metrics("1", [], [], "memory"), list[float | None]([None])
    add_gauges(
        metrics,
        clamds=clamds,
        cache=Memory(),
        budget=budget,
        slots=slots,
        requests=lambda: requests[0],
        log_lines_dropped=lambda: 3,
        last_update=lambda: updated[0],
    )
    before = scraped(metrics)
    assert 'engine_up{backend="one",engine="clamav"} 0.0' in before
    assert 'engine_kept_old_signatures{backend="one",engine="clamav"} 0.0' in before
    assert not any(line.startswith("engine_signature_version{") for line in before)
    assert not any(line.startswith("signature_update_last_success") for line in before)

    clamds[0].up = True
    clamds[0].version = ClamdVersion.parse("ClamAV 1.4.3/27000/Wed Jan  1 00:00:00 2025")
    requests[0], updated[0] = 2, 1_700_000_000.0
    with await slots.take(1):
        await budget.downloads.reserve(100, "alice")
        after = scraped(metrics)
    assert 'engine_up{backend="one",engine="clamav"} 1.0' in after
    assert 'engine_up{backend="two",engine="clamav"} 0.0' in after
    assert 'engine_signature_version{backend="one",engine="clamav"} 27000.0' in after
    assert "http_requests_in_flight 2.0" in after
    assert "scans_in_flight 1.0" in after
    assert 'buffer_bytes{kind="memfd"} 100.0' in after
    assert "log_lines_dropped 3.0" in after
    assert "signature_update_last_success_timestamp_seconds 1.7e+09" in after
    assert 'verdict_cache_entries{tier="memory"} 0.0' in after


def test_what_the_homeserver_is_to_be_told_is_a_gauge() -> None:
    metrics = Metrics("1", [], [], "memory")
    add_homeserver_quarantine_gauge(metrics, lambda: 3)
    assert "homeserver_quarantine_pending 3.0" in scraped(metrics)


def test_the_mode_in_force_and_the_last_reload_are_gauges() -> None:
    metrics, mode, last_reload = Metrics("1", [], [], "memory"), ["enforce"], [(True, 1_700_000_000.5)]
    add_configuration_gauges(metrics, mode=lambda: mode[0], last_reload=lambda: last_reload[0])
    before = scraped(metrics)
    assert 'policy_mode{mode="enforce"} 1.0' in before
    assert 'policy_mode{mode="observe"} 0.0' in before
    assert "config_last_reload_successful 1.0" in before
    assert "config_last_reload_success_timestamp_seconds 1.7000000005e+09" in before
    mode[0], last_reload[0] = "observe", (False, 1_700_000_000.5)
    after = scraped(metrics)
    assert 'policy_mode{mode="observe"} 1.0' in after
    assert "config_last_reload_successful 0.0" in after


def test_what_analysts_decided_is_a_gauge() -> None:
    metrics = Metrics("1", [], [], "memory")
    add_override_gauges(metrics, count=lambda: 3, read_at=lambda: 1_700_000_000.0)
    assert {"overrides 3.0", "overrides_read_timestamp_seconds 1.7e+09"} <= {*scraped(metrics)}
