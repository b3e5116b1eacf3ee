"""Who was given a content before it was detected: one record for each replica, sealed to the SOC. Pure.

For `media-scanner quarantine show`: list `layout.deliveries_of(sha256)` in the store, get each name, and give
the bytes with the SOC's private keys to `opened`. Any one of the analysts' keys opens it, whatever
`quarantine.four_eyes` says: it holds no sample. A record without deliveries says that this replica gave the
content to nobody since `since`; where there is a sample the detection record says that, as `Witness`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Self

from scanner.crypto.envelope import CHUNK, Header, Mode, Opener, Sealer

VERSION = 1
# A record stays under 3 MB; beyond, the first who were given it stand there.
MOST_DELIVERIES = 10_000


@dataclass(frozen=True, slots=True)
class Delivery:
    """One caller was given one media. `first` and `last` are Unix times, `caller` a keyed hash in hex."""

    media: str
    caller: str
    first: float
    last: float
    count: int


@dataclass(frozen=True, slots=True)
class Witness:
    """A replica, and since when it has noted deliveries (RFC 3339 in UTC; None: not until now)."""

    replica: str
    since: str | None


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """What one replica knows, the first delivery first; `omitted` are those that did not fit in.

    `at` is when it was written, `since` from when on deliveries were noted (both RFC 3339 in UTC; None: not
    before `at`).
    """

    sha256: str
    replica: str
    at: str
    since: str | None
    deliveries: tuple[Delivery, ...]
    omitted: int = 0
    version: int = field(default=VERSION)

    def to_json(self) -> bytes:
        """`from_json` reads it back."""
        content = asdict(self)
        content["omitted"] += len(self.deliveries[MOST_DELIVERIES:])
        content["deliveries"] = content["deliveries"][:MOST_DELIVERIES]
        return "".join(_JSON.iterencode(content)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Raises ValueError on what is no record of this version; whoever may write here is not trusted."""
        try:
            content: dict[str, Any] = json.loads(data)
            if content["version"] != VERSION:
                raise ValueError(f"a record of version {content['version']!r}")
            content["deliveries"] = tuple(Delivery(**each) for each in content["deliveries"])
            record = cls(**content)
        except (KeyError, TypeError, RecursionError) as problem:
            raise ValueError("no record of deliveries") from problem
        if not (_fits(record, _RECORD) and all(_fits(each, _DELIVERY) for each in record.deliveries)):
            raise ValueError("no record of deliveries")
        return record


# Piece by piece: `json.dumps` lets no other thread run until it is done.
_JSON = json.JSONEncoder(separators=(",", ":"))
_RECORD = {"sha256": (str,), "replica": (str,), "at": (str,), "since": (str, type(None)), "omitted": (int,)}
_DELIVERY = {"media": (str,), "caller": (str,), "first": (int, float), "last": (int, float), "count": (int,)}


def _fits(value: object, types: Mapping[str, tuple[type, ...]]) -> bool:
    values = [(getattr(value, name), allowed) for name, allowed in types.items()]
    return all(
        type(each) in allowed and (type(each) is not float or isfinite(each)) for each, allowed in values
    )


def sealed(record: DeliveryRecord, public_keys: Sequence[bytes]) -> bytes:
    """An envelope that each of the keys opens alone."""
    plaintext = record.to_json()
    sealer = Sealer(public_keys, len(plaintext), Mode.ANY)
    pieces = (plaintext[index * CHUNK : (index + 1) * CHUNK] for index in range(sealer.header.chunks))
    return sealer.header.to_bytes() + b"".join(sealer.seal(i, piece) for i, piece in enumerate(pieces))


def opened(envelope: bytes, private_keys: Sequence[bytes], sha256: str) -> DeliveryRecord:
    """The record, which must be about `sha256`.

    Raises EnvelopeError where the keys do not open it, ValueError on what is no such record.
    """
    opener = Opener(Header.parse(envelope), private_keys)
    places = map(opener.place, range(opener.header.chunks))
    pieces = (opener.open(i, envelope[at : at + length]) for i, (at, length) in enumerate(places))
    record = DeliveryRecord.from_json(b"".join(pieces))
    if record.sha256 != sha256:
        raise ValueError("a record of another content's deliveries")
    return record
