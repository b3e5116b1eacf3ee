"""One chain for all, in either store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scanner.errors import StoreError
from scanner.ports import Store
from scanner.quarantine import chain as module
from scanner.quarantine.audit import Record, problems
from scanner.quarantine.chain import Chain, Tail, read_heads, read_records, record_numbers
from scanner.quarantine.layout import audit_key, head_key
from scanner.stores.local import Local
from tests.quarantine.people import SIGNERS
from tests.quarantine.test_audit import KEYS, NAME, SCANNER


def chain_of(store: Store, author: str) -> Chain:
    return Chain(store, SIGNERS[author], author)


async def test_two_analysts_writing_at_once_make_one_chain(any_store: Store) -> None:
    chains = [chain_of(any_store, "alice"), chain_of(any_store, "bob")]
    await asyncio.gather(*(chain.append("deny", f"{n}") for n in range(10) for chain in chains))
    records = await read_records(any_store)
    assert sorted(records) == [*range(1, 21)]
    assert problems(records, [], KEYS) == []
    authors = [Record.from_json(data).author for data in records.values()]
    assert (authors.count("alice"), authors.count("bob")) == (10, 10)


async def test_who_comes_later_goes_on_where_the_chain_ends(any_store: Store) -> None:
    first = await chain_of(any_store, "alice").append("release", "a")
    second = await chain_of(any_store, "bob").append("deny", "b")
    assert (first.number, second.number) == (1, 2)
    assert (await chain_of(any_store, "carol").tail()).number == 2
    assert [*await read_records(any_store, 1)] == [2]


async def test_head_is_signed_and_read_back(any_store: Store) -> None:
    await chain_of(any_store, "alice").append("deny", "a")
    scanner = Chain(any_store, SCANNER, NAME)
    await scanner.sign_head(await scanner.tail())
    await scanner.sign_head(await scanner.tail())
    await any_store.put(head_key(7, "scanner-x"), b"{}")
    [head] = await read_heads(any_store)
    assert problems(await read_records(any_store), [head], KEYS) == []
    assert head.number == 1


async def test_record_that_was_taken_away_is_missed_and_the_chain_read_anew(any_store: Store) -> None:
    chain = chain_of(any_store, "alice")
    for subject in ("a", "b"):
        await chain.append("deny", subject)
    tail = await chain.tail()
    assert await chain.still_has(tail)
    await any_store.delete(audit_key(2))
    assert not await chain.still_has(tail)
    assert (await chain.tail()).number == 1


async def test_empty_store_has_an_empty_chain_and_other_names_are_no_records(any_store: Store) -> None:
    assert await chain_of(any_store, "alice").tail() == Tail()
    for name in ("x.json", "1.json", "000000000.json", "heads/000000001-x.json"):
        await any_store.put(f"v1/audit/{name}", b"{}")
    assert await record_numbers(any_store) == []
    assert (await chain_of(any_store, "alice").append("deny", "a")).number == 1


async def test_a_record_far_behind_the_end_leads_nobody_astray(any_store: Store) -> None:
    """Whoever may write there could make two chains of one: who was there before knows its end."""
    before = chain_of(any_store, "alice")
    for subject in ("a", "b"):
        await before.append("deny", subject)
    await any_store.put(audit_key(999_999_999), b"junk")
    assert (await chain_of(any_store, "bob").append("deny", "c")).number == 3
    assert (await before.append("deny", "d")).number == 4


async def test_nothing_is_written_where_a_verification_does_not_look(any_store: Store) -> None:
    """Behind the last numbers there are, which whoever may write there took."""
    await chain_of(any_store, "alice").append("deny", "a")
    for number in (999_999_998, 999_999_999):
        await any_store.put(audit_key(number), b"junk")
    last = await chain_of(any_store, "bob").append("deny", "b")
    assert last.number in await read_records(any_store)
    assert (await chain_of(any_store, "carol").append("deny", "c")).number == last.number + 1


async def test_a_gap_is_not_filled_but_left_to_be_found(any_store: Store) -> None:
    for subject in ("a", "b", "c", "d"):
        await chain_of(any_store, "alice").append("deny", subject)
    await any_store.delete(audit_key(2))
    assert (await chain_of(any_store, "bob").append("deny", "e")).number == 5
    assert problems(await read_records(any_store), [], KEYS)[0].number == 2


async def test_what_is_too_large_for_a_record_is_passed_over_unread(any_store: Store) -> None:
    await chain_of(any_store, "alice").append("deny", "a")
    await any_store.put(audit_key(2), b" " * 20_000)
    assert (await chain_of(any_store, "bob").append("deny", "b")).number == 3
    assert [problem.number for problem in problems(await read_records(any_store), [], KEYS)] == [2]


class Undecided(Local):
    """Says that it has what it cannot find, so many times."""

    lies = 0

    async def put(self, key: str, content: Path | bytes) -> bool:
        if self.lies:
            self.lies -= 1
            return False
        return await super().put(key, content)


async def test_a_store_that_has_a_record_and_has_it_not_is_not_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STALL", 0.0)
    store = Undecided(tmp_path)
    store.lies = 3
    assert (await chain_of(store, "alice").append("deny", "a")).number == 1
    store.lies = 1_000
    with pytest.raises(StoreError, match=r"000000002\.json: the store has it, and does not have it"):
        await chain_of(store, "alice").append("deny", "b")
    assert store.lies > 900
