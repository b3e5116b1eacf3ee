"""What a scanner does for the audit chain."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from scanner.events import AuditBroken, AuditSigned, QuarantineFailed
from scanner.quarantine.audit import Head, problems
from scanner.quarantine.chain import Chain, read_heads, read_records
from scanner.quarantine.layout import audit_key
from scanner.quarantine.notary import Notary
from scanner.stores.local import Local
from tests.fake_homeserver import until
from tests.fakes import RecordingSink
from tests.quarantine.people import SIGNERS
from tests.quarantine.test_audit import KEYS, NAME, SCANNER


@pytest.fixture
def store(tmp_path: Path) -> Local:
    return Local(tmp_path / "store")


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def notary(store: Local, sink: RecordingSink) -> Notary:
    return Notary(Chain(store, SCANNER, NAME), SCANNER.public_key, sink)


async def test_last_record_is_signed_into_store_and_log_when_it_is_another(
    store: Local, notary: Notary, sink: RecordingSink
) -> None:
    await notary.look()
    assert sink.events == []
    alice = Chain(store, SIGNERS["alice"], "alice")
    for subject in "ab":
        await alice.append("deny", subject)
        await notary.look()
        await notary.look()
    told = sink.of(AuditSigned)
    heads = [Head(each.number, each.sha256, each.at, each.author, each.signature) for each in told]
    assert [each.number for each in told] == [1, 2]
    assert heads == await read_heads(store)
    assert problems(await read_records(store), heads, KEYS) == []


async def test_end_that_was_cut_off_is_told_at_once(
    store: Local, notary: Notary, sink: RecordingSink
) -> None:
    alice = Chain(store, SIGNERS["alice"], "alice")
    for subject in "ab":
        await alice.append("deny", subject)
    await notary.look()
    await store.delete(audit_key(2))
    await notary.look()
    assert [event.number for event in sink.of(AuditBroken)] == [2]
    assert problems(await read_records(store), await read_heads(store), KEYS)[0].number == 2


async def test_store_that_is_away_is_told_and_tried_again(tmp_path: Path, sink: RecordingSink) -> None:
    blocked = tmp_path / "store"
    blocked.write_text("")
    notary = Notary(Chain(Local(blocked), SCANNER, NAME), SCANNER.public_key, sink)
    task = asyncio.create_task(notary.run(0.01))
    await until(lambda: len(sink.of(QuarantineFailed)) > 1)
    blocked.unlink()
    await Chain(Local(blocked), SIGNERS["alice"], "alice").append("deny", "a")
    await until(lambda: bool(sink.of(AuditSigned)))
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
