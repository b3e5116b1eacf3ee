"""JSON lines on standard output, with the names of the Elastic Common Schema.

The rules of this module: a line holds the fields that are written here one by one, and nothing else of an
event; a detection is exactly one line and the last to be given up; whoever reads our output slowly, or not
at all, never stops the service.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import secrets
import select
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Self, assert_never

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
from scanner.verdict import Category, Detection, Outcome, Report, Verdict

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR
Fields = dict[str, Any]

_ECS = {"version": "8.11.0"}
_BAD_STATES = frozenset({"down", "ended", "kept", "missing", "problem", "restarting", "untrusted"})
_GOOD_STANDINGS = frozenset({"approved", "waiting", "expired"})
_UPDATE_LEVELS = {"updated": INFO, "current": DEBUG}
_CANARY_LEVELS = {True: INFO, None: WARNING, False: ERROR}
_CANARY_WORDS = {True: "passed", None: "no answer", False: "wrong answer"}
# What was done, by whether the policy only observes; ECS has no outcome for what is mere information.
_ACTIONS: dict[bool, Fields] = {
    False: {"type": ["denied"], "action": "media-blocked", "outcome": "success"},
    True: {"type": ["info"], "action": "media-would-block"},
}
# As Elastic's rules have it: 21 is low, 47 medium, 73 high.
_SEVERITIES = {Category.TEST: 21, Category.PUA: 47, Category.HEURISTIC: 47}
_HIGH = 73

_MAX_TEXT = 1_000
_MAX_CONTENTS = 10_000
_MAX_LINES = 2_000
_MAX_DETECTIONS = 50_000
_STOP_TIMEOUT = 2.0
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Log:
    """An EventSink; use it as an async context manager.

    Lines below `level` are left out, but for detections. `version` stands in detections, `fd` is where
    the lines go.
    """

    def __init__(self, level: str = "info", *, version: str = "", fd: int = 1) -> None:
        self.set_level(level)
        self._observer = {"vendor": "matrix-media-scanner", "product": "media-scanner", "version": version}
        self._writer = _Writer(fd)
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._canaries: dict[str, bool | None] = {}

    async def __aenter__(self) -> Self:
        self._writer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.stop()

    def set_level(self, level: str) -> None:
        """`debug`, `info`, `warning` or `error`, from the next line on."""
        self._level = logging.getLevelNamesMapping()[level.upper()]

    @property
    def dropped(self) -> int:
        """How many lines were given up because nobody read them."""
        return self._writer.dropped

    def __call__(self, event: Event) -> None:  # noqa: C901, PLR0912, PLR0915 - one case for each event
        """Write what `event` deserves: one line, or none."""
        match event:
            case StageTimed() | VerdictLookedUp() | FlightJoined() | EngineAnswered() | UpstreamAnswered():
                pass  # these and the next line's are for the metrics
            case ArchiveJudged() | Scanned() | Delivered() | DecryptFailed() | Rejected():
                pass
            case Answered():
                self._answered(event)
            case Detected():
                self._writer.put(self._detection(event), _MAX_DETECTIONS)
            case Observed():
                self._observed(event)
            case Reloaded():
                self._reloaded(event)
            case ReloadFailed(problem):
                self._line(ERROR, "configuration refused", {"problem": problem})
            case CanaryRan():
                self._canary_ran(event)
            case BackendChanged(engine, backend, state, detail):
                fields = {"backend": backend, "detail": detail}
                self._line(_change_level(state), f"{engine} {state}", fields)
            case ProcessChanged(process, state, detail):
                self._line(_change_level(state), f"{process} {state}", {"detail": detail})
            case SignaturesUpdated(result, detail):
                self._line(_UPDATE_LEVELS.get(result, WARNING), f"signatures {result}", {"detail": detail})
            case EngineFailed(engine, problem):
                self._line(WARNING, "engine failed", {"engine": engine, "problem": problem})
            case StoreFailed(store, problem):
                self._line(WARNING, "verdict cache failed", {"store": store, "problem": problem})
            case QuarantineFailed():
                self._line(ERROR, "quarantine failed", asdict(event))
            case QuarantineReplaced():
                self._line(ERROR, "quarantine store replaces", asdict(event))
            case QuarantineStored(store, name, new):
                self._line(INFO, "quarantined", {"store": store, "name": name, "new": new})
            case HomeserverTold(media, result, problem):
                fields = {"mxc": media, "problem": problem}
                self._line(WARNING if problem else INFO, f"homeserver quarantine {result}", fields)
            case Overridden():
                self._overridden(event)
            case ActionJudged():
                level = INFO if event.result in _GOOD_STANDINGS else WARNING
                self._line(level, f"action {event.result}", asdict(event))
            case ActionsUnread(problem):
                told = "cannot be read" if problem else "can be read again"
                self._line(WARNING if problem else INFO, f"actions {told}", {"problem": problem})
            case AuditSigned():
                self._line(INFO, "audit head", asdict(event))
            case AuditBroken():
                self._line(ERROR, "audit chain broken", asdict(event))
            case Crashed(route, problem, where, request_id):
                fields = {"route": route, "problem": problem, "where": where}
                self._line(ERROR, "crashed", fields, request_id)
            case LibraryWarned(library, message):
                self._line(WARNING, "library", {"library": library, "problem": message})
            case BadRequest(problem):
                self._line(INFO, "bad request", {"problem": problem})
            case _:
                assert_never(event)

    def _answered(self, event: Answered) -> None:
        quiet = event.code < 400 or event.route.startswith("/health/")  # which is asked again and again
        level = DEBUG if quiet else INFO if event.code < 500 else WARNING
        if level >= self._level:
            fields = {
                "route": event.route,
                "method": event.method,
                "code": event.code,
                "seconds": round(event.seconds, 4),
                "reason": event.reason,
                "mxc": event.ref and str(event.ref),
            }
            self._line(level, "answered", fields, event.request_id)

    def _observed(self, event: Observed) -> None:
        """But for what is infected: that has its own line."""
        if event.outcome is Outcome.INFECTED:
            return
        fields = {
            "mxc": event.occasion.ref and str(event.occasion.ref),
            "encrypted": event.occasion.encrypted,
            "source": event.occasion.source,
            "verdict": event.outcome.name.lower(),
            "reason": event.reason,
        }
        self._line(INFO, "would withhold", fields, event.occasion.request_id)

    def _overridden(self, event: Overridden) -> None:
        override = event.override
        fields = {
            "mxc": str(event.occasion.ref),
            "source": event.occasion.source,
            "verdict": event.outcome.name.lower(),
            "author": override.author,
            "reason": override.reason,
        }
        fate = "handed over" if override.allow else "withheld"
        self._line(INFO, f"{fate} by an analyst", fields, event.occasion.request_id)

    def _reloaded(self, event: Reloaded) -> None:
        fields = {"changed": list(event.changed), "needs_restart": list(event.pending)}
        self._line(WARNING if event.pending else INFO, "configuration reloaded", fields)

    def _canary_ran(self, event: CanaryRan) -> None:
        """A backend that is asked every second gets a line when its answer changes; none while it starts."""
        changed = self._canaries.get(event.backend) is not event.passed
        self._canaries[event.backend] = event.passed
        level = _CANARY_LEVELS[event.passed] if changed else DEBUG
        self._line(level, f"canary: {_CANARY_WORDS[event.passed]}", {"backend": event.backend})

    def _line(self, level: int, message: str, fields: Fields, request_id: str | None = None) -> None:
        if level >= self._level:
            trace = {"id": request_id} if request_id else None
            line = _rendered(level, message, {"trace": trace, "media_scanner": fields})
            self._writer.put(line, _MAX_LINES)

    def _detection(self, event: Detected) -> bytes:
        """Exactly what docs/schemas/detection.json says (facts/operations.md, section 5)."""
        occasion, verdict = event.occasion, event.verdict
        report, found = _finding(verdict)
        fields = {
            "event": {
                "kind": "alert",
                "category": ["malware"],
                **_ACTIONS[event.decision.observed],
                "id": _ulid(),
                "severity": _SEVERITIES.get(found.category, _HIGH),
                "provider": "media-scanner",
                "duration": int(event.seconds * 1e9),
            },
            "file": {"hash": _hashes(verdict), "size": event.size, "mime_type": verdict.mime_type},
            "rule": {"name": found.signature, "category": found.category, "ruleset": report.version},
            "observer": self._observer,
            "threat": {"indicator": {"type": "file"}},
            "trace": {"id": occasion.request_id},
            "media_scanner": {
                "mxc": occasion.ref and str(occasion.ref),
                "encrypted": occasion.encrypted,
                "source": occasion.source,
                "verdict": verdict.outcome.name.lower(),
                "engine": report.engine,
                "engine_version": report.version,
                "ciphertext_sha256": event.ciphertext_sha256,
                "canary": False,
                "test": found.category is Category.TEST,
                "first_seen": _rfc3339(verdict.judged_at),
                "seen_count": self._count(verdict.hashes.sha256 if verdict.hashes else str(occasion.ref)),
                "policy": "observe" if event.decision.observed else "enforce",
                "request_id": occasion.request_id,
            },
        }
        fate = "would be withheld" if event.decision.observed else "withheld"
        return _rendered(WARNING, f"infected media {fate}: {found.signature}", fields)

    def _count(self, content: str) -> int:
        """How often this content was asked for; those not asked for lately are forgotten."""
        self._seen[content] = self._seen.get(content, 0) + 1
        self._seen.move_to_end(content)
        if len(self._seen) > _MAX_CONTENTS:
            self._seen.popitem(last=False)
        return self._seen[content]


class _Writer:
    """A thread that writes lines; filling its queue never waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._writable = select.poll()
        self._writable.register(fd, select.POLLOUT)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # A daemon: one that hangs in a stalled pipe must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, within two seconds."""
        self._lines.put(b"")
        self._thread.join(_STOP_TIMEOUT)

    def put(self, line: bytes, limit: int) -> None:
        """Drop `line` where `limit` lines wait already."""
        if self._lines.qsize() < limit:
            self._lines.put(line)
        else:
            self.dropped += 1

    def _run(self) -> None:
        while line := self._lines.get():
            try:
                self._write(line)
            except OSError:  # nobody will ever read this: a closed pipe, a full disk
                self.dropped += 1

    def _write(self, line: bytes) -> None:
        """Not through `sys.stdout`: a thread that is stuck in it hangs the interpreter's exit."""
        while line:
            self._writable.poll()  # others who share a terminal or a pipe may have made it non-blocking
            with suppress(BlockingIOError):
                line = line[os.write(self._fd, line) :]


