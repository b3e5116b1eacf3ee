from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from scanner.event_sinks.log import Log
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
from scanner.verdict import Decision, Detection, Hashes, Outcome, Override, Reason, Report, Verdict
from tests.contracts.event_sink import EventSinkContract

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "detection.json").read_text())
REF = MediaRef("example.org", "abcDEF")
HASHES = Hashes("ab" * 32, "cd" * 20, "ef" * 16)
WITHHOLD = Decision(deliver=False, outcome=Outcome.INFECTED, reason=Reason.MALWARE)
OBSERVE = dataclasses.replace(WITHHOLD, deliver=True, observed=True)
OCCASION = Occasion(REF, Source.DOWNLOAD, encrypted=True, request_id="req1")
ALLOW = Override(allow=True, reason="a false positive", author="alice", expires=1e12)
NAMELESS = Occasion(None, Source.UPLOAD, encrypted=False, request_id="req1")


def infected(signature: str = "Win.Trojan.Agent-1", hashes: Hashes | None = HASHES) -> Verdict:
    reports = (
        Report("mime", Outcome.CLEAN, "544/x"),
        Report("clamav", Outcome.INFECTED, "ClamAV 1.4.6/27000", Reason.MALWARE, (Detection(signature),)),
    )
    return Verdict(reports, 1_700_000_000.25, "application/x-dosexec", hashes)


def detected(verdict: Verdict | None = None, source: Source = Source.DOWNLOAD) -> Detected:
    occasion = Occasion(REF, source, encrypted=True, request_id="req1")
    return Detected(occasion, verdict or infected(), WITHHOLD, 1234, "12" * 32, 0.25)


def answered(code: int, reason: str | None = None) -> Answered:
    return Answered("/download/{server}/{media}", "GET", code, 0.0123456, "req1", reason, REF)


class TestLog(EventSinkContract):
    @pytest.fixture
    async def sink(self) -> AsyncIterator[Log]:
        """One that nobody reads."""
        pipe = Pipe()
        async with Log("debug", fd=pipe.fd) as log:
            yield log
            pipe.abandon()
        pipe.hang_up()


class Pipe:
    """What the log writes into."""

    def __init__(self) -> None:
        self._source, self.fd = os.pipe()

    def hang_up(self) -> None:
        """Nothing more will be written."""
        os.close(self.fd)

    def lines(self) -> list[dict[str, Any]]:
        """All there is until the writer hangs up."""
        with os.fdopen(self._source) as source:
            return [json.loads(line) for line in source]

    def fill(self) -> None:
        """Until not a byte more goes in."""
        os.set_blocking(self.fd, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.fd, b" " * 4096)
        os.set_blocking(self.fd, True)

    def abandon(self) -> None:
        """Nobody will read it."""
        os.close(self._source)


@pytest.fixture
def logged() -> Callable[..., Any]:
    """What a log of `level` writes about `events`."""

    async def logged(*events: Event, level: str = "debug") -> list[dict[str, Any]]:
        pipe = Pipe()
        async with Log(level, version="1.2.3", fd=pipe.fd) as log:
            for event in events:
                log(event)
        pipe.hang_up()
        return pipe.lines()

    return logged


@pytest.mark.parametrize(
    "event",
    [
        detected(),
        *(detected(source=source) for source in Source if source is not Source.CANARY),
        dataclasses.replace(detected(), occasion=NAMELESS),
        detected(infected(hashes=None)),
        detected(infected("../../etc/passwd\n")),
        detected(Verdict((Report("clamav", Outcome.INFECTED),))),
        dataclasses.replace(detected(), size=None, ciphertext_sha256=None),
        dataclasses.replace(detected(), decision=OBSERVE),
    ],
)
async def test_detection_keeps_to_its_schema(logged: Callable[..., Any], event: Detected) -> None:
    (line,) = await logged(event, level="error")
    jsonschema.validate(line, SCHEMA, jsonschema.Draft202012Validator)


def test_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


