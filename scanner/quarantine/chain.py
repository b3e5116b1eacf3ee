"""The audit chain in a store: scanners and workstations add to one, whoever is first.

The next record is named by its number and put if nothing has that name; who comes second reads on and tries
again. So nobody needs a lock, and nothing is ever overwritten.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from scanner.crypto.signing import Signer
from scanner.errors import StoreError
from scanner.ports import Store
from scanner.quarantine.audit import NOTHING, Head, Record, digest, now_text
from scanner.quarantine.layout import AUDIT, HEADS, audit_key, head_key

_RECORD = re.compile(rf"{AUDIT}/([0-9]{{9}}|[1-9][0-9]{{9}})\.json")
# Whoever takes the last number of nine digits drives nobody on to where names are not looked at.
_FARTHEST = 999_999_999
_AT_ONCE = 16
# Records and heads are under 2 KB: what is much larger is none, and is not fetched.
_LARGEST = 16_384
# What was refused because it is there, and is not there to be read, may be so a moment later.
_STALLS = 5
_STALL = 0.1


@dataclass(frozen=True, slots=True)
class Tail:
    """The last record: its number, 0 where there is none, and its SHA-256."""

    number: int = 0
    sha256: str = NOTHING


class Chain:
    """The one in `store`; `author` is whose `signer` that is. Every method raises StoreError."""

    def __init__(self, store: Store, signer: Signer, author: str) -> None:
        self.author = author
        self._store = store
        self._signer = signer
        self._tail: Tail | None = None
        self._appending = asyncio.Lock()

    @property
    def store(self) -> str:
        """The store's kind."""
        return self._store.name

    async def append(self, action: str, subject: str) -> Record:
        """Add what was done, behind whatever others added meanwhile."""
        async with self._appending:
            tail, stalls = await self.tail(), 0
            while (record := await self._put_behind(tail, action, subject)) is None:
                before, tail = tail, await self.tail()
                stalls = stalls + 1 if tail == before else 0
                if stalls == _STALLS:
                    raise StoreError(f"{audit_key(tail.number + 1)}: the store has it, and does not have it")
                await asyncio.sleep(stalls * _STALL)
            return record

    async def _put_behind(self, tail: Tail, action: str, subject: str) -> Record | None:
        """None where somebody was faster."""
        record = Record.new(
            self._signer,
            number=tail.number + 1,
            previous=tail.sha256,
            at=now_text(),
            author=self.author,
            action=action,
            subject=subject,
        )
        if not await self._store.put(audit_key(record.number), record.to_json()):
            return None
        self._tail = Tail(record.number, digest(record.to_json()))
        return record

    async def tail(self) -> Tail:
        """Read on from the last one known."""
        if self._tail is None:
            number = _end(await record_numbers(self._store))
            self._tail = Tail(max(number - 1, 0))
        while (data := await self._store.get(audit_key(self._tail.number + 1), _LARGEST)) is not None:
            self._tail = Tail(self._tail.number + 1, digest(data))
        return self._tail

    async def still_has(self, tail: Tail) -> bool:
        """Whether that record is there, unchanged; if not, the chain is read anew."""
        data = await self._store.get(audit_key(tail.number), _LARGEST)
        intact = data is not None and digest(data) == tail.sha256
        if not intact:
            self._tail = None
        return intact

    async def sign_head(self, tail: Tail) -> Head:
        """Put a signed note of how long it is beside it, once for each length."""
        head = Head.new(self._signer, tail.number, tail.sha256, self.author)
        await self._store.put(head_key(head.number, self.author), head.to_json())
        return head


def _end(numbers: Sequence[int]) -> int:
    """Of the longest stretch without a gap: a record far behind it is not where the chain goes on."""
    began, longest = 0, (0, 0)
    for at, number in enumerate(number for number in numbers if number <= _FARTHEST):
        if at and number != numbers[at - 1] + 1:
            began = at
        longest = max(longest, (at - began + 1, number))
    return longest[1]


async def record_numbers(store: Store) -> list[int]:
    """Of the records that there are, by their names. Raises StoreError."""
    keys = [stored.key async for stored in store.listing(f"{AUDIT}/")]
    numbers = [int(name[1]) for name in map(_RECORD.fullmatch, keys) if name is not None]
    return sorted(set(numbers) - {0})


async def read_records(store: Store, last: int | None = None) -> dict[int, bytes]:
    """All records, or so many of the last, by the number in their names. Raises StoreError."""
    numbers = await record_numbers(store)
    wanted = numbers if last is None else numbers[-last:]
    contents = await _read(store, [audit_key(number) for number in wanted])
    return {number: data or b"" for number, data in zip(wanted, contents, strict=True)}


async def read_heads(store: Store) -> list[Head]:
    """What scanners signed; what is no head is left out. Raises StoreError."""
    keys = [stored.key async for stored in store.listing(f"{HEADS}/")]
    heads = []
    for data in await _read(store, keys):
        try:
            heads.append(Head.from_json(data or b""))
        except ValueError:
            continue
    return heads


async def _read(store: Store, keys: list[str]) -> list[bytes | None]:
    contents: list[bytes | None] = []
    for at in range(0, len(keys), _AT_ONCE):
        contents += await asyncio.gather(*(store.get(key, _LARGEST) for key in keys[at : at + _AT_ONCE]))
    return contents
