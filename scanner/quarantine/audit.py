"""The audit chain: who did what, each record signed and bound to the one before it. Pure.

A record names its number and the SHA-256 of its predecessor, so that an edit, a gap, another order and a swap
show. That the end was cut off shows against a head: number and hash of the last record at some time, which
scanners sign, put beside the chain, and log (facts/operations.md, section 5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Self

from scanner.crypto.signing import Signer, canonical, parsed, verified

VERSION = 1
NOTHING = "0" * 64
_RECORD, _HEAD = "audit 1", "audit head 1"
# By whom: people as the configuration names them, scanners by their key.
Keys = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Record:
    """One deed. `previous` is the SHA-256 of the record before it, `at` RFC 3339 in UTC."""

    number: int
    previous: str
    at: str
    author: str
    action: str
    subject: str
    signature: str

    @classmethod
    def new(cls, signer: Signer, **content: Any) -> Self:  # noqa: ANN401 - the fields, but the signature
        """Signed by its author."""
        return cls(**content, signature=signer.sign(_RECORD, content))

    def to_json(self) -> bytes:
        """`from_json` reads it back."""
        return canonical({"version": VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Raises ValueError on what is none of this version, or not spelled as `to_json` does."""
        return cls(**parsed(data, VERSION, _types(cls)))

    def is_signed(self, keys: Keys) -> bool:
        """Whether by its author, whose key is among these."""
        return _is_signed(self, _RECORD, keys)


@dataclass(frozen=True, slots=True)
class Head:
    """That the chain had a record of this number and SHA-256 at some time; one by hand says no more."""

    number: int
    sha256: str
    at: str = ""
    author: str = ""
    signature: str = ""

    @classmethod
    def new(cls, signer: Signer, number: int, sha256: str, author: str) -> Self:
        """Signed by a scanner."""
        content: dict[str, Any] = {"number": number, "sha256": sha256, "at": now_text(), "author": author}
        return cls(**content, signature=signer.sign(_HEAD, content))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Raises ValueError on what is none of this version, or not spelled as `to_json` does."""
        return cls(**parsed(data, VERSION, _types(cls)))

    def to_json(self) -> bytes:
        """`from_json` reads it back."""
        return canonical({"version": VERSION, **asdict(self)})

    def is_signed(self, keys: Keys) -> bool:
        """Whether by a scanner whose key is among these."""
        return _is_signed(self, _HEAD, keys)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the record of a number."""

    number: int
    what: str


def name_of_scanner(public_key: bytes) -> str:
    """As what a scanner signs."""
    return f"scanner-{hashlib.sha256(public_key).hexdigest()[:16]}"


def digest(record: bytes) -> str:
    """By which the next record names this one."""
    return hashlib.sha256(record).hexdigest()


def now_text() -> str:
    """RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def problems(
    records: Mapping[int, bytes], heads: Sequence[Head], keys: Keys, known: Head | None = None
) -> list[Problem]:
    """All that is wrong with a chain, by number. `records` are by the number in their names.

    `heads` were found beside it, and must be signed; `known` is from elsewhere, and is believed.
    """
    believed = [head for head in heads if head.is_signed(keys)] + ([known] if known is not None else [])
    found = [
        *_broken_links(records, keys),
        *_contradicted(records, believed),
        *(Problem(head.number, _forged(head)) for head in heads if not head.is_signed(keys)),
    ]
    return sorted(found, key=lambda problem: problem.number)


def _broken_links(records: Mapping[int, bytes], keys: Keys) -> Iterator[Problem]:
    expected, previous = 1, NOTHING
    for number in sorted(records):
        if number != expected:
            yield Problem(expected, f"is missing, and so are all up to {number - 1}")
        yield from _judged(number, records[number], previous if number == expected else None, keys)
        expected, previous = number + 1, digest(records[number])


def _judged(number: int, data: bytes, previous: str | None, keys: Keys) -> Iterator[Problem]:
    """`previous` is None where the record before it is missing."""
    try:
        record = Record.from_json(data)
    except ValueError:
        yield Problem(number, "is no audit record")
        return
    if record.number != number:
        yield Problem(number, f"says that it is number {record.number}")
    if previous is not None and record.previous != previous:
        yield Problem(number, "does not follow the one before it: either was changed or put there later")
    if not record.is_signed(keys):
        yield Problem(number, f"is not signed by its author, {record.author}, or his key is not listed")


def _contradicted(records: Mapping[int, bytes], heads: Iterable[Head]) -> Iterator[Problem]:
    for head in heads:
        if head.number not in records:
            yield Problem(head.number, f"was there{_when(head)}, and is missing")
        elif digest(records[head.number]) != head.sha256:
            yield Problem(head.number, f"is not the one that was there{_when(head)}")


def _forged(head: Head) -> str:
    return f"has a head that is not signed by {head.author}, or its key is not listed"


def _when(head: Head) -> str:
    return f" at {head.at}" if head.at else ""


def _types(kind: type[Record | Head]) -> dict[str, type]:
    return {field.name: int if field.name == "number" else str for field in fields(kind)}


def _is_signed(signed: Record | Head, purpose: str, keys: Keys) -> bool:
    content = asdict(signed)
    signature, key = content.pop("signature"), keys.get(signed.author)
    return key is not None and verified(key, signature, purpose, content)