def _rendered(level: int, message: str, fields: Fields) -> bytes:
    head = {
        "@timestamp": _rfc3339(time.time()),
        "log": {"level": logging.getLevelName(level).lower()},
        "message": message,
        "ecs": _ECS,
    }
    return f"{_to_json(head | _known(fields))}\n".encode()


def _known(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can be
    """`value` without what is unknown or empty, and without endless texts."""
    if isinstance(value, dict):
        known = {name: _known(inner) for name, inner in value.items()}
        return {name: inner for name, inner in known.items() if inner not in (None, "", {})}
    return value[:_MAX_TEXT] if isinstance(value, str) else value


def _change_level(state: str) -> int:
    return WARNING if state in _BAD_STATES else INFO


def _finding(verdict: Verdict) -> tuple[Report, Detection]:
    """What decided: the first named finding, and the report that has it."""
    for report in verdict.reports:
        for detection in report.detections:
            return report, detection
    worst = max(verdict.reports, key=lambda report: report.outcome)
    return worst, Detection("unnamed")


def _hashes(verdict: Verdict) -> Fields | None:
    if verdict.hashes is None:
        return None
    return {name: getattr(verdict.hashes, name) for name in ("sha256", "sha1", "md5")}


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ulid() -> str:
    """48 bits of milliseconds and 80 random ones: sorts by time, and names an event for good."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
