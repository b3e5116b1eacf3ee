"""Ed25519 signatures over canonical JSON: what people and scanners stand for.

What is signed is a flat object in its one spelling (sorted names, no white space, ASCII), behind a purpose: a
signature on an approval is none on an action. Pure; nothing here knows what is being said.
"""

from __future__ import annotations

import json
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Content = Mapping[str, str | int]

_CONTEXT = "matrix-media-scanner"


class Signer:
    """Holds the 32 bytes of a private key."""

    __slots__ = ("_key", "public_key")

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public_key = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return "<Signer>"

    def sign(self, purpose: str, content: Content) -> str:
        """In base64; `verified` checks it."""
        return b64encode(self._key.sign(_message(purpose, content))).decode()


def verified(public_key: bytes, signature: str, purpose: str, content: Content) -> bool:
    """Whether the holder of the private half signed exactly this, for this purpose. Does not raise.

    A signature has one spelling, too: Python ignores the bits of the last digit that say nothing.
    """
    try:
        raw = a2b_base64(signature, strict_mode=True)
        if b64encode(raw).decode() != signature:
            return False
        Ed25519PublicKey.from_public_bytes(public_key).verify(raw, _message(purpose, content))
    except (ValueError, InvalidSignature):
        return False
    return True


def canonical(content: Content) -> bytes:
    """The one spelling of a flat object of texts and whole numbers."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def parsed(data: bytes, version: int, types: Mapping[str, type]) -> dict[str, Any]:
    """What `canonical` spelled: exactly these members, of these types, and `version`, which is left out.

    Whoever wrote it is not trusted. Raises ValueError.
    """
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    expected = {"version": int, **types}
    if not isinstance(content, dict) or {name: type(content[name]) for name in content} != expected:
        raise ValueError("members are missing, unknown or of the wrong type")
    if canonical(content) != data or content.pop("version") != version:
        raise ValueError("of another version, or spelled in another way")
    return content


def format_public_key(public_key: bytes) -> str:
    """As it stands in configurations: base64 without padding."""
    return b64encode(public_key).decode().rstrip("=")


def _message(purpose: str, content: Content) -> bytes:
    return f"{_CONTEXT} {purpose}\0".encode() + canonical(content)
