"""Statements in either store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from scanner.errors import StoreError
from scanner.ports import Store, Stored
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Filed
from scanner.quarantine.layout import action_key, approval_key, nonce_key
from scanner.stores.local import Local
from tests.quarantine.people import approved, signed


async def test_statement_is_filed_approved_and_read(any_store: Store) -> None:
    what = signed()
    name = await Actions(any_store).file(what)
    approval = approved(what, "bob")
    assert await Actions(any_store).approve(name, approval)
    assert not await Actions(any_store).approve(name, approval)
    assert await Actions(any_store).filed() == [Filed(name, what, (approval,))]
    assert name == what.id
    with pytest.raises(StoreError, match="exists already"):
        await Actions(any_store).file(what)


async def test_reader_takes_up_what_comes_later(any_store: Store) -> None:
    reader = Actions(any_store)
    assert await reader.filed() == []
    what = signed()
    name = await reader.file(what)
    assert await reader.filed() == [Filed(name, what)]
    await reader.approve(name, approved(what, "bob"))
    assert len((await reader.filed())[0].approvals) == 1


async def test_what_is_no_statement_is_known_as_such(any_store: Store) -> None:
    what = signed()
    await any_store.put(action_key("a"), b"{}")
    await any_store.put(action_key("b"), what.to_json().ljust(10_000))
    await any_store.put(action_key("c"), what.to_json())
    await any_store.put(approval_key("c", "bob", "0" * 8), b"{}")
    await any_store.put(approval_key("d", "bob", "0" * 8), approved(what, "bob").to_json())
    await any_store.put("v1/actions/other", b"{}")
    assert await Actions(any_store).filed() == [Filed("a", None), Filed("b", None), Filed("c", what)]


async def test_junk_in_an_approvers_place_does_not_take_it(any_store: Store) -> None:
    what = signed()
    name, approval = await Actions(any_store).file(what), approved(what, "bob")
    await any_store.put(approval_key(name, "bob", "0" * 8), b"{}")
    assert await Actions(any_store).approve(name, approval)
    assert await Actions(any_store).filed() == [Filed(name, what, (approval,))]


class Late(Local):
    """Lists what it does not have yet; what is there has another size than it says."""

    async def listing(self, prefix: str) -> AsyncIterator[Stored]:
        async for stored in super().listing(prefix):
            yield replace(stored, size=100)

    async def get(self, key: str, largest: int | None = None) -> bytes | None:
        assert largest is not None, "anything may be there"
        return await super().get(key, largest) if self.has_it else None

    has_it = False


async def test_what_is_listed_and_not_there_yet_is_read_when_it_is(tmp_path: Path) -> None:
    store, what = Late(tmp_path), signed()
    reader = Actions(store)
    name = await reader.file(what)
    await reader.approve(name, approved(what, "bob"))
    assert await reader.filed() == []
    store.has_it = True
    assert await reader.filed() == [Filed(name, what, (approved(what, "bob"),))]


async def test_one_of_all_writes_down_that_a_nonce_is_used(any_store: Store) -> None:
    what = signed()
    first = await asyncio.gather(*(Actions(any_store).use_nonce(what) for _ in range(4)))
    assert sorted(first) == [False, False, False, True]
    assert await Actions(any_store).use_nonce(signed())
    assert await Actions(any_store).filed() == []


async def test_junk_in_the_place_of_a_nonce_keeps_nobody_from_noting_it(any_store: Store) -> None:
    what = signed()
    await any_store.put(nonce_key(what.statement.nonce), b"another")
    assert await Actions(any_store).use_nonce(what)
