from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from scanner.clamd import backend as backend_module
from scanner.clamd import control
from scanner.clamd.backend import Clamd, ClamdBackend
from scanner.clamd.protocol import ClamdAddress
from scanner.errors import EngineError
from scanner.events import BackendChanged, EngineAnswered, Event
from scanner.verdict import Outcome, Report
from tests.clamd.fake_clamd import (
    VERSION,
    Behaviour,
    Connection,
    FakeClamd,
    found,
    hang_up,
    ok,
    says,
    stall_after_sample,
)
from tests.clamd.samples import sample, until

EVENTS = list[Event]


@pytest.fixture
def events() -> EVENTS:
    return []


def backend(
    address: ClamdAddress, events: EVENTS, scan_timeout: float = 5.0, **known: object
) -> ClamdBackend:
    clamd = Clamd(address, **known)  # type: ignore[arg-type]  # any of its fields
    return ClamdBackend(clamd, publish=events.append, scan_timeout=scan_timeout)


async def scan(clamd: ClamdBackend) -> Report:
    with sample(b"some bytes") as given:
        return await clamd.scan(given)


def states(events: EVENTS) -> list[str]:
    return [event.state for event in events if isinstance(event, BackendChanged)]


def results(events: EVENTS) -> list[str]:
    return [event.result for event in events if isinstance(event, EngineAnswered)]


@asynccontextmanager
async def watched(clamd: ClamdBackend) -> AsyncIterator[None]:
    watch = asyncio.create_task(clamd.watch(0.02))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def test_the_first_scan_asks_for_the_version_and_has_it(tmp_path: Path, events: EVENTS) -> None:
    async with FakeClamd(tmp_path, ok) as fake:
        clamd = backend(fake.unix, events)
        report = await scan(clamd)
    assert report.outcome is Outcome.CLEAN
    assert report.version == clamd.identity
    assert VERSION.decode() in (report.version or "")
    assert fake.commands == ["VERSION", "FILDES"]
    assert states(events) == ["up", "version"]
    assert results(events) == ["clean"]


async def test_many_first_scans_ask_once(tmp_path: Path, events: EVENTS) -> None:
    async with FakeClamd(tmp_path, ok) as fake:
        clamd = backend(fake.unix, events)
        reports = await asyncio.gather(*(scan(clamd) for _ in range(10)))
    assert len({report.version for report in reports}) == 1
    assert fake.commands.count("VERSION") == 1