async def test_detection_says_what_a_soc_asks(logged: Callable[..., Any]) -> None:
    (line,) = await logged(detected())
    identifier = line["event"].pop("id")
    assert len(identifier) == 26
    datetime.fromisoformat(line.pop("@timestamp"))
    assert line == {
        "log": {"level": "warning"},
        "message": "infected media withheld: Win.Trojan.Agent-1",
        "ecs": {"version": "8.11.0"},
        "event": {
            "kind": "alert",
            "category": ["malware"],
            "type": ["denied"],
            "action": "media-blocked",
            "outcome": "success",
            "severity": 73,
            "provider": "media-scanner",
            "duration": 250_000_000,
        },
        "file": {
            "hash": {"sha256": "ab" * 32, "sha1": "cd" * 20, "md5": "ef" * 16},
            "size": 1234,
            "mime_type": "application/x-dosexec",
        },
        "rule": {"name": "Win.Trojan.Agent-1", "category": "trojan", "ruleset": "ClamAV 1.4.6/27000"},
        "observer": {"vendor": "matrix-media-scanner", "product": "media-scanner", "version": "1.2.3"},
        "threat": {"indicator": {"type": "file"}},
        "trace": {"id": "req1"},
        "media_scanner": {
            "mxc": "mxc://example.org/abcDEF",
            "encrypted": True,
            "source": "download",
            "verdict": "infected",
            "engine": "clamav",
            "engine_version": "ClamAV 1.4.6/27000",
            "ciphertext_sha256": "12" * 32,
            "canary": False,
            "test": False,
            "first_seen": "2023-11-14T22:13:20.250Z",
            "seen_count": 1,
            "policy": "enforce",
            "request_id": "req1",
        },
    }


async def test_detection_that_is_only_observed_says_so(logged: Callable[..., Any]) -> None:
    (line,) = await logged(dataclasses.replace(detected(), decision=OBSERVE))
    event = line["event"]
    assert (event["type"], event["action"]) == (["info"], "media-would-block")
    assert "outcome" not in event
    assert line["media_scanner"]["policy"] == "observe"
    assert line["message"] == "infected media would be withheld: Win.Trojan.Agent-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "success"},
        {"type": ["denied"]},
        {"action": "media-blocked"},
        {"outcome": "success", "type": ["denied"]},
    ],
)
async def test_schema_knows_blocked_from_observed(
    logged: Callable[..., Any], changes: dict[str, Any]
) -> None:
    (line,) = await logged(dataclasses.replace(detected(), decision=OBSERVE))
    line["event"] |= changes
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(line, SCHEMA, jsonschema.Draft202012Validator)


async def test_what_would_be_withheld_has_a_line_and_what_is_infected_its_own(
    logged: Callable[..., Any],
) -> None:
    lines = await logged(
        Observed(OCCASION, Outcome.UNSCANNABLE, Reason.ENCRYPTED_ARCHIVE),
        Observed(OCCASION, Outcome.INFECTED, Reason.MALWARE),
        dataclasses.replace(detected(), decision=OBSERVE),
    )
    assert [line["message"].partition(":")[0] for line in lines] == [
        "would withhold",
        "infected media would be withheld",
    ]
    assert lines[0]["media_scanner"] == {
        "mxc": str(REF),
        "encrypted": True,
        "source": "download",
        "verdict": "unscannable",
        "reason": "encrypted_archive",
    }


async def test_what_has_no_name_yet_is_given_none(logged: Callable[..., Any]) -> None:
    lines = await logged(
        Observed(NAMELESS, Outcome.UNSCANNABLE, Reason.LIMIT),
        dataclasses.replace(detected(), occasion=NAMELESS),
    )
    assert [line["media_scanner"].get("mxc") for line in lines] == [None, None]


async def test_reload_names_what_changed_and_what_waits(logged: Callable[..., Any]) -> None:
    (line,) = await logged(Reloaded(("policy.mode",), ("server.listen",)))
    assert line["media_scanner"] == {"changed": ["policy.mode"], "needs_restart": ["server.listen"]}


async def test_level_may_change_at_any_time() -> None:
    pipe = Pipe()
    async with Log("error", fd=pipe.fd) as log:
        log(answered(404))
        log.set_level("info")
        log(answered(404))
        log.set_level("warning")
        log(answered(404))
    pipe.hang_up()
    assert len(pipe.lines()) == 1


