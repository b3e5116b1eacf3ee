"""Statements in either store."""

from __future__ import annotations

import asyncio

from scanner.ports import Store
from scanner.quarantine.action_store import Actions, Claim
from scanner.quarantine.actions import Filed
from scanner.quarantine.layout import action_key, approval_key
from tests.quarantine.people import approved, signed


async def test_statement_is_filed_approved_and_read(any_store: Store) -> None:
    what = signed()
    name = await Actions(any_store).file(what)
    approval = approved(what, "bob")
    assert await Actions(any_store).approve(name, approval)
    assert not await Actions(any_store).approve(name, approval)
    assert await Actions(any_store).filed() == [Filed(name, what, (approval,))]


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
    await any_store.put(approval_key("c", "bob"), b"{}")
    await any_store.put(approval_key("c", "carol"), approved(what, "bob").to_json())
    await any_store.put(approval_key("d", "bob"), approved(what, "bob").to_json())
    await any_store.put("v1/actions/other", b"{}")
    assert await Actions(any_store).filed() == [Filed("a", None), Filed("b", None), Filed("c", what)]


async def test_nonce_belongs_to_the_first_statement_that_has_it(any_store: Store) -> None:
    what = signed()
    first, second = Filed("a", what), Filed("b", what)
    claims = await asyncio.gather(*(Actions(any_store).claim(first) for _ in range(4)))
    assert sorted(claims) == [Claim.NEW, Claim.SAME, Claim.SAME, Claim.SAME]
    assert await Actions(any_store).claim(second) is Claim.REPLAYED
    assert await Actions(any_store).claim(Filed("b", signed())) is Claim.NEW
    assert await Actions(any_store).filed() == []
