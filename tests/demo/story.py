"""Alice shares files with Bob, and Bob asks for them: the homeserver alone, and through the scanner."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.demo.outcome import Line, Outcome
from tests.demo.people import Person, plaintext
from tests.demo.shared_files import SharedFile
from tests.e2e.product import Product
from tests.e2e.scanner_api import Reply, ScannerApi, seal_with_vodozemac
from tests.e2e.synapse import Synapse, User

_NOT_CLEAN = (403, "MCS_MEDIA_NOT_CLEAN")
_STRANGERS = (404, "M_NOT_FOUND")  # the scanner asks the homeserver without a token, too


@dataclass(frozen=True)
class Answer:
    """The scanner's: whether it calls the media clean (None: it does not say), and what it hands over."""

    clean: bool | None
    outcome: Outcome
    seconds: float


class Story:
    """Alice and Bob in an encrypted room, a stranger outside, and the scanner before their homeserver."""

    def __init__(self, alice: Person, bob: Person, stranger: Person, room: str, scanner: ScannerApi) -> None:
        self._alice = alice
        self._bob = bob
        self._stranger = stranger
        self._room = room
        self._scanner = scanner
        self._contents: dict[str, dict[str, Any]] = {}

    @property
    def reader(self) -> User:
        """Bob's account."""
        return self._bob.user

    def mxc(self, file: SharedFile) -> str:
        """Where a plain file lies that was shared."""
        return str(self._contents[file.title]["url"])

    async def share(self, file: SharedFile) -> Line:
        """Alice sends a file, Bob receives its event and asks for the media."""
        event = await self._alice.share(self._room, file)
        content = self._contents[file.title] = await self._bob.receive(self._room, event)
        homeserver = await self._bob.download(content)
        answer = await self._ask(content, self._bob.user)
        arrived = homeserver.plaintext == file.content
        return Line(
            file.title,
            file.detail,
            file.arrival if arrived else _told(homeserver, file),
            _told(answer.outcome, file),
            answer.outcome.info,
            harmful=file.withheld,
            seconds=answer.seconds,
            as_expected=arrived and _is_right(answer, file),
        )

    async def steal(self, file: SharedFile) -> Line:
        """Somebody without a token asks for what Bob just got; he even has the key."""
        content = self._contents[file.title]
        homeserver = await self._stranger.download(content)
        answer = await self._ask(content, None)
        refused = (answer.outcome.status, answer.outcome.reason) == _STRANGERS
        return Line(
            "the same picture",
            "a stranger, no token",
            _told(homeserver, file),
            _told(answer.outcome, file),
            answer.outcome.info,
            harmful=False,
            seconds=answer.seconds,
            as_expected=homeserver.status == 401 and answer.clean is None and refused,
        )

    async def _ask(self, content: Mapping[str, Any], user: User | None) -> Answer:
        """What a client does that knows a scanner: first the verdict, then the media."""
        began = time.monotonic()
        if "file" in content:
            public_key = await self._scanner.public_key()
            sealed = {
                "encrypted_body": seal_with_vodozemac(public_key, json.dumps({"file": content["file"]}))
            }
            scan = await self._scanner.scan_encrypted(sealed, user)
            download = await self._scanner.download_encrypted(sealed, user)
        else:
            scan = await self._scanner.scan(content["url"], user)
            download = await self._scanner.download(content["url"], user)
        seconds = time.monotonic() - began
        return Answer(
            scan.content["clean"] if scan.status == 200 else None, _outcome(content, download), seconds
        )


@asynccontextmanager
async def opening(synapse: Synapse, product: Product, directory: Path) -> AsyncIterator[Story]:
    """A story until its first line; the people's keys lie in `directory`."""
    async with AsyncExitStack() as stack:
        alice, bob, stranger = [
            await stack.enter_async_context(Person(synapse.url, name, directory / name))
            for name in ("alice", "bob", "stranger")
        ]
        for name, person in (("alice", alice), ("bob", bob)):
            password = secrets.token_urlsafe(12)
            await synapse.register(name, password)
            await person.login(password)
        session = await stack.enter_async_context(aiohttp.ClientSession(product.url))
        yield Story(alice, bob, stranger, await alice.open_room(bob), ScannerApi(session))


def _outcome(content: Mapping[str, Any], reply: Reply) -> Outcome:
    if reply.status == 200:
        return Outcome(200, plaintext(content, reply.body))
    return Outcome(reply.status, reason=reply.content["reason"], info=reply.content["info"])


def _is_right(answer: Answer, file: SharedFile) -> bool:
    if file.withheld:
        return answer.clean is False and (answer.outcome.status, answer.outcome.reason) == _NOT_CLEAN
    return answer.clean is True and answer.outcome.plaintext == file.content


def _told(outcome: Outcome, file: SharedFile) -> str:
    if outcome.plaintext is None:
        return f"{outcome.status} {outcome.reason}"
    return "arrives, byte for byte" if outcome.plaintext == file.content else "arrives, but changed"
