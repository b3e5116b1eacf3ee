"""Quarantines with something in them: sealed samples and records, as a scanner puts them there."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from scanner.crypto.envelope import CHUNK, Mode, Sealer, public_key_of
from scanner.ports import Store
from scanner.quarantine.layout import detection_key, fingerprint, identity, object_key
from scanner.quarantine.records import DetectionRecord

SOC = b"\1" * 32
OTHER = b"\2" * 32
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SIGNATURE = "Win.Trojan.Agent-1"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def envelope(content: bytes, *keys: bytes, mode: Mode = Mode.ANY) -> bytes:
    """Sealed to the public halves of these private keys; to the SOC's if to none."""
    sealer = Sealer([public_key_of(key) for key in keys or (SOC,)], len(content), mode)
    pieces = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)] or [b""]
    return sealer.header.to_bytes() + b"".join(sealer.seal(*each) for each in enumerate(pieces))


def sample_key(content: bytes, *keys: bytes) -> str:
    return object_key(fingerprint([public_key_of(key) for key in keys or (SOC,)]), digest(content))


async def put_sample(store: Store, content: bytes, *keys: bytes, mode: Mode = Mode.ANY) -> str:
    """Its name in the store."""
    name = sample_key(content, *keys)
    await store.put(name, envelope(content, *keys, mode=mode))
    return name


def a_record(content: bytes = b"sample", *, at: datetime = NOW, **changes: Any) -> DetectionRecord:
    known: dict[str, Any] = {
        "at": at.isoformat(timespec="milliseconds"),
        "sha256": digest(content),
        "sha1": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
        "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        "size": len(content),
        "mime_type": "application/x-dosexec",
        "verdict": "infected",
        "signatures": (SIGNATURE,),
        "engines": {"clamav": "ClamAV 1.4.3/27800"},
        "media": "mxc://example.org/abc",
        "source": "download",
        "encrypted": False,
        "ciphertext_sha256": None,
        "request_id": "01HZX",
        "sample": sample_key(content),
    }
    return DetectionRecord(**{**known, **changes})


def record_key(record: DetectionRecord) -> str:
    known_as = identity(record.sha256, record.media or record.request_id)
    return detection_key(datetime.fromisoformat(record.at), known_as)


async def put_record(store: Store, content: bytes = b"sample", *, at: datetime = NOW, **changes: Any) -> str:
    """Its name in the store."""
    record = a_record(content, at=at, **changes)
    await store.put(record_key(record), record.to_json())
    return record_key(record)
