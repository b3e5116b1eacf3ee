"""From the outbox to the store, through outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from scanner.errors import StoreError
from scanner.events import QuarantineFailed, QuarantineReplaced, QuarantineStored
from scanner.quarantine import shipper as shipper_module
from scanner.quarantine.shipper import Shipper
from scanner.stores.local import Local
from scanner.verdict import Hashes
from tests.fake_homeserver import until
from tests.fakes import RecordingSink
from tests.quarantine.test_outbox import VERDICT, detected, kept, of_sha256, outbox


class Flaky(Local):
    """A store that is away while `away`, and stalls while `stalled`.

    It takes no name with `refused` in it, and if it `replaces`, each name again.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.away = False
        self.stalled = False
        self.refused = ""
        self.replaces = False
        self.tries = 0

    async def put(self, key: str, content: Path | bytes) -> bool:
        self.tries += 1
        if self.stalled:
            await asyncio.sleep(60)
        if self.away or (self.refused and self.refused in key):
            raise StoreError("gone")
        return await super().put(key, content) or self.replaces


@asynccontextmanager
async def shipping(shipper: Shipper) -> AsyncIterator[None]:
    task = asyncio.create_task(shipper.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper_module, "_TOGETHER", 0.01)


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def store(tmp_path: Path) -> Flaky:
    return Flaky(tmp_path / "store")


async def keys(store: Local) -> list[str]:
    return [stored.key async for stored in store.listing("v1")]


async def test_samples_go_before_the_records_that_name_them(
    tmp_path: Path, store: Flaky, sink: RecordingSink
) -> None:
    async with outbox(tmp_path, sink) as box:
        await box.record(detected())
        await kept(box, b"sample")
        async with shipping(Shipper(box, store, sink)):
            await until(lambda: len(sink.of(QuarantineStored)) == 2)
        assert [event.name.split("/")[1] for event in sink.of(QuarantineStored)] == ["objects", "detections"]
        assert box.pending == 0
        assert box.held == 0


async def test_an_outage_loses_nothing_and_is_over_when_something_new_arrives(
    tmp_path: Path, store: Flaky, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper_module, "_FIRST_RETRY", 0.02)
    store.away = True
    async with outbox(tmp_path, sink) as box:
        await kept(box, b"sample")
        shipper = Shipper(box, store, sink)
        async with shipping(shipper):
            await until(lambda: len(sink.of(QuarantineFailed)) >= 3)
            assert box.pending == 1
            assert shipper.problem == "gone"
            store.away = False
            await box.record(detected())
            await until(lambda: not box.pending)
        assert shipper.problem == ""
    assert len(await keys(store)) == 2


async def test_a_store_that_stalls_is_given_up_and_tried_again(
    tmp_path: Path, store: Flaky, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper_module, "_FIRST_RETRY", 0.02)
    store.stalled = True
    async with outbox(tmp_path, sink) as box:
        await kept(box, b"sample")
        async with shipping(Shipper(box, store, sink, deadline=0.05)):
            await until(lambda: bool(sink.of(QuarantineFailed)))
            store.stalled = False
            await until(lambda: not box.pending)
    assert "in time" in sink.of(QuarantineFailed)[0].problem


async def test_two_replicas_store_once(tmp_path: Path, store: Flaky, sink: RecordingSink) -> None:
    for replica in ("a", "b"):
        async with outbox(tmp_path / replica, sink) as box:
            await kept(box, b"sample")
            await box.record(detected())
            async with shipping(Shipper(box, store, sink)):
                await until(lambda box=box: not box.pending)  # type: ignore[misc]
    assert [event.new for event in sink.of(QuarantineStored)] == [True, True, False, False]
    assert len(await keys(store)) == 2


@pytest.mark.parametrize("replaces", [True, False])
async def test_a_store_that_replaces_what_it_has_is_told_of_once(
    tmp_path: Path, store: Flaky, sink: RecordingSink, replaces: bool
) -> None:
    store.replaces = replaces
    async with outbox(tmp_path, sink) as box:
        await kept(box, b"sample")
        for media_id in "abc":
            await box.record(detected(media_id))
        async with shipping(Shipper(box, store, sink)):
            await until(lambda: not box.pending)
    assert len(sink.of(QuarantineReplaced)) == int(replaces)
    assert store.tries == 5


