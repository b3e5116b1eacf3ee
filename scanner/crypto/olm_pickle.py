"""The pickled PkDecryption in which the Node scanner and matrix-content-scanner up to 1.2 kept their secret.

libolm's format (src/pickle_encoding.c, src/pk.cpp): HKDF-SHA-256 of the pickle key makes keys, AES-256-CBC
hides version 1, the public key and the secret, and a MAC of 8 bytes covers the ciphertext.
"""

from __future__ import annotations

import hmac
from base64 import b64decode

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.padding import PKCS7

_VERSION = (1).to_bytes(4, "big")
_KEY_BYTES = 32
_MAC_BYTES = 8
_CIPHERTEXT_BYTES = 80  # version and two keys, padded


def unpickle_secret(pickle: bytes, pickle_key: str) -> bytes:
    """The 32 bytes of the secret in `pickle` (unpadded base64, white space around it ignored).

    Raises ValueError, whose message shows neither of them.
    """
    sealed = _from_base64(pickle.strip())
    if len(sealed) != _CIPHERTEXT_BYTES + _MAC_BYTES:
        raise ValueError("is not a pickled PkDecryption of libolm")
    ciphertext, mac = sealed[:_CIPHERTEXT_BYTES], sealed[_CIPHERTEXT_BYTES:]
    okm = HKDF(SHA256(), length=80, salt=None, info=b"Pickle").derive(pickle_key.encode())
    aes_key, mac_key, iv = okm[:32], okm[32:64], okm[64:]
    if not hmac.compare_digest(hmac.digest(mac_key, ciphertext, "sha256")[:_MAC_BYTES], mac):
        raise ValueError("is damaged, or was made with another pickle key")
    return _secret_of(_decrypt(ciphertext, aes_key, iv))


def _from_base64(text: bytes) -> bytes:
    try:
        return b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        return b""


def _decrypt(ciphertext: bytes, aes_key: bytes, iv: bytes) -> bytes:
    decryptor = Cipher(AES(aes_key), CBC(iv)).decryptor()
    unpadder = PKCS7(AES.block_size).unpadder()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    try:
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        return b""


def _secret_of(content: bytes) -> bytes:
    version, public_key, secret = content[:4], content[4:-_KEY_BYTES], content[-_KEY_BYTES:]
    if version != _VERSION or len(secret) != _KEY_BYTES:
        raise ValueError("is a pickle of a version that is not known")
    if X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw() != public_key:
        raise ValueError("holds two keys that do not belong together")
    return secret
