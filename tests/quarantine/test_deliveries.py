"""Who was given what: noted beside the requests, told at the first detection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from scanner.errors import StoreError
from scanner.events import Delivered, Detected, Occasion, QuarantineFailed, Source
from scanner.media import MediaRef
from scanner.quarantine import deliveries as module
from scanner.quarantine.deliveries import Deliveries
from scanner.quarantine.delivery_log import DeliveryLog, Noted, Times
from scanner.quarantine.delivery_records import DeliveryRecord, opened
from scanner.quarantine.layout import DELIVERIES, deliveries_key, object_key
from scanner.stores.local import Local
from scanner.verdict import IndexSecret
from tests.contracts.event_sink import EventSinkContract
from tests.fake_homeserver import until
from tests.fakes import RecordingSink
from tests.quarantine.test_outbox import HASHES, PRIVATE, detected, outbox

INDEX = IndexSecret(bytes(32))
CONTENT = INDEX.content(bytes.fromhex(HASHES.sha256))
OTHER = INDEX.content(bytes(32))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_INTERVAL", "_RETRY", "_POLL"):
        monkeypatch.setattr(module, name, 0.02)


@asynccontextmanager
async def replica(
    directory: Path, sink: RecordingSink | None = None, log: DeliveryLog | None = None
) -> AsyncIterator[Deliveries]:
    sink = sink or RecordingSink()
    async with AsyncExitStack() as stack:
        box = await stack.enter_async_context(outbox(directory / "outbox", sink))
        log = log or DeliveryLog(directory / "deliveries.sqlite", 86400)
        yield await stack.enter_async_context(Deliveries(log, box, INDEX, sink))


def delivered(media_id: str = "abc", caller: bytes = b"a" * 32, content: bytes = CONTENT) -> Delivered:
    occasion = Occasion(MediaRef("example.org", media_id), Source.DOWNLOAD, encrypted=False, request_id="1")
    return Delivered(occasion, type(CONTENT)(content), caller)


def told(directory: Path) -> list[DeliveryRecord]:
    """What waits to be shipped."""
    paths = (directory / "outbox").glob("records/v1+deliveries+*")
    return [opened(path.read_bytes(), [PRIVATE], HASHES.sha256) for path in paths]


class TestDeliveries(EventSinkContract):
    @pytest.fixture
    async def sink(self, tmp_path: Path) -> AsyncIterator[Deliveries]:
        async with replica(tmp_path) as deliveries:
            yield deliveries


async def test_a_detection_tells_who_was_given_it_before(tmp_path: Path) -> None:
    before = time.time()
    async with replica(tmp_path) as deliveries:
        for event in (delivered(), delivered(), delivered(caller=b"b" * 32), delivered("def")):
            deliveries(event)
        deliveries(delivered("not-this", content=OTHER))
        deliveries(detected())
        await until(lambda: bool(told(tmp_path)))
        [record] = told(tmp_path)
    known = [(each.media, each.caller, each.count) for each in record.deliveries]
    assert sorted(known) == [
        ("mxc://example.org/abc", b"a".hex() * 16, 2),
        ("mxc://example.org/abc", b"b".hex() * 16, 1),
        ("mxc://example.org/def", b"a".hex() * 16, 1),
    ]
    assert all(before <= each.first <= each.last <= time.time() for each in record.deliveries)
    assert record.since is not None
    assert (record.sha256, record.omitted) == (HASHES.sha256, 0)


async def test_it_is_told_once_however_often_it_is_asked_for_and_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        async with replica(tmp_path) as deliveries:
            deliveries(delivered())
            for _ in range(100):
                deliveries(detected())
            await until(lambda: bool(told(tmp_path)))
    [record] = told(tmp_path)
    assert [each.count for each in record.deliveries] == [1]


async def test_where_there_is_no_sample_it_is_told_as_well_that_nobody_was_given_it(tmp_path: Path) -> None:
    """Else the store had no name from which other replicas learn of it."""
    async with replica(tmp_path) as deliveries:
        deliveries(detected(kept=False))
        await until(lambda: bool(told(tmp_path)))
        assert [record.deliveries for record in told(tmp_path)] == [()]


async def test_that_nobody_was_given_a_kept_sample_the_detection_says(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        box = await stack.enter_async_context(outbox(tmp_path / "outbox"))
        log = DeliveryLog(tmp_path / "deliveries.sqlite", 86400)
        deliveries = await stack.enter_async_context(Deliveries(log, box, INDEX, RecordingSink()))
        assert box.witness is not None
        assert box.witness.since is None
        deliveries(delivered(content=OTHER))
        deliveries(detected())
        await until(lambda: box.witness is not None and box.witness.since is not None)
        await asyncio.sleep(0.1)
        assert not told(tmp_path)


async def test_who_cannot_note_deliveries_is_no_witness(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        box = await stack.enter_async_context(outbox(tmp_path / "outbox"))
        log, sink = DeliveryLog(tmp_path / "away" / "log", 86400), RecordingSink()
        deliveries = await stack.enter_async_context(Deliveries(log, box, INDEX, sink))
        assert box.witness is None
        deliveries(delivered())
        (tmp_path / "away").mkdir()
        await until(lambda: box.witness is not None)
    assert len(sink.of(QuarantineFailed)) == 1


async def test_what_was_noted_before_a_restart_is_told_after_it(tmp_path: Path) -> None:
    async with replica(tmp_path) as deliveries:
        deliveries(delivered())
    async with replica(tmp_path) as deliveries:
        deliveries(detected())
        await until(lambda: bool(told(tmp_path)))
        assert len(told(tmp_path)[0].deliveries) == 1


async def test_the_end_writes_down_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INTERVAL", 60)
    async with replica(tmp_path) as deliveries:
        deliveries(delivered())
        deliveries(detected())
    assert len(told(tmp_path)[0].deliveries) == 1


async def test_a_replica_tells_what_it_knows_of_others_detections(tmp_path: Path) -> None:
    store = Local(tmp_path / "store")
    await store.put(deliveries_key(HASHES.sha256, "another"), b"sealed")
    await store.put(deliveries_key("cd" * 32, "another"), b"sealed")
    await store.put(f"{DELIVERIES}/strange", b"")
    async with replica(tmp_path) as deliveries:
        deliveries(delivered())
        await asyncio.sleep(0.1)
        async with following(deliveries, store):
            await until(lambda: bool(told(tmp_path)))
            await asyncio.sleep(0.1)
        assert [len(record.deliveries) for record in told(tmp_path)] == [1]


async def test_what_a_sigkill_made_it_forget_to_tell_it_tells_when_the_sample_is_in_the_store(
    tmp_path: Path,
) -> None:
    store = Local(tmp_path / "store")
    async with replica(tmp_path) as deliveries:
        deliveries(delivered())
    await store.put(object_key("0123456789abcdef", HASHES.sha256), b"sealed")
    async with replica(tmp_path) as deliveries, following(deliveries, store):
        await until(lambda: bool(told(tmp_path)))
        assert [len(record.deliveries) for record in told(tmp_path)] == [1]


class Closed(Local):
    """A store that may not be listed."""

    async def listing(self, prefix: str) -> AsyncIterator[object]:  # type: ignore[override]
        raise StoreError("denied")
        yield


async def test_a_store_that_may_not_be_listed_is_said_once(tmp_path: Path) -> None:
    sink = RecordingSink()
    async with replica(tmp_path, sink) as deliveries, following(deliveries, Closed(tmp_path)):
        await until(lambda: bool(sink.of(QuarantineFailed)))
        await asyncio.sleep(0.1)
    assert [event.problem for event in sink.of(QuarantineFailed)] == ["denied"]


async def test_nothing_is_lost_while_the_disk_is_full(tmp_path: Path) -> None:
    """Here: a directory that is not there yet."""
    sink, away = RecordingSink(), tmp_path / "away"
    async with replica(tmp_path, sink, DeliveryLog(away / "log", 86400)) as deliveries:
        deliveries(delivered())
        deliveries(detected())
        await until(lambda: bool(sink.of(QuarantineFailed)))
        await asyncio.sleep(0.1)
        deliveries(delivered("def"))
        away.mkdir()
        await until(lambda: bool(told(tmp_path)))
        assert len(told(tmp_path)[0].deliveries) == 2
    assert len(sink.of(QuarantineFailed)) == 1


async def test_too_many_at_once_are_dropped_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_NOTED", 3)
    sink = RecordingSink()
    async with replica(tmp_path, sink) as deliveries:
        for number in range(5):
            deliveries(delivered(str(number)))
        await until(lambda: bool(sink.of(QuarantineFailed)))
    assert "2 were not noted" in sink.of(QuarantineFailed)[0].problem


async def test_noting_ten_thousand_deliveries_holds_no_request(tmp_path: Path) -> None:
    async with replica(tmp_path) as deliveries:
        events = [delivered(str(number)) for number in range(10_000)]
        began = time.process_time()
        for event in events:
            deliveries(event)
        assert time.process_time() - began < 0.5
        assert isinstance(detected(), Detected)


@asynccontextmanager
async def following(deliveries: Deliveries, store: Local) -> AsyncIterator[None]:
    task = asyncio.create_task(deliveries.follow(store))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Stubborn(DeliveryLog):
    """Takes its time to fail."""

    tries, full = 0, True

    def append(self, noted: Mapping[Noted, Times]) -> None:
        self.tries += 1
        if self.full:
            time.sleep(0.1)
            raise StoreError("full")
        super().append(noted)


async def test_what_cannot_be_written_is_bounded_and_counts_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_NOTED", 3)
    sink, log = RecordingSink(), Stubborn(tmp_path / "deliveries.sqlite", 86400)
    async with replica(tmp_path, sink, log) as deliveries:
        for number in range(4):
            for _ in range(2):
                deliveries(delivered("same"))
                deliveries(delivered(f"other-{number}"))
            await _tried(log, number + 1)
        assert len(deliveries._noted) <= 3  # noqa: SLF001
        log.full = False
        deliveries(detected())
        await until(lambda: bool(told(tmp_path)))
    [record] = told(tmp_path)
    assert {each.media.rpartition("/")[2]: each.count for each in record.deliveries}["same"] == 8


async def test_what_waits_for_the_thread_at_the_end_is_written_all_the_same(tmp_path: Path) -> None:
    log, path = DeliveryLog(tmp_path / "deliveries.sqlite", 86400), tmp_path / "deliveries.sqlite"
    async with replica(tmp_path, log=log) as deliveries:
        deliveries._worker.submit(time.sleep, 0.3)  # noqa: SLF001 - it tells of others' detections
        deliveries(delivered())
        await asyncio.sleep(0.1)
    assert [each.count for each in DeliveryLog(path, 86400).find(CONTENT)] == [1]


async def _tried(log: Stubborn, times: int) -> None:
    await until(lambda: log.tries >= times)