async def test_a_scan_does_not_fail_for_want_of_a_version(
    tmp_path: Path, events: EVENTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Busy with scans, clamd does not answer VERSION either; then nothing is remembered."""
    monkeypatch.setattr(control, "TIMEOUT", 0.1)
    async with FakeClamd(tmp_path, found, version=None) as fake:
        report = await scan(backend(fake.unix, events))
    assert report.outcome is Outcome.INFECTED
    assert report.version is None
    assert states(events) == ["up"]


async def test_a_version_that_nobody_may_ask_for_is_said_once(tmp_path: Path, events: EVENTS) -> None:
    async with FakeClamd(tmp_path, ok, version=b"COMMAND UNAVAILABLE") as fake:
        clamd = backend(fake.unix, events)
        for _ in range(3):
            assert (await scan(clamd)).version is None
    assert states(events) == ["problem", "up"]


async def test_a_report_has_the_version_at_the_time_of_sending(tmp_path: Path, events: EVENTS) -> None:
    async with FakeClamd(tmp_path, ok) as fake:

        async def update_meanwhile(connection: Connection) -> None:
            fake.version = VERSION.replace(b"27800", b"27801")
            await until(lambda: "27801" in (clamd.identity or ""))
            await ok(connection)

        clamd = backend(fake.unix, events)
        await scan(clamd)
        fake.behaviour = update_meanwhile
        async with watched(clamd):
            assert "27800" in ((await scan(clamd)).version or "")
            assert "27801" in ((await scan(clamd)).version or "")
    assert states(events) == ["up", "version", "version"]
    assert clamd.version is not None
    assert clamd.version.signature_version == 27801


async def test_a_clamd_that_comes_back_is_asked_for_its_version_again(tmp_path: Path, events: EVENTS) -> None:
    async with FakeClamd(tmp_path, ok) as fake:
        clamd = backend(fake.unix, events)
        await scan(clamd)
        fake.behaviour = hang_up
        with pytest.raises(EngineError):
            await scan(clamd)
        assert not clamd.up
        fake.behaviour, fake.version = ok, VERSION.replace(b"27800", b"27801")
        assert "27801" in ((await scan(clamd)).version or "")
    assert states(events) == ["up", "version", "down", "up", "version"]


async def test_settings_are_part_of_the_version(tmp_path: Path, events: EVENTS) -> None:
    async with FakeClamd(tmp_path, ok) as fake:
        versions = {(await scan(backend(fake.unix, events, settings=text))).version for text in "ab"}
    assert len(versions) == 2


async def test_nothing_is_remembered_while_clamd_loads_its_files(
    tmp_path: Path, events: EVENTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "process_started_at", lambda _: time.time() + 1)
    database = tmp_path / "database"
    database.mkdir()
    (database / "custom.ndb").touch()
    async with FakeClamd(tmp_path, ok) as fake:
        clamd = backend(fake.unix, events, database=lambda: database)
        first = await scan(clamd)
        monkeypatch.setattr(backend_module, "process_started_at", lambda _: None)
        (database / "custom.ndb").write_text("Custom:0:*:00\n")
        async with watched(clamd):
            await until(lambda: "RELOAD" in fake.commands)
            assert (await scan(clamd)).version is None
            fake.version = VERSION.replace(b"27800", b"27801")
            await until(lambda: clamd.identity)
        last = await scan(clamd)
    assert first.version is not None
    assert last.version not in {None, first.version}
    assert fake.commands.count("RELOAD") == 1
    assert states(events) == ["up", "version", "reload", "version"]


@pytest.mark.parametrize(
    ("behaviour", "result", "up"),
    [
        (hang_up, "eof", False),
        (stall_after_sample, "timeout", False),
        (says(b"PREFIX: Can't allocate memory ERROR\0"), "error", True),
        (says(b"INSTREAM size limit exceeded. ERROR\0"), "limit", True),
        (says(b"PONG\0"), "error", True),
    ],
)
async def test_a_failed_scan_says_why(
    tmp_path: Path, events: EVENTS, behaviour: Behaviour, result: str, up: bool
) -> None:
    async with FakeClamd(tmp_path, behaviour) as fake:
        clamd = backend(fake.tcp, events, scan_timeout=0.2)
        with pytest.raises(EngineError) as failed:
            await scan(clamd)
    assert failed.value.result == result
    assert results(events) == [result]
    assert clamd.up is up
    assert clamd.in_flight == 0


async def test_a_clamd_that_is_not_there_is_unavailable(tmp_path: Path, events: EVENTS) -> None:
    clamd = backend(ClamdAddress(path=str(tmp_path / "none")), events)
    with pytest.raises(EngineError) as failed:
        await scan(clamd)
    assert failed.value.result == "unavailable"
    assert results(events) == ["error"]


async def test_a_cancelled_scan_leaves_nothing_behind(tmp_path: Path, events: EVENTS) -> None:
    async with FakeClamd(tmp_path, stall_after_sample) as fake:
        clamd = backend(fake.unix, events)
        scanning = asyncio.create_task(scan(clamd))
        await until(lambda: "FILDES" in fake.commands)
        assert clamd.in_flight == 1
        scanning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scanning
    assert clamd.in_flight == 0
    assert clamd.up
    assert results(events) == []


async def test_a_clamd_that_takes_no_descriptor_gets_the_bytes(tmp_path: Path, events: EVENTS) -> None:
    """Under AppArmor clamd just closes the connection; that is found out, and said, once."""

    async def refuse_descriptors(connection: Connection) -> None:
        await (hang_up if connection.command == "FILDES" else found)(connection)

    async with FakeClamd(tmp_path, refuse_descriptors) as fake:
        clamd = backend(fake.unix, events)
        for _ in range(3):
            assert (await scan(clamd)).outcome is Outcome.INFECTED
    assert fake.commands == ["VERSION", "FILDES", "INSTREAM", "INSTREAM", "INSTREAM"]
    assert states(events).count("stream") == 1
    assert results(events) == ["found", "found", "found"]


async def test_a_clamd_that_crashes_is_not_taken_for_one_that_takes_no_descriptor(
    tmp_path: Path, events: EVENTS
) -> None:
    async with FakeClamd(tmp_path, hang_up) as fake:
        clamd = backend(fake.unix, events)
        with pytest.raises(EngineError):
            await scan(clamd)
        fake.behaviour = ok
        await scan(clamd)
        fake.behaviour = hang_up
        with pytest.raises(EngineError):
            await scan(clamd)
    assert fake.commands[1:] == ["FILDES", "INSTREAM", "VERSION", "FILDES", "FILDES"]
    assert "stream" not in states(events)


async def test_a_silent_clamd_that_nobody_uses_is_down(
    tmp_path: Path, events: EVENTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "TIMEOUT", 0.1)
    async with FakeClamd(tmp_path, ok) as fake:
        clamd = backend(fake.unix, events)
        async with watched(clamd):
            await until(lambda: clamd.up)
            fake.version = None
            await until(lambda: not clamd.up)
            fake.version = VERSION
            await until(lambda: clamd.up)
    assert states(events) == ["up", "version", "down", "up"]


async def test_a_silent_clamd_that_scans_is_busy(
    tmp_path: Path, events: EVENTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "TIMEOUT", 0.05)
    async with FakeClamd(tmp_path, ok) as fake:
        clamd = backend(fake.unix, events)
        await scan(clamd)
        fake.version, fake.behaviour = None, stall_after_sample
        async with watched(clamd):
            scanning = asyncio.create_task(scan(clamd))
            await asyncio.sleep(0.2)
            assert clamd.up
            scanning.cancel()


async def test_trust_is_what_the_canary_says(tmp_path: Path, events: EVENTS) -> None:
    async with FakeClamd(tmp_path, ok) as fake:
        clamd = backend(fake.unix, events)
        for passed in (True, False, False, True):
            clamd.trust(passed)
            assert clamd.trusted is passed
            assert (await scan(clamd)).outcome is Outcome.CLEAN
    assert [state for state in states(events) if "trusted" in state] == ["untrusted", "trusted"]