async def test_every_detection_is_one_line_with_an_id_of_its_own(logged: Callable[..., Any]) -> None:
    lines = await logged(*[detected() for _ in range(20)])
    assert len({line["event"]["id"] for line in lines}) == 20
    assert [line["media_scanner"]["seen_count"] for line in lines] == list(range(1, 21))


async def test_contents_are_counted_apart(logged: Callable[..., Any]) -> None:
    other = infected(hashes=Hashes("99" * 32, "cd" * 20, "ef" * 16))
    lines = await logged(detected(), detected(other), detected(infected(hashes=None)), detected())
    assert [line["media_scanner"]["seen_count"] for line in lines] == [1, 1, 1, 2]


async def test_count_of_contents_is_bounded(
    logged: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanner.event_sinks.log._MAX_CONTENTS", 1)
    other = infected(hashes=Hashes("99" * 32, "cd" * 20, "ef" * 16))
    lines = await logged(detected(), detected(), detected(other), detected())
    assert [line["media_scanner"]["seen_count"] for line in lines] == [1, 2, 1, 1]


async def test_test_file_is_marked_and_of_low_severity(logged: Callable[..., Any]) -> None:
    (line,) = await logged(detected(infected("Eicar-Test-Signature")))
    assert line["media_scanner"]["test"] is True
    assert line["event"]["severity"] == 21


async def test_ids_sort_by_time(logged: Callable[..., Any]) -> None:
    (first,) = await logged(detected())
    time.sleep(0.002)  # noqa: ASYNC251 - the next millisecond
    (second,) = await logged(detected())
    assert first["event"]["id"] < second["event"]["id"]


@pytest.mark.parametrize(
    ("event", "level", "message"),
    [
        (answered(200), "debug", "answered"),
        (answered(404, "M_NOT_FOUND"), "info", "answered"),
        (answered(503, "M_UNKNOWN"), "warning", "answered"),
        (BackendChanged("clamav", "embedded", "up"), "info", "clamav up"),
        (BackendChanged("clamav", "embedded", "down", "refused"), "warning", "clamav down"),
        (BackendChanged("clamav", "embedded", "untrusted"), "warning", "clamav untrusted"),
        (ProcessChanged("clamd", "started"), "info", "clamd started"),
        (QuarantineStored("s3", "v1/x", new=True), "info", "quarantined"),
        (QuarantineFailed("s3", "v1/x", "gone"), "error", "quarantine failed"),
        (HomeserverTold("mxc://a/b", "quarantined"), "info", "homeserver quarantine quarantined"),
        (HomeserverTold("mxc://a/b", "failed", "gone"), "warning", "homeserver quarantine failed"),
        (Overridden(OCCASION, Outcome.INFECTED, ALLOW), "info", "handed over by an analyst"),
        (
            Overridden(OCCASION, Outcome.CLEAN, dataclasses.replace(ALLOW, allow=False)),
            "info",
            "withheld by an analyst",
        ),
        (ActionJudged("x", "release", "approved", "0" * 64, "alice"), "info", "action approved"),
        (ActionJudged("x", "release", "forged", "0" * 64, "alice"), "warning", "action forged"),
        (ActionsUnread("gone"), "warning", "actions cannot be read"),
        (ActionsUnread(""), "info", "actions can be read again"),
        (AuditSigned(7, "0" * 64, "now", "scanner-1", "s", "k"), "info", "audit head"),
        (AuditBroken(7, "0" * 64), "error", "audit chain broken"),
        (LibraryWarned("asyncio", "slow"), "warning", "library"),
        (ProcessChanged("clamd", "restarting"), "warning", "clamd restarting"),
        (SignaturesUpdated("updated", "daily 27801"), "info", "signatures updated"),
        (SignaturesUpdated("current", "daily 27801"), "debug", "signatures current"),
        (SignaturesUpdated("cooldown", "later"), "warning", "signatures cooldown"),
        (SignaturesUpdated("failed", "no mirror"), "warning", "signatures failed"),
        (BackendChanged("clamav", "embedded", "kept", "own.ndb"), "warning", "clamav kept"),
        (EngineFailed("clamav", "gone"), "warning", "engine failed"),
        (StoreFailed("sqlite", "full"), "warning", "verdict cache failed"),
        (QuarantineReplaced("s3", "v1/x"), "error", "quarantine store replaces"),
        (Crashed("/scan", "KeyError", "a.py:1", "req1"), "error", "crashed"),
        (BadRequest("BadStatusLine"), "info", "bad request"),
        (Observed(OCCASION, Outcome.FAILED, "overload"), "info", "would withhold"),
        (Reloaded(("policy.mode",), ()), "info", "configuration reloaded"),
        (Reloaded((), ("server.listen",)), "warning", "configuration reloaded"),
        (ReloadFailed("no such key"), "error", "configuration refused"),
        (CanaryRan("embedded", passed=True, seconds=0.1), "info", "canary: passed"),
        (CanaryRan("embedded", passed=None, seconds=0.1), "debug", "canary: no answer"),
        (CanaryRan("embedded", passed=False, seconds=0.1), "error", "canary: wrong answer"),
    ],
)
async def test_line_has_the_level_it_deserves(
    logged: Callable[..., Any], event: Event, level: str, message: str
) -> None:
    (line,) = await logged(event)
    assert (line["log"]["level"], line["message"]) == (level, message)
    assert await logged(event, level=level) != []
    levels = ["debug", "info", "warning", "error", "critical"]
    assert await logged(event, level=levels[levels.index(level) + 1]) == []


async def test_answer_names_request_media_and_reason(logged: Callable[..., Any]) -> None:
    (line,) = await logged(answered(403, "MCS_MEDIA_NOT_CLEAN"))
    assert line["trace"] == {"id": "req1"}
    assert line["media_scanner"] == {
        "route": "/download/{server}/{media}",
        "method": "GET",
        "code": 403,
        "seconds": 0.0123,
        "reason": "MCS_MEDIA_NOT_CLEAN",
        "mxc": "mxc://example.org/abcDEF",
    }


async def test_time_is_utc_to_the_millisecond(logged: Callable[..., Any]) -> None:
    (line,) = await logged(answered(404))
    assert line["@timestamp"].endswith("Z")
    assert len(line["@timestamp"]) == len("2026-11-21T10:00:00.000Z")
    written = datetime.fromisoformat(line["@timestamp"]).timestamp()
    assert written == pytest.approx(time.time(), abs=5)


async def test_canary_that_is_asked_every_second_is_said_when_it_changes(logged: Callable[..., Any]) -> None:
    answers = [None, None, None, True, True, False, False, True]
    runs = [CanaryRan("embedded", passed, 0.1) for passed in answers]
    words = [line["message"].removeprefix("canary: ") for line in await logged(*runs, level="info")]
    assert words == ["passed", "wrong answer", "passed"], "one that starts has no answer yet"


async def test_canary_that_falls_silent_is_said(logged: Callable[..., Any]) -> None:
    runs = [CanaryRan("embedded", passed, 0.1) for passed in (True, None, None)]
    assert [line["log"]["level"] for line in await logged(*runs, level="info")] == ["info", "warning"]


async def test_readiness_that_is_asked_again_and_again_is_not_said(logged: Callable[..., Any]) -> None:
    asked = Answered("/health/ready", "GET", 503, 0.1, "id")
    assert await logged(asked, level="info") == []


async def test_text_cannot_make_lines_of_its_own(logged: Callable[..., Any]) -> None:
    (line,) = await logged(
        StoreFailed("sqlite", 'full\n{"event":{"kind":"alert"}}\x1b[31m\u2028' + "x" * 9999)
    )
    assert len(line["media_scanner"]["problem"]) == 1000


NOTHING: set[str] = set()
# Every text that an event has, and that may be in the log.
ALLOWED = {
    Answered: {"route", "method", "request_id", "reason"},
    BadRequest: {"problem"},
    Crashed: {"route", "problem", "where", "request_id"},
    EngineFailed: {"engine", "problem"},
    BackendChanged: {"engine", "backend", "state", "detail"},
    Detected: {"ciphertext_sha256"},
    Observed: {"reason"},
    ReloadFailed: {"problem"},
    CanaryRan: {"backend"},
    StoreFailed: {"store", "problem"},
    ProcessChanged: {"process", "state", "detail"},
    QuarantineFailed: {"store", "name", "problem"},
    QuarantineReplaced: {"store", "name"},
    QuarantineStored: {"store", "name"},
    SignaturesUpdated: {"result", "detail"},
    LibraryWarned: {"library", "message"},
    HomeserverTold: {"media", "result", "problem"},
    Overridden: NOTHING,
    ActionJudged: {"id", "action", "result", "sha256", "author"},
    ActionsUnread: {"problem"},
    AuditSigned: {"sha256", "at", "author", "signature", "public_key"},
    AuditBroken: {"sha256"},
    ArchiveJudged: NOTHING,
    Delivered: NOTHING,
    Rejected: NOTHING,
    Reloaded: NOTHING,
    DecryptFailed: NOTHING,
    EngineAnswered: NOTHING,
    FlightJoined: NOTHING,
    Scanned: NOTHING,
    StageTimed: NOTHING,
    UpstreamAnswered: NOTHING,
    VerdictLookedUp: NOTHING,
}
SAMPLES: dict[str, Any] = {
    "code": 404,
    "seconds": 0.5,
    "size": 10,
    "encrypted": True,
    "passed": False,
    "new": True,
    "source": Source.SCAN,
    "ref": REF,
    "verdict": infected(),
    "decision": WITHHOLD,
    "occasion": Occasion(REF, Source.SCAN, encrypted=True, request_id="req1"),
    "outcome": Outcome.FAILED,
    "override": ALLOW,
    "number": 7,
    "changed": ("policy.mode",),
    "pending": ("server.listen",),
}


@pytest.mark.parametrize("kind", get_args(Event))
async def test_log_has_the_allowed_texts_of_an_event_and_no_others(
    logged: Callable[..., Any], kind: type[Any]
) -> None:
    """Each text is a secret here, each value of another kind is one that the log may have."""
    names = [field.name for field in dataclasses.fields(kind)]
    event = kind(**{name: SAMPLES.get(name, f"syt_{name}_secret") for name in names})
    if kind is UpstreamAnswered:
        event = dataclasses.replace(event, code="syt_code_secret")
    text = json.dumps(await logged(event))
    assert {name for name in names if f"syt_{name}_secret" in text} == ALLOWED[kind]


async def test_closing_writes_what_waits(logged: Callable[..., Any]) -> None:
    assert len(await logged(*[answered(404)] * 100)) == 100


async def test_stalled_reader_stops_nobody_and_detections_are_given_up_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scanner.event_sinks.log._STOP_TIMEOUT", 0.01)
    pipe = Pipe()
    pipe.fill()
    began = time.monotonic()
    async with Log("info", fd=pipe.fd) as log:
        for _ in range(2100):
            log(answered(404))
        dropped = log.dropped
        assert 95 <= dropped <= 100
        for _ in range(500):
            log(detected())
        assert log.dropped == dropped
    assert time.monotonic() - began < 2
    pipe.abandon()


@pytest.mark.parametrize("blocking", [True, False])
async def test_reader_that_comes_back_gets_every_line(*, blocking: bool) -> None:
    pipe = Pipe()
    pipe.fill()
    os.set_blocking(pipe.fd, blocking)
    with ThreadPoolExecutor(1) as reader:
        async with Log("info", fd=pipe.fd) as log:
            for _ in range(200):
                log(detected())
            lines = reader.submit(pipe.lines)
        pipe.hang_up()
        assert len(lines.result(5)) == 200
    assert log.dropped == 0


async def test_reader_that_is_gone_is_counted() -> None:
    pipe = Pipe()
    pipe.abandon()
    async with Log("info", fd=pipe.fd) as log:
        log(detected())
    pipe.hang_up()
    assert log.dropped == 1
