"""Small implementations of our own Protocols, and makers of what flows through them."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from base64 import b64encode, urlsafe_b64encode
from typing import TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from scanner.crypto.attachment import AttachmentKey
from scanner.errors import EngineError
from scanner.events import Event
from scanner.media import Body, BodyWriter, Room, Sample
from scanner.verdict import Outcome, Report

E = TypeVar("E", bound=Event)


class RecordingSink:
    """An EventSink that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, the oldest first."""
        return [event for event in self.events if isinstance(event, kind)]


class StubEngine:
    """An Engine that says what it is told, of version `version`, and keeps what it saw.

    While `gate` is cleared, scans wait. `failure` is raised instead of reporting.
    """

    def __init__(self, name: str = "stub", outcome: Outcome = Outcome.CLEAN) -> None:
        self.name = name
        self.outcome = outcome
        self.version: str | None = "1"
        self.failure: BaseException | None = None
        self.seen: list[bytes] = []
        self.running = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def versions(self) -> frozenset[str]:
        return frozenset() if self.version is None else frozenset({self.version})

    async def scan(self, sample: Sample) -> Report:
        version = self.version
        self.running += 1
        try:
            await self.gate.wait()
            self.seen.append(sample.head(sample.size))
        finally:
            self.running -= 1
        if self.failure is not None:
            raise self.failure
        return Report(self.name, self.outcome, version)


def silent_engine() -> StubEngine:
    """One that gives no answer in time."""
    engine = StubEngine("silent")
    engine.failure = EngineError("no answer", "timeout")
    return engine


def a_body(data: bytes, room: Room | None = None) -> Body:
    """A complete body of these bytes."""
    writer = BodyWriter(room)
    writer.write(data)
    return writer.seal()


def encrypted(plaintext: bytes) -> tuple[bytes, AttachmentKey]:
    """Ciphertext and key, as a client makes them."""
    ciphertext, file = encrypted_file(plaintext)
    return ciphertext, AttachmentKey.parse(file)


def encrypted_file(
    plaintext: bytes, key: bytes | None = None, iv: bytes | None = None
) -> tuple[bytes, dict[str, object]]:
    """Ciphertext and the `EncryptedFile` that a client would send with it."""
    key = secrets.token_bytes(32) if key is None else key
    iv = secrets.token_bytes(8) + bytes(8) if iv is None else iv
    ciphertext = Cipher(AES(key), CTR(iv)).encryptor().update(plaintext)
    return ciphertext, encrypted_file_of(ciphertext, key, iv)


def encrypted_file_of(ciphertext: bytes, key: bytes, iv: bytes) -> dict[str, object]:
    """The `EncryptedFile` of any ciphertext under any key."""
    return {
        "v": "v2",
        "key": {
            "kty": "oct",
            "alg": "A256CTR",
            "ext": True,
            "key_ops": ["encrypt", "decrypt"],
            "k": urlsafe_b64encode(key).decode().rstrip("="),
        },
        "iv": b64encode(iv).decode().rstrip("="),
        "hashes": {"sha256": b64encode(hashlib.sha256(ciphertext).digest()).decode().rstrip("=")},
    }
