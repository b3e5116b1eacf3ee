from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from scanner.doctor import http
from scanner.doctor.finding import Notes, Status
from scanner.doctor.service import examine
from tests.doctor.found import not_ok
from tests.fake_homeserver import FakeHomeserver, head, saying
from tests.real_clamd import free_port


async def noted(content: Any, status: str = "200 OK") -> Notes:
    notes, body = Notes(), json.dumps(content).encode()
    async with FakeHomeserver() as there:
        there.script = saying(head(status, [("Content-Length", str(len(body)))]), body)
        await examine(notes, f"127.0.0.1:{there.port}")
        assert there.lines == ["GET /health/ready"]
    return notes


async def test_a_service_that_is_ready_is_well() -> None:
    assert not_ok(await noted({"ready": True, "mode": "enforce", "reasons": {}})) == {}


async def test_each_reason_is_a_failure_with_its_advice() -> None:
    reasons = {"engine": "no clamd answers", "homeserver": "check it"}
    notes = await noted({"ready": False, "mode": "enforce", "reasons": reasons}, "503 Service Unavailable")
    assert [(finding.status, finding.advice) for finding in notes.findings] == [
        (Status.FAILED, "no clamd answers"),
        (Status.FAILED, "check it"),
    ]


async def test_observing_is_a_warning() -> None:
    assert not_ok(await noted({"ready": True, "mode": "observe", "reasons": {}})) == {"mode": Status.WARNING}


@pytest.mark.parametrize("content", [[], {}, {"ready": "yes"}, {"ready": True}])
async def test_something_else_on_the_port_is_a_failure(content: Any) -> None:
    assert not_ok(await noted(content)) == {"service": Status.FAILED}


async def test_no_service_is_no_failure() -> None:
    notes = Notes()
    await examine(notes, f"0.0.0.0:{free_port()}")
    assert not_ok(notes) == {"service": Status.SKIPPED}


async def test_a_service_that_is_stuck_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.1)
    notes = Notes()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        await examine(notes, f"127.0.0.1:{silent.getsockname()[1]}")
    assert not_ok(notes) == {"service": Status.FAILED}
