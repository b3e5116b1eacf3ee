"""The web part of the product on real sockets: everything but clamd, which a small engine stands in for."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import vodozemac
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from scanner.admission import Budget, Slots
from scanner.crypto.pk import ServerKeys
from scanner.events import Event
from scanner.media import Sample
from scanner.pipeline import Pipeline
from scanner.upstream.connection import Connection, Timers
from scanner.upstream.fetch import Upstream
from scanner.upstream.relay import Relay
from scanner.upstream.transport import Transport
from scanner.verdict import (
    ContentId,
    Detection,
    IndexSecret,
    Outcome,
    Override,
    Policy,
    Reason,
    Report,
)
from scanner.verdict_cache.memory import Memory
from scanner.web.content_scanner import ContentScanner
from scanner.web.federation import Federation
from scanner.web.homeserver import HomeserverMedia
from scanner.web.inspection import Inspector, Terms
from scanner.web.operations import Operations
from scanner.web.routes import API, public_routes
from scanner.web.scan_file import ScanFile
from scanner.web.server import Networks, Site
from scanner.web.texts import Language
from scanner.web.uploads import Uploads
from tests.fake_homeserver import FakeHomeserver, until
from tests.raw_client import Reply, connected, request
from tests.real_clamd import EICAR

MIB = 1024 * 1024
WARNINGS = {"reload": "a clamd kept its old signatures; mend the new ones"}
ALICE, BOB = "alice", "bob"
FORBIDDEN, LOCKED = b"<a forbidden type>", b"<a locked archive>"
CIPHERTEXT = b"<perhaps a ciphertext>"
# As of what lies in an archive.
FOUND = Detection("Eicar-Test", "inner.tar/evil.exe")
_FINDINGS = {
    EICAR: (Outcome.INFECTED, Reason.MALWARE),
    FORBIDDEN: (Outcome.FORBIDDEN, Reason.FORBIDDEN_TYPE),
    LOCKED: (Outcome.UNSCANNABLE, Reason.ENCRYPTED_ARCHIVE),
}


class MarkEngine:
    """Finds EICAR and marks of our own.

    While `gate` is cleared, scans wait; `problem` fails them; a `rude` engine moves its descriptor's offset.
    """

    name = "marks"

    def __init__(self) -> None:
        self.scans = 0
        self.under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.problem: Exception | None = None
        self.rude = False

    def versions(self) -> frozenset[str]:
        return frozenset({"1"})

    async def scan(self, sample: Sample) -> Report:
        self.scans += 1
        self.under_way += 1
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.problem is not None:
            raise self.problem
        with sample.as_file() as fd:
            if self.rude:
                os.lseek(fd, 0, os.SEEK_END)
            content = sample.head(sample.size)
            for mark, (outcome, reason) in _FINDINGS.items():
                if mark in content:
                    return Report(self.name, outcome, "1", reason, (FOUND,))
            if sample.keyless and CIPHERTEXT in content:
                return Report(self.name, Outcome.OPAQUE, "1", Reason.OPAQUE)
        return Report(self.name, Outcome.CLEAN, "1")


@dataclass(frozen=True)
class Attachment:
    """An encrypted attachment: what is uploaded, and the `EncryptedFile` that is sent to the room."""

    ciphertext: bytes
    file: dict[str, Any]

    @classmethod
    def of(cls, plaintext: bytes, mxc: str = "mxc://example.org/abc") -> Attachment:
        key, iv = os.urandom(32), os.urandom(8) + bytes(8)
        ciphertext = Cipher(AES(key), CTR(iv)).encryptor().update(plaintext)
        jwk = {"kty": "oct", "alg": "A256CTR", "ext": True, "key_ops": ["encrypt", "decrypt"]}
        return cls(
            ciphertext,
            {
                "v": "v2",
                "url": mxc,
                "key": {**jwk, "k": base64.urlsafe_b64encode(key).decode().rstrip("=")},
                "iv": unpadded(iv),
                "hashes": {"sha256": unpadded(hashlib.sha256(ciphertext).digest())},
            },
        )

    @property
    def json(self) -> bytes:
        return json.dumps({"file": self.file}).encode()

    def without(self, *path: str) -> bytes:
        """The body of a request in which one member of `file` is missing."""
        content = json.loads(self.json)
        parent = content["file"]
        for name in path[:-1]:
            parent = parent[name]
        del parent[path[-1]]
        return json.dumps(content).encode()

    def replacing(self, value: object, *path: str) -> bytes:
        """The body of a request in which one member of `file` is another."""
        content = json.loads(self.json)
        parent = content["file"]
        for name in path[:-1]:
            parent = parent[name]
        parent[path[-1]] = value
        return json.dumps(content).encode()


def unpadded(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def seal(content: bytes, public_key: str) -> bytes:
    """The body of a request whose content vodozemac has sealed."""
    recipient = vodozemac.Curve25519PublicKey.from_base64(public_key)
    message = vodozemac.PkEncryption.from_key(recipient).encrypt(content)
    parts = {"ephemeral": message.ephemeral_key, "ciphertext": message.ciphertext, "mac": message.mac}
    return json.dumps({"encrypted_body": {name: unpadded(part) for name, part in parts.items()}}).encode()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a test may want to be different."""

    media_size: int = 4 * MIB
    memory: int = 32 * MIB
    queue_wait: float = 0.3
    slots_wait: float = 0.3
    timers: Timers = field(default_factory=lambda: Timers(5, 5, 5))
    request_timeout: float = 5.0
    reader_timeout: float = 5.0
    redirect_hosts: frozenset[str] = frozenset()
    trusted_proxies: tuple[str, ...] = ()
    transport: Transport = field(default_factory=Transport)
    policy: Policy = field(default_factory=Policy)
    retired_secrets: tuple[bytes, ...] = ()
    language: Language = "en"


