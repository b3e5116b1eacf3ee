"""Sealed samples, opened on a workstation: by the SOC's keys, and believed only if they are what they say."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence

import pyzipper

from scanner.crypto.envelope import Header, Mode, Opener
from scanner.errors import EnvelopeError, StoreError
from scanner.ports import Store
from scanner.quarantine.catalogue import SealedSample
from scanner.quarantine.layout import fingerprint

# What everybody in the trade tries first; it keeps other antivirus software off, and nobody out.
PASSWORD = b"infected"


async def envelope_of(store: Store, sample: SealedSample) -> bytes:
    """All of it. Raises StoreError."""
    envelope = await store.get(sample.key, sample.size)
    if envelope is None:
        raise StoreError(f"{sample.key}: is gone")
    return envelope


def examined(sample: SealedSample, envelope: bytes) -> Header:
    """What it says of itself. Raises EnvelopeError where that is not what the store says of it."""
    header = Header.parse(envelope)
    if not header.stored_size == len(envelope) == sample.size:
        raise EnvelopeError(f"it should have {header.stored_size} bytes, and has {len(envelope)}")
    if fingerprint(header.public_keys) != sample.recipients:
        raise EnvelopeError("it is sealed to others than its name says")
    return header


def fits(header: Header, public_keys: Iterable[bytes]) -> bool:
    """Whether the owners of these keys can open it together."""
    ours = set(public_keys).intersection(header.public_keys)
    return len(ours) >= needed(header)


def needed(header: Header) -> int:
    """How many of its recipients' keys it takes."""
    return len(set(header.public_keys)) if header.mode is Mode.ALL else 1


def opened(header: Header, envelope: bytes, private_keys: Sequence[bytes], sha256: str) -> bytes:
    """The plaintext. Raises EnvelopeError where it cannot be had, or is another than its name says."""
    opener = Opener(header, private_keys)
    places = map(opener.place, range(header.chunks))
    plaintext = b"".join(
        opener.open(index, envelope[offset : offset + length])
        for index, (offset, length) in enumerate(places)
    )
    if hashlib.sha256(plaintext).hexdigest() != sha256:
        raise EnvelopeError("what is in it is not what its name says")
    return plaintext


def zipped(plaintext: bytes, name: str) -> bytes:
    """An archive with this one file, encrypted with AES-256 and the password that the trade uses."""
    archive = io.BytesIO()
    with pyzipper.AESZipFile(
        archive, "w", compression=pyzipper.ZIP_DEFLATED, encryption=pyzipper.WZ_AES
    ) as writer:
        writer.setpassword(PASSWORD)
        writer.writestr(name, plaintext)
    return archive.getvalue()
