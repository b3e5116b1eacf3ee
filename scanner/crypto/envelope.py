"""The quarantine envelope, version 1: a sample that nobody can read but the SOC (docs/envelope.md).

Each sample has a data key of its own; AES-256-GCM seals it in chunks whose place and number are
authenticated, and the data key is wrapped to X25519 public keys: to each (`ANY` opens alone), or split
among them (`ALL` must come together). Who seals cannot read back what he sealed.

    head      8 magic, 1 mode, 1 number of recipients, 2 zero, 4 chunk size, 8 plaintext size
    each      32 public key, 32 ephemeral public key, 48 wrapped data key or share of it
    chunks    ciphertext and 16 bytes of tag, each; an empty plaintext has one

Integers are big-endian, sizes in bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import reduce
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from scanner.errors import EnvelopeError

CHUNK = 256 * 1024
KEY_BYTES = 32
MOST_RECIPIENTS = 16

_MAGIC = b"MMSQENV1"
_HEAD = struct.Struct(">8sBBHIQ")
_EACH = struct.Struct(f">{KEY_BYTES}s{KEY_BYTES}s48s")
_TAG_BYTES = 16
_PLACE = struct.Struct(">II")
_LARGEST_CHUNK = 2**26
_LARGEST = 2**40
_MOST_CHUNKS = 2**32 - 1
_INFO = b"matrix-media-scanner envelope 1"
# Each wrapping key is used once, for one message.
_WRAPPING_NONCE = bytes(12)


class Mode(IntEnum):
    """Who opens an envelope: any of its recipients, or all of them together."""

    ANY = 1
    ALL = 2


@dataclass(frozen=True, slots=True)
class _Recipient:
    """A public key, and what only its private half unwraps."""

    public_key: bytes
    ephemeral: bytes
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the chunks. `size` is the plaintext's, `chunk` that of its pieces, in bytes."""

    mode: Mode
    size: int
    chunk: int
    recipients: tuple[_Recipient, ...]

    @property
    def chunks(self) -> int:
        """Their number: one at least."""
        return max(1, -(-self.size // self.chunk))

    @property
    def public_keys(self) -> tuple[bytes, ...]:
        """Of the recipients."""
        return tuple(recipient.public_key for recipient in self.recipients)

    @property
    def stored_size(self) -> int:
        """Of the whole envelope."""
        return len(self.to_bytes()) + self.size + self.chunks * _TAG_BYTES

    def to_bytes(self) -> bytes:
        """`parse` reads it back."""
        head = _HEAD.pack(_MAGIC, self.mode, len(self.recipients), 0, self.chunk, self.size)
        return head + b"".join(_EACH.pack(r.public_key, r.ephemeral, r.wrapped) for r in self.recipients)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Of an envelope's beginning, `header_size` bytes or more. Raises EnvelopeError."""
        size = header_size(data)
        if len(data) < size:
            raise EnvelopeError("the envelope is cut off")
        _, mode, _, _, chunk, plaintext = _HEAD.unpack_from(data)
        each = _EACH.iter_unpack(data[_HEAD.size : size])
        return cls(Mode(mode), plaintext, chunk, tuple(_Recipient(*parts) for parts in each))


HEAD = _HEAD.size


def header_size(data: bytes) -> int:
    """How many bytes the header has whose first `HEAD` are `data`. Raises EnvelopeError."""
    if len(data) < HEAD:
        raise EnvelopeError("the envelope is cut off")
    magic, mode, recipients, zero, chunk, size = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise EnvelopeError("this is no envelope of version 1")
    if mode not in tuple(Mode) or not 0 < recipients <= MOST_RECIPIENTS:
        raise EnvelopeError("the envelope's head is damaged")
    if zero or not 0 < chunk <= _LARGEST_CHUNK or size > min(_LARGEST, chunk * _MOST_CHUNKS):
        raise EnvelopeError("the envelope's head is damaged")
    return HEAD + int(recipients) * _EACH.size


class Sealer:
    """Seals one plaintext of `size` bytes: `header`, then each chunk in its turn."""

    def __init__(
        self, public_keys: Sequence[bytes], size: int, mode: Mode = Mode.ANY, chunk: int = CHUNK
    ) -> None:
        if not 0 < len(public_keys) <= MOST_RECIPIENTS:
            raise EnvelopeError(f"an envelope has 1 to {MOST_RECIPIENTS} recipients")
        data_key = os.urandom(KEY_BYTES)
        head = _HEAD.pack(_MAGIC, mode, len(public_keys), 0, chunk, size)
        shares = [data_key] * len(public_keys) if mode is Mode.ANY else _split(data_key, len(public_keys))
        recipients = tuple(_wrap(key, share, head) for key, share in zip(public_keys, shares, strict=True))
        self.header = Header(mode, size, chunk, recipients)
        self._content = _Content(data_key, self.header)

    def seal(self, index: int, piece: bytes) -> bytes:
        """One chunk; `piece` has `header.chunk` bytes, but for the last one."""
        return self._content.seal(index, piece)


class Opener:
    """Opens one envelope with the private keys that its mode asks for. Raises EnvelopeError."""

    def __init__(self, header: Header, private_keys: Sequence[bytes]) -> None:
        self.header = header
        self._content = _Content(_data_key(header, private_keys), header)

    def open(self, index: int, chunk: bytes) -> bytes:
        """The plaintext of one chunk. Raises EnvelopeError where a bit of it, or its place, is another."""
        return self._content.open(index, chunk)

    def place(self, index: int) -> tuple[int, int]:
        """Offset and length of a chunk in the envelope."""
        header = self.header
        length = min(header.chunk, header.size - index * header.chunk) + _TAG_BYTES
        return len(header.to_bytes()) + index * (header.chunk + _TAG_BYTES), length


def public_key_of(private_key: bytes) -> bytes:
    """32 bytes each."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


class _Content:
    """Chunks under one data key."""

    def __init__(self, data_key: bytes, header: Header) -> None:
        digest = Hash(SHA256())
        digest.update(header.to_bytes())
        self._header = digest.finalize()
        self._count = header.chunks
        self._cipher = AESGCM(data_key)

    def seal(self, index: int, piece: bytes) -> bytes:
        return self._cipher.encrypt(_nonce(index), piece, self._place(index))

    def open(self, index: int, chunk: bytes) -> bytes:
        try:
            return self._cipher.decrypt(_nonce(index), chunk, self._place(index))
        except InvalidTag:
            raise EnvelopeError("the envelope is damaged, or was changed") from None

    def _place(self, index: int) -> bytes:
        return self._header + _PLACE.pack(index, self._count)


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


def _split(data_key: bytes, parts: int) -> list[bytes]:
    """Random shares whose sum, bit by bit, is the key."""
    shares = [os.urandom(KEY_BYTES) for _ in range(parts - 1)]
    return [*shares, reduce(_xor, shares, data_key)]


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _wrap(public_key: bytes, share: bytes, head: bytes) -> _Recipient:
    ephemeral = X25519PrivateKey.generate()
    try:
        secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        raise EnvelopeError("a recipient's public key is unusable") from None
    ours = ephemeral.public_key().public_bytes_raw()
    wrapped = _wrapping(secret, public_key, ours).encrypt(_WRAPPING_NONCE, share, head)
    return _Recipient(public_key, ours, wrapped)


def _data_key(header: Header, private_keys: Sequence[bytes]) -> bytes:
    ours = {public_key_of(key): key for key in private_keys}
    shares = [_unwrap(r, ours[r.public_key], header) for r in header.recipients if r.public_key in ours]
    needed = len(header.recipients) if header.mode is Mode.ALL else 1
    if len(shares) < needed:
        raise EnvelopeError("the envelope is sealed to another key, or needs more keys than these")
    return shares[0] if header.mode is Mode.ANY else reduce(_xor, shares)


def _unwrap(recipient: _Recipient, private_key: bytes, header: Header) -> bytes:
    try:
        ephemeral = X25519PublicKey.from_public_bytes(recipient.ephemeral)
        secret = X25519PrivateKey.from_private_bytes(private_key).exchange(ephemeral)
        wrapping = _wrapping(secret, recipient.public_key, recipient.ephemeral)
        return wrapping.decrypt(_WRAPPING_NONCE, recipient.wrapped, header.to_bytes()[:HEAD])
    except (InvalidTag, ValueError):
        raise EnvelopeError("the envelope's head is damaged, or was changed") from None


def _wrapping(secret: bytes, public_key: bytes, ephemeral: bytes) -> AESGCM:
    keys = HKDF(SHA256(), KEY_BYTES, salt=ephemeral + public_key, info=_INFO)
    return AESGCM(keys.derive(secret))
