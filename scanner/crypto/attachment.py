"""Encrypted attachments: how ciphertext becomes plaintext.

The rules of this module: `EncryptedFile` v2 is parsed strictly and by hand (Matrix spec, "Sending
encrypted attachments"); nothing that holds key material can be printed or pickled; errors name a
field, never its value. Anything malformed is refused, except what real clients decrypt to one and
the same plaintext: padding, and either base64 alphabet in the key and the IV.
"""

from __future__ import annotations

import hmac
import json
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self, SupportsIndex, TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from scanner.errors import DecryptionError, MalformedRequest

_KEY_BYTES = 32
_IV_BYTES = 16
_HASH_BYTES = 32
_BLOCK_BYTES = 16
_COUNTER_LIMIT = 2**64
_KEY_OPS = frozenset({"encrypt", "decrypt"})
_URL_SAFE_TO_STANDARD = str.maketrans("-_", "+/")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class AttachmentKey:
    """Key, IV and ciphertext hash of one attachment; made by `parse`.

    `ciphertext_sha256` is the digest that the ciphertext must have (32 bytes).
    """

    _key: bytes
    _iv: bytes
    ciphertext_sha256: bytes

    @classmethod
    def parse(cls, file: object) -> Self:
        """Read an `EncryptedFile` as it came from JSON; members it does not need are ignored.

        Raises MalformedRequest where the shape is wrong, DecryptionError where key, IV or hash cannot
        be decoded or have the wrong length.
        """
        members = _typed(file, dict, "file")
        key = _member(members, "file.key", dict)
        hashes = _member(members, "file.hashes", dict)
        k, iv = _member(key, "file.key.k", str), _member(members, "file.iv", str)
        sha256 = _member(hashes, "file.hashes.sha256", str)
        _expect(members, "file.v", "v2")
        _check_algorithm(key)
        return cls(
            _decode(k.translate(_URL_SAFE_TO_STANDARD), _KEY_BYTES, "file.key.k", "key"),
            _decode(iv.translate(_URL_SAFE_TO_STANDARD), _IV_BYTES, "file.iv", "key"),
            _decode(sha256, _HASH_BYTES, "file.hashes.sha256", "hash"),
        )

    def check(self, size: int, ciphertext_sha256: bytes) -> None:
        """Whether this key is for that ciphertext, `size` in bytes; raises DecryptionError.

        A counter whose low 64 bits wrap inside the file is refused: clients disagree about the carry,
        so that the same file would have two plaintexts (facts/wire.md, "Evasion by key material").
        """
        if not hmac.compare_digest(self.ciphertext_sha256, ciphertext_sha256):
            raise DecryptionError("the media does not have the hash in file.hashes.sha256", "hash")
        blocks = -(-size // _BLOCK_BYTES)
        if int.from_bytes(self._iv[8:], "big") + blocks > _COUNTER_LIMIT:
            raise DecryptionError("the counter in file.iv would wrap inside the media", "key")

    def decryptor(self) -> Decryptor:
        """A fresh one, at the start of the ciphertext."""
        return Decryptor(Cipher(AES(self._key), CTR(self._iv)))

    def secret_material(self) -> bytes:
        """Key, IV and ciphertext hash, always 80 bytes; for keyed hashes, never to be stored."""
        return self._key + self._iv + self.ciphertext_sha256

    def __repr__(self) -> str:
        return "<AttachmentKey>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("an AttachmentKey cannot be pickled or copied")


class Decryptor:
    """AES-256-CTR over one ciphertext, piece by piece, from its start."""

    __slots__ = ("_context",)

    def __init__(self, cipher: Cipher[CTR]) -> None:
        self._context = cipher.decryptor()

    def decrypt_into(self, ciphertext: bytes | memoryview, plaintext: bytearray | memoryview) -> None:
        """Decrypt the next piece, of any length, into the first bytes of `plaintext`.

        Raises ValueError if `plaintext` is shorter than `ciphertext`.
        """
        self._context.update_into(ciphertext, plaintext)


def _check_algorithm(key: Mapping[str, object]) -> None:
    _expect(key, "file.key.kty", "oct")
    _expect(key, "file.key.alg", "A256CTR")
    _expect(key, "file.key.ext", True)  # noqa: FBT003 - the value itself
    key_ops = _member(key, "file.key.key_ops", list)
    if not all(isinstance(operation, str) for operation in key_ops) or not _KEY_OPS.issubset(key_ops):
        raise MalformedRequest("file.key.key_ops must be strings, encrypt and decrypt among them")


def _expect(parent: Mapping[str, object], path: str, value: str | bool) -> None:  # noqa: FBT001 - likewise
    # Of the same type, too: 1 == True.
    if _member(parent, path, type(value)) != value:
        raise MalformedRequest(f"{path} must be {json.dumps(value)}")


def _member(parent: Mapping[str, Any], path: str, kind: type[_T]) -> _T:
    return _typed(parent.get(path.rpartition(".")[2]), kind, path)


def _typed(value: object, kind: type[_T], path: str) -> _T:
    if not isinstance(value, kind):
        raise MalformedRequest(f"{path} is missing or of the wrong type")
    return value


def _decode(text: str, length: int, path: str, cause: str) -> bytes:
    """Standard base64, padded in full or not at all; bits beyond the last byte are ignored."""
    padded = text if text.endswith("=") else text + "=" * (-len(text) % 4)
    try:
        decoded = a2b_base64(padded, strict_mode=True)
    except ValueError:
        decoded = b""
    if len(decoded) != length:
        raise DecryptionError(f"{path} must be {length} bytes in base64", cause)
    return decoded
