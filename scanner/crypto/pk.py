"""The sealed body: Olm's PkEncryption, `m.megolm_backup.v1.curve25519-aes-sha2` (facts/pk_encryption.md).

X25519 agrees on a secret, HKDF-SHA-256 makes keys of it, AES-256-CBC hides the message. Its MAC covers
the *empty string*, as in libolm: it proves that the sender used our public key, nothing about the
ciphertext. So a sealed body is hidden from whoever only reads, and never authenticated; nobody may
"fix" that, because no client would be understood any more.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.padding import PKCS7

from scanner.errors import MalformedRequest, SealedBodyError

_SECRET_BYTES = 32
_EPHEMERAL_BYTES = 32
_MAC_BYTES = 8
_BLOCK_BYTES = 16
# One text whether key agreement, MAC or padding failed: how far a forged body came is nobody's business.
_NOT_OPENED = "encrypted_body was not sealed for this scanner's public key"


class ServerKeys:
    """What opens sealed bodies: the current secret, then the retired ones (32 bytes each).

    `public_key` is the current one, unpadded base64. Raises ValueError on a secret of another length.
    """

    __slots__ = ("_secrets", "public_key")

    def __init__(self, current: bytes, retired: Iterable[bytes] = ()) -> None:
        self._secrets = [X25519PrivateKey.from_private_bytes(secret) for secret in (current, *retired)]
        self.public_key = b64encode(self._secrets[0].public_key().public_bytes_raw()).decode().rstrip("=")

    def open(self, message: object) -> bytes:
        """The plaintext of `message`, the value of `encrypted_body` as it came from JSON.

        Raises MalformedRequest if it is no object of three strings, SealedBodyError if no secret opens it.
        """
        sealed = _SealedBody.parse(message)
        for secret in self._secrets:
            keys = _MessageKeys.agree(secret, sealed.ephemeral)
            if keys.authenticate(sealed.mac):
                return keys.decrypt(sealed.ciphertext)
        raise SealedBodyError(_NOT_OPENED)

    def __repr__(self) -> str:
        return "<ServerKeys>"


def generate_secret() -> str:
    """A new secret, as it stands in a secret file."""
    return format_secret(os.urandom(_SECRET_BYTES))


def format_secret(secret: bytes) -> str:
    """A secret as it stands in a secret file: padded, so that the reference reads it as well."""
    return b64encode(secret).decode()


def parse_secret(text: str | bytes) -> bytes:
    """The 32 bytes in a secret file: base64, padded or not, white space around it ignored.

    Raises ValueError, whose message does not show the content.
    """
    secret = _from_base64(text.strip())
    if len(secret) != _SECRET_BYTES:
        raise ValueError(f"a secret must be {_SECRET_BYTES} bytes in base64")
    return secret


@dataclass(frozen=True, slots=True, repr=False)
class _SealedBody:
    ephemeral: X25519PublicKey
    ciphertext: bytes
    mac: bytes

    @classmethod
    def parse(cls, message: object) -> Self:
        if not isinstance(message, dict):
            raise MalformedRequest("encrypted_body must be an object")
        texts = [_string(message, name) for name in ("ephemeral", "ciphertext", "mac")]
        ephemeral, ciphertext, mac = map(_from_base64, texts)
        if len(ephemeral) != _EPHEMERAL_BYTES or len(mac) != _MAC_BYTES:
            raise SealedBodyError("encrypted_body.ephemeral or mac is no base64, or of the wrong length")
        if not ciphertext or len(ciphertext) % _BLOCK_BYTES:
            raise SealedBodyError("encrypted_body.ciphertext is no base64, or no whole number of blocks")
        return cls(X25519PublicKey.from_public_bytes(ephemeral), ciphertext, mac)


@dataclass(frozen=True, slots=True, repr=False)
class _MessageKeys:
    """What both sides derive for one message."""

    aes_key: bytes
    mac_key: bytes
    iv: bytes

    @classmethod
    def agree(cls, secret: X25519PrivateKey, ephemeral: X25519PublicKey) -> Self:
        try:
            shared = secret.exchange(ephemeral)
        except ValueError:  # a point of low order: the shared secret would be zero, whatever ours is
            raise SealedBodyError(_NOT_OPENED) from None
        okm = HKDF(SHA256(), length=80, salt=None, info=b"").derive(shared)
        return cls(aes_key=okm[:32], mac_key=okm[32:64], iv=okm[64:])

    def authenticate(self, mac: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(self.mac_key, b"", "sha256")[:_MAC_BYTES], mac)

    def decrypt(self, ciphertext: bytes) -> bytes:
        decryptor = Cipher(AES(self.aes_key), CBC(self.iv)).decryptor()
        unpadder = PKCS7(AES.block_size).unpadder()
        padded = decryptor.update(ciphertext) + decryptor.finalize()
        try:
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            raise SealedBodyError(_NOT_OPENED) from None


def _string(message: Mapping[str, object], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise MalformedRequest(f"encrypted_body.{name} is missing or no string")
    return value


def _from_base64(text: str | bytes) -> bytes:
    """Standard alphabet, padded in full or not at all; empty, which nothing here may be, for all else."""
    raw = text.encode(errors="replace") if isinstance(text, str) else text
    padded = raw if raw.endswith(b"=") else raw + b"=" * (-len(raw) % 4)
    try:
        return a2b_base64(padded, strict_mode=True)
    except ValueError:
        return b""