class StubOverrides:
    """What an analyst said, by plaintext."""

    def __init__(self) -> None:
        self._said: dict[ContentId, Override] = {}

    def of(self, content: ContentId) -> Override | None:
        return self._said.get(content)

    def say(self, plaintext: bytes, *, allow: bool) -> None:
        content = IndexSecret(bytes(32)).content(hashlib.sha256(plaintext).digest())
        self._said[content] = Override(allow, "because", "alice", 1e12)


@dataclass
class Service:
    """A running listener and what is behind it."""

    homeserver: FakeHomeserver
    engine: MarkEngine
    budget: Budget
    slots: Slots
    keys: ServerKeys
    inspector: Inspector
    site: Site
    events: list[Event]
    readiness: dict[str, str]
    overrides: StubOverrides
    port: int = 0

    @property
    def idle(self) -> bool:
        """Whether all memory and every slot is given back."""
        work = self.site.in_flight, self.budget.reserved, self.slots.in_flight, self.engine.under_way
        return not any(work)

    async def ask(self, data: bytes) -> Reply:
        """One request on a connection of its own."""
        async with connected(self.port) as client:
            return await client.ask(data)

    async def get(
        self, path: str, token: str | None = ALICE, *, method: str = "GET", **headers: str
    ) -> Reply:
        """`path` is what stands behind the prefix of the scanner API."""
        return await self.ask(request(API + path, token, method=method, body=None, **headers))

    async def post(self, path: str, body: bytes, token: str | None = ALICE, **headers: str) -> Reply:
        """As `get`."""
        return await self.ask(request(API + path, token, method="POST", body=body, **headers))

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


Serve = Callable[..., Awaitable[Service]]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """A service in front of a fake homeserver, which at the end must have given everything back."""
    events: list[Event] = []
    publish = events.append
    budget = Budget(settings.memory, settings.queue_wait, media_size=settings.media_size)
    slots = Slots(2, settings.slots_wait)
    engine = MarkEngine()
    readiness: dict[str, str] = {}
    async with FakeHomeserver() as homeserver:
        connection = Connection(
            homeserver.url,
            transport=settings.transport,
            redirect_hosts=settings.redirect_hosts,
            publish=publish,
            timers=settings.timers,
        )
        async with connection:
            pipeline = Pipeline(
                engines=[engine],
                cache=Memory(),
                slots=slots,
                index=IndexSecret(bytes(32)),
                identify=_identify,
                publish=publish,
                clean_ttl=60,
            )
            keys = ServerKeys(os.urandom(32), settings.retired_secrets)
            terms = Terms(settings.policy, keys, pipeline)
            overrides = StubOverrides()
            inspector = Inspector(terms, publish, IndexSecret(bytes(32)), overrides=overrides)
            size = settings.media_size
            upstream = Upstream(connection, budget=budget, media_size=size, publish=publish)
            relay = Relay(connection)
            site = Site(
                public_routes(
                    ContentScanner(upstream=upstream, inspector=inspector),
                    ScanFile(relay=relay, inspector=inspector, share=budget.uploads, media_size=size),
                    Uploads(relay=relay, inspector=inspector, share=budget.uploads, media_size=size),
                    HomeserverMedia(upstream=upstream, relay=relay, inspector=inspector, media_size=size),
                    Federation(upstream=upstream, inspector=inspector),
                    operations(readiness),
                ),
                publish=publish,
                request_timeout=settings.request_timeout,
                reader_timeout=settings.reader_timeout,
                trusted_proxies=networks(*settings.trusted_proxies),
                language=settings.language,
                forwarded=settings.transport.forwarded,
            )
            service = Service(
                homeserver, engine, budget, slots, keys, inspector, site, events, readiness, overrides
            )
            service.port = await site.listen("127.0.0.1", 0)
            try:
                yield service
            finally:
                await site.drain(0)
    await until(lambda: (budget.reserved, slots.in_flight) == (0, 0))


def operations(readiness: Mapping[str, str]) -> Operations:
    async def reasons() -> dict[str, str]:
        return dict(readiness)

    def render(accept: str) -> tuple[bytes, str]:
        return f"accept {accept}\n".encode(), "text/plain; version=0.0.4"

    return Operations(reasons, render, lambda: "observe", lambda: WARNINGS)


def networks(*texts: str) -> Networks:
    return [ip_network(text) for text in texts]


async def _identify(sample: Sample) -> str:
    return "application/octet-stream"
