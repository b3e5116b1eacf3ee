"""The standard security handler of PDF (ISO 32000-2, 7.6), for what opens without a password: it is empty.

Its ciphers are what documents are encrypted with, good or not. Nothing here shows whether the password was
right: with another one nothing comes out that makes sense. ValueError for what cannot be a key.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
_BLOCK = 16


def file_key(user: bytes, user_key: bytes, revision: int) -> bytes:
    """By `/U` and `/UE`, from revision 5 on (algorithm 2.A)."""
    cipher = Cipher(AES(_hash(user[40:48], revision)), CBC(bytes(_BLOCK)))
    return cipher.decryptor().update(user_key[:32])


def _hash(salt: bytes, revision: int) -> bytes:
    """Algorithm 2.B; revision 5 has its first step alone."""
    key, last, rounds = hashlib.sha256(salt).digest(), 0, 0
    while revision > 5 and (rounds < 64 or last > rounds - 32):
        encrypted = Cipher(AES(key[:16]), CBC(key[16:32])).encryptor().update(key * 64)
        key = (hashlib.sha256, hashlib.sha384, hashlib.sha512)[sum(encrypted[:16]) % 3](encrypted).digest()
        last, rounds = encrypted[-1], rounds + 1
    return key[:32]


def old_file_key(owner: bytes, permissions: int, identifier: bytes, revision: int, length: int) -> bytes:
    """By `/O`, `/P` and the document's identifier, up to revision 4 (algorithm 2).

    `length` is in bytes; where metadata are left plain, four bytes 0xFF belong to the identifier.
    """
    flags = (permissions & 0xFFFFFFFF).to_bytes(4, "little")
    key = _md5(_PADDING + owner[:32] + flags + identifier)
    for _ in range(50 if revision >= 3 else 0):
        key = _md5(key[:length])
    return key[:length]


def by_rc4(key: bytes, number: int, generation: int, data: bytes) -> bytes:
    """What lies in the stream of this object."""
    return Cipher(ARC4(_of_object(key, number, generation)), None).decryptor().update(data)


def by_aes128(key: bytes, number: int, generation: int, data: bytes) -> bytes:
    """What lies in the stream of this object."""
    return by_aes256(_of_object(key, number, generation, b"sAlT"), data)


def by_aes256(key: bytes, data: bytes) -> bytes:
    """Without the initialization vector before it and the padding behind it."""
    end = len(data) // _BLOCK * _BLOCK
    cipher = Cipher(AES(key), CBC(data[:_BLOCK].ljust(_BLOCK)))
    plain = cipher.decryptor().update(data[_BLOCK:end])
    return plain[: len(plain) - min(plain[-1], _BLOCK)] if plain else b""


def _of_object(key: bytes, number: int, generation: int, salt: bytes = b"") -> bytes:
    """Algorithm 1."""
    numbers = (number & 0xFFFFFF).to_bytes(3, "little") + (generation & 0xFFFF).to_bytes(2, "little")
    return _md5(key + numbers + salt)[: min(len(key) + 5, 16)]


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
