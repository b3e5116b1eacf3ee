"""Analysts' statements in a store: filed, approved, read, and the nonces that were used."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from scanner.errors import StoreError
from scanner.ports import Store
from scanner.quarantine.actions import Approval, Filed, Signed
from scanner.quarantine.layout import ACTIONS, action_key, approval_key, nonce_key

_KEY = re.compile(
    rf"{ACTIONS}/(?P<id>[0-9A-Za-z-]{{1,64}})(?P<approval>\.approval-[a-z0-9._-]{{1,80}})?\.json"
)
# Statements are under 2 KB: what is much larger is none, and is not fetched.
_LARGEST = 8_192
_AT_ONCE = 16
_Parsed = TypeVar("_Parsed")


class Actions:
    """The statements in `store`. Nothing there changes: what was read once is known, and not read again.

    So nobody undoes a decision by deleting it, nor does a directory that is not mounted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._signed: dict[str, Signed | None] = {}
        self._approvals: dict[str, list[Approval]] = {}
        self._read: set[str] = set()

    @property
    def store(self) -> str:
        """The store's kind; a metric label."""
        return self._store.name

    async def filed(self) -> list[Filed]:
        """All that there is, the oldest first. Raises StoreError."""
        await self._read_new(await self._sizes())
        return [
            Filed(name, self._signed[name], tuple(self._approvals.get(name, ())))
            for name in sorted(self._signed)
        ]

    async def file(self, signed: Signed) -> str:
        """Put it into the store; returns its name there. Raises StoreError."""
        if not await self._store.put(action_key(signed.id), signed.to_json()):
            raise StoreError(f"{action_key(signed.id)}: exists already; try again")
        return signed.id

    async def approve(self, name: str, approval: Approval) -> bool:
        """Put it beside the statement; whether it was not there. Raises StoreError."""
        key = approval_key(name, approval.by, approval.digest)
        return await self._store.put(key, approval.to_json())

    async def use_nonce(self, signed: Signed) -> bool:
        """Write down that its nonce is used; whether nobody had. Raises StoreError.

        It decides who notes that, and nothing else: a mark that names another statement is not believed.
        """
        key, name = nonce_key(signed.statement.nonce), signed.id.encode()
        return await self._store.put(key, name) or await self._store.get(key, _LARGEST) != name

    async def _sizes(self) -> dict[str, int]:
        """In bytes, of every statement and approval, by its key."""
        found = {stored.key: stored.size async for stored in self._store.listing(f"{ACTIONS}/")}
        return {key: size for key, size in found.items() if _KEY.fullmatch(key)}

    async def _read_new(self, sizes: Mapping[str, int]) -> None:
        new = [key for key in sizes if key not in self._read]
        for at in range(0, len(new), _AT_ONCE):
            batch = new[at : at + _AT_ONCE]
            contents = await asyncio.gather(*(self._fetched(key, sizes[key]) for key in batch))
            # What is not there yet, or not any longer, is asked for again.
            read = {key: data for key, data in zip(batch, contents, strict=True) if data is not None}
            self._take(read.items())
            self._read.update(read)

    def _take(self, read: Iterable[tuple[str, bytes]]) -> None:
        for key, data in read:
            found = _KEY.fullmatch(key)
            assert found is not None
            if not found["approval"]:
                self._signed[found["id"]] = _parsed(Signed.from_json, data)
            elif (approval := _parsed(Approval.from_json, data)) is not None:
                self._approvals.setdefault(found["id"], []).append(approval)

    async def _fetched(self, key: str, size: int) -> bytes | None:
        return await self._store.get(key, _LARGEST) if size <= _LARGEST else b""


def _parsed(parse: Callable[[bytes], _Parsed], data: bytes) -> _Parsed | None:
    try:
        return parse(data)
    except ValueError:
        return None
