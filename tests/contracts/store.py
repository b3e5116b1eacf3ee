"""What every quarantine store keeps to: `class TestX(StoreContract)` with a fixture `store`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scanner.ports import Store

KEY = "v1/objects/aa/sha256/00/11/0011"


class StoreContract:
    """Names are shared by all; nothing is ever replaced."""

    async def test_what_was_put_is_got(self, store: Store, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"x" * 300_000)
        assert await store.put(KEY, file)
        assert await store.put("v1/audit/1.json", b"{}")
        assert await store.get(KEY) == b"x" * 300_000
        assert await store.get("v1/audit/1.json") == b"{}"

    async def test_nothing_is_got_where_nothing_was_put(self, store: Store) -> None:
        assert await store.get(KEY) is None
        assert [stored async for stored in store.listing("v1/objects")] == []

    async def test_the_first_stays(self, store: Store) -> None:
        assert await store.put(KEY, b"first")
        assert not await store.put(KEY, b"second")
        assert await store.get(KEY) == b"first"

    async def test_what_is_larger_than_it_may_be_is_not_read(self, store: Store) -> None:
        await store.put(KEY, b"x" * 100)
        assert await store.get(KEY, 100) == b"x" * 100
        assert await store.get(KEY, 99) == b""
        assert await store.get("v1/audit/1.json", 99) is None
        assert await store.get(KEY) == b"x" * 100

    async def test_of_many_at_once_one_is_first(self, store: Store) -> None:
        first = await asyncio.gather(*(store.put(KEY, bytes([number])) for number in range(8)))
        assert first.count(True) == 1
        assert await store.get(KEY) == bytes([first.index(True)])

    async def test_what_there_is_is_listed_by_name(self, store: Store) -> None:
        keys = [f"v1/detections/2026/11/{day:02}/{day}.json" for day in range(1, 21)]
        for key in reversed(keys):
            await store.put(key, b"{}")
        await store.put("v1/actions/1.json", b"abc")
        assert [stored.key async for stored in store.listing("v1/detections/")] == keys
        assert [(stored.key, stored.size) async for stored in store.listing("v1/actions")] == [
            ("v1/actions/1.json", 3)
        ]
        assert [stored.key async for stored in store.listing("v1/detections/2026/11/03/")] == [keys[2]]

    async def test_what_is_deleted_is_gone_and_may_be_deleted_again(self, store: Store) -> None:
        await store.put(KEY, b"x")
        await store.delete(KEY)
        await store.delete(KEY)
        assert await store.get(KEY) is None
        assert await store.put(KEY, b"y")

    async def test_what_is_held_can_be_read_and_let_go(self, store: Store) -> None:
        """Whether nobody can delete it meanwhile, the store says itself."""
        await store.put(KEY, b"x")
        held = await store.hold(KEY, True)
        assert await store.get(KEY) == b"x"
        assert await store.hold(KEY, False) is held
        assert await store.hold(KEY, False) is held

    async def test_nothing_at_all_can_be_stored(self, store: Store) -> None:
        assert await store.put(KEY, b"")
        assert await store.get(KEY) == b""

    @pytest.mark.parametrize("size", [1, 20 * 2**20])
    async def test_a_file_of_any_size_is_stored_whole(self, store: Store, tmp_path: Path, size: int) -> None:
        file = tmp_path / "file"
        file.write_bytes(bytes(range(256)) * (size // 256 + 1))
        await store.put(KEY, file)
        assert await store.get(KEY) == file.read_bytes()