async def test_a_store_that_goes_away_meanwhile_is_looked_at_later(
    tmp_path: Path, store: Flaky, sink: RecordingSink
) -> None:
    class Once(Flaky):
        """Takes one thing, then nothing for a while."""

        async def put(self, key: str, content: Path | bytes) -> bool:
            self.away = self.tries == 1
            return await super().put(key, content)

    store = Once(tmp_path / "store")
    store.replaces = True
    async with outbox(tmp_path, sink) as box, shipping(Shipper(box, store, sink)):
        await box.record(detected("a"))
        await until(lambda: not box.pending)
        assert not sink.of(QuarantineReplaced)
        await box.record(detected("b"))
        await until(lambda: len(sink.of(QuarantineReplaced)) == 1)
        await until(lambda: not box.pending)


async def test_what_a_killed_process_left_is_shipped_by_the_next(
    tmp_path: Path, store: Flaky, sink: RecordingSink
) -> None:
    async with outbox(tmp_path, sink) as box:
        await kept(box, b"sample")
    async with outbox(tmp_path, sink) as box, shipping(Shipper(box, store, sink)):
        await until(lambda: not box.pending)
    assert len(await keys(store)) == 1


async def test_what_is_refused_for_ever_is_passed_over_and_said(
    tmp_path: Path, store: Flaky, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are tried at once, so that the store seems to take nothing at all."""
    monkeypatch.setattr(shipper_module, "_FIRST_RETRY", 0.02)
    store.refused = "/objects/"
    async with outbox(tmp_path, sink) as box:
        for digit in "0123456789":
            await kept(box, b"sample", of_sha256(digit))
        shipper = Shipper(box, store, sink)
        async with shipping(shipper):
            for media_id in "abcdef":
                await box.record(detected(media_id))
            await until(lambda: len(sink.of(QuarantineStored)) == 6)
            assert (box.pending, shipper.problem) == (10, "gone")
            await until(lambda: len({event.name for event in sink.of(QuarantineFailed)}) == 10)
            store.refused = ""
            await until(lambda: not box.pending, 3)
        assert shipper.problem == ""


async def test_retries_become_rare_and_the_end_of_an_outage_is_the_end_of_waiting(
    tmp_path: Path, store: Flaky, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipper_module, "_FIRST_RETRY", 0.02)
    store.away = True
    async with outbox(tmp_path, sink) as box:
        for digit in "0123456789":
            await kept(box, b"sample", of_sha256(digit))
        async with shipping(Shipper(box, store, sink)):
            await asyncio.sleep(0.5)
            assert 4 * 4 <= store.tries <= 4 * 10
            store.away = False
            await box.record(detected())
            await until(lambda: not box.pending, 0.2)


async def test_an_outbox_that_is_gone_ends_nothing(tmp_path: Path, store: Flaky, sink: RecordingSink) -> None:
    async with outbox(tmp_path / "box", sink) as box, shipping(Shipper(box, store, sink)):
        (tmp_path / "box").rename(tmp_path / "moved")
        box.wake()
        await until(lambda: bool(sink.of(QuarantineFailed)))
        (tmp_path / "moved").rename(tmp_path / "box")
        await box.record(detected())
        await until(lambda: not box.pending)


@pytest.mark.slow
async def test_a_file_that_is_gone_waits_no_longer(tmp_path: Path, store: Flaky, sink: RecordingSink) -> None:
    store.away = True
    async with outbox(tmp_path, sink) as box:
        await box.record(detected())
        shipper = Shipper(box, store, sink)
        await shipper.flush(1)
        box.waiting(1)[1][0].unlink()
        store.away = False
        async with shipping(shipper):
            await box.record(detected("other"))
            await until(lambda: len(sink.of(QuarantineStored)) == 1 and not shipper.problem, 3)


@pytest.mark.slow
async def test_a_backlog_of_samples_does_not_hold_up_records(
    tmp_path: Path, store: Flaky, sink: RecordingSink
) -> None:
    async with outbox(tmp_path, sink) as box:
        for number in range(300):
            await kept(box, b"sample", replace(VERDICT, hashes=Hashes(f"{number:064}", "", "")))
        await box.record(detected())
        async with shipping(Shipper(box, store, sink)):
            await until(lambda: not box.pending, 20)
    order = [event.name.split("/")[1] for event in sink.of(QuarantineStored)]
    assert order.index("detections") == 256
    assert len(await keys(store)) == 301
