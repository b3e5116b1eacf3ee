"""Analysts' statements in a store: filed, approved, read, and each nonce taken once."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TypeVar

from scanner.errors import StoreError
from scanner.ports import Store
from scanner.quarantine.actions import Approval, Filed, Signed, new_id
from scanner.quarantine.layout import ACTIONS, action_key, approval_key, nonce_key

_KEY = re.compile(rf"{ACTIONS}/(?P<id>[0-9A-Za-z-]{{1,64}})(?:\.approval-(?P<by>[a-z0-9._-]{{1,64}}))?\.json")
# Statements are under 4 KB: what is larger is none, and is not fetched.
_LARGEST = 8_192
_AT_ONCE = 16
_Parsed = TypeVar("_Parsed")


class Claim(StrEnum):
    """Whose a nonce is."""

    NEW = "new"
    SAME = "same"
    REPLAYED = "replayed"


class Actions:
    """The statements in `store`. Nothing there changes: what was read once is known, and not read again.

    So nobody undoes a decision by deleting it, nor does a directory that is not mounted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._signed: dict[str, Signed | None] = {}
        self._approvals: dict[str, dict[str, Approval]] = {}
        self._read: set[tuple[str, str]] = set()

    @property
    def store(self) -> str:
        """The store's kind; a metric label."""
        return self._store.name

    async def filed(self) -> list[Filed]:
        """All that there is, the oldest first. Raises StoreError."""
        await self._read_new(await self._names())
        return [
            Filed(name, self._signed[name], tuple(self._approvals.get(name, {}).values()))
            for name in sorted(self._signed)
        ]

    async def file(self, signed: Signed) -> str:
        """Put it into the store; returns its name there. Raises StoreError."""
        name = new_id(time.time())
        if not await self._store.put(action_key(name), signed.to_json()):
            raise StoreError(f"{action_key(name)}: exists already; try again")
        return name

    async def approve(self, name: str, approval: Approval) -> bool:
        """Put it beside the statement; whether the approver had none there. Raises StoreError."""
        return await self._store.put(approval_key(name, approval.by), approval.to_json())

    async def claim(self, filed: Filed) -> Claim:
        """Take its nonce: NEW to whoever is first, REPLAYED where that was another statement's name.

        Raises StoreError.
        """
        assert filed.signed is not None
        key = nonce_key(filed.signed.statement.nonce)
        if await self._store.put(key, filed.id.encode()):
            return Claim.NEW
        return Claim.SAME if await self._store.get(key, _LARGEST) == filed.id.encode() else Claim.REPLAYED

    async def is_replayed(self, filed: Filed) -> bool:
        """Whether its nonce is another's; takes none. Raises StoreError."""
        assert filed.signed is not None
        holder = await self._store.get(nonce_key(filed.signed.statement.nonce), _LARGEST)
        return holder is not None and holder != filed.id.encode()

    async def _names(self) -> dict[tuple[str, str], int]:
        """Sizes in bytes, by the name of a statement and that of whoever approves it, or nobody's."""
        names = {}
        async for stored in self._store.listing(f"{ACTIONS}/"):
            if found := _KEY.fullmatch(stored.key):
                names[found["id"], found["by"] or ""] = stored.size
        return names

    async def _read_new(self, names: dict[tuple[str, str], int]) -> None:
        new = [each for each in names if each not in self._read]
        for at in range(0, len(new), _AT_ONCE):
            batch = new[at : at + _AT_ONCE]
            contents = await asyncio.gather(*(self._fetched(*each, names[each]) for each in batch))
            self._take(zip(batch, contents, strict=True))
            self._read.update(batch)

    def _take(self, read: Iterable[tuple[tuple[str, str], bytes]]) -> None:
        for (name, by), data in read:
            if not by:
                self._signed[name] = _parsed(Signed.from_json, data)
            elif (approval := _parsed(Approval.from_json, data)) is not None and approval.by == by:
                self._approvals.setdefault(name, {})[by] = approval

    async def _fetched(self, name: str, by: str, size: int) -> bytes:
        if size > _LARGEST:
            return b""
        return await self._store.get(approval_key(name, by) if by else action_key(name)) or b""


def _parsed(parse: Callable[[bytes], _Parsed], data: bytes) -> _Parsed | None:
    try:
        return parse(data)
    except ValueError:
        return None
