"""The inspection route, on real sockets: who may ask, hash first, bytes if need be."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import pytest

from scanner.admission import Share
from scanner.errors import MalformedRequest
from scanner.events import Detected, Scanned, Source
from scanner.verdict import Outcome, Policy
from scanner.web.inspect import Inspect, Purpose, Question
from scanner.web.routes import operations_routes
from scanner.web.server import Site
from tests.fake_homeserver import until
from tests.fakes import StubEngine
from tests.raw_client import RawClient, Reply, connected, request
from tests.real_clamd import EICAR
from tests.web.service import FORBIDDEN, FOUND, LOCKED, MIB, Service, networks, operations
from tests.web.test_uploads import storing, upload

PATH = "/_media_scanner/v1/inspect"
MEDIA_SIZE = 4 * MIB
LETTER = b"a letter to Bob"
UNKNOWN = {"known": False}


@dataclass
class Listener:
    """The operations listener of a service."""

    service: Service
    share: Share
    token: str
    port: int

    async def ask(self, content: bytes, **changes: Any) -> Reply:
        """By hash alone."""
        return await self._ask(question(content, **changes), None)

    async def send(self, content: bytes, **changes: Any) -> Reply:
        """With the bytes."""
        return await self._ask(question(content, **changes), content)

    async def _ask(self, target: str, body: bytes | None) -> Reply:
        async with connected(self.port) as client:
            return await client.ask(request(target, self.token, method="POST", body=body))

    @property
    def idle(self) -> bool:
        return self.service.idle and not self.share.reserved


def question(content: bytes, **changes: Any) -> str:
    """The target of a request; a parameter that is None is left out."""
    digest = hashlib.sha256(content).hexdigest()
    asked = {"sha256": digest, "size": len(content), "purpose": "upload", **changes}
    return f"{PATH}?{urlencode({name: value for name, value in asked.items() if value is not None})}"


def policy(service: Service, **changes: bool) -> None:
    """Put another policy in force."""
    service.inspector.terms = replace(service.inspector.terms, policy=Policy(**changes))


@pytest.fixture
async def listener(service: Service) -> AsyncIterator[Listener]:
    secret, share = os.urandom(32), Share(MEDIA_SIZE, 0.3)
    inspect = Inspect(inspector=service.inspector, share=share, media_size=MEDIA_SIZE, secret=secret)
    site = Site(
        operations_routes(operations({}), inspect),
        publish=service.events.append,
        request_timeout=5,
        reader_timeout=5,
        trusted_proxies=networks(),
    )
    port = await site.listen("127.0.0.1", 0)
    listener = Listener(service, share, base64.b64encode(secret).decode(), port)
    yield listener
    await until(lambda: listener.idle)
    await site.drain(0)


# -- who may ask ---------------------------------------------------------------------------------


async def test_without_the_secret_nothing_is_told(listener: Listener) -> None:
    await listener.send(EICAR)
    async with connected(listener.port) as client:
        assert (await client.ask(request(question(EICAR), method="POST", body=b""))).matrix_error == (
            401,
            "M_MISSING_TOKEN",
        )


@pytest.mark.parametrize("token", ["wrong", base64.b64encode(bytes(32)).decode(), "", "é"])
async def test_another_secret_is_refused(listener: Listener, token: str) -> None:
    listener.token = token
    assert (await listener.ask(EICAR)).matrix_error == (401, "M_UNKNOWN_TOKEN")
    assert (await listener.send(EICAR)).matrix_error == (401, "M_UNKNOWN_TOKEN")
    assert listener.service.engine.scans == 0


async def test_only_bearers_are_let_in(listener: Listener) -> None:
    async with connected(listener.port) as client:
        asked = request(question(EICAR), method="POST", body=b"", Authorization=f"Basic {listener.token}")
        assert (await client.ask(asked)).matrix_error == (401, "M_UNKNOWN_TOKEN")


async def test_the_secret_counts_with_its_padding_and_without(listener: Listener) -> None:
    listener.token = listener.token.rstrip("=")
    assert (await listener.ask(LETTER)).content == UNKNOWN


async def test_the_public_listener_has_no_such_route(service: Service) -> None:
    reply = await service.ask(request(question(LETTER), "x", method="POST", body=b""))
    assert (reply.status, reply.unrecognized) == (404, True)


async def test_without_a_secret_there_is_no_such_route() -> None:
    assert PATH not in {route.template for route in operations_routes(operations({}))}


# -- what is answered ----------------------------------------------------------------------------


async def test_bytes_are_wanted_once_and_then_their_hash_is_enough(listener: Listener) -> None:
    assert (await listener.ask(LETTER)).content == UNKNOWN
    clean = {
        "known": True,
        "deliver": True,
        "outcome": "clean",
        "reason": None,
        "info": "File is clean",
        "signatures": [],
    }
    assert (await listener.send(LETTER)).content == clean
    assert (await listener.ask(LETTER)).content == clean
    assert listener.service.engine.scans == 1
    (scanned,) = listener.service.of(Scanned)
    assert scanned.source is Source.INSPECT


@pytest.mark.parametrize(
    ("content", "outcome", "reason"),
    [
        (EICAR, "infected", "malware"),
        (FORBIDDEN, "forbidden", "forbidden_type"),
        (LOCKED, "unscannable", "encrypted_archive"),
    ],
)
async def test_what_the_policy_withholds_is_told_with_the_reason(
    listener: Listener, content: bytes, outcome: str, reason: str
) -> None:
    for reply in (await listener.send(content), await listener.ask(content)):
        told = reply.content
        assert (told["deliver"], told["outcome"], told["reason"]) == (False, outcome, reason)


async def test_what_is_infected_has_names(listener: Listener) -> None:
    told = (await listener.send(EICAR)).content
    assert told["signatures"] == ["Eicar-Test"]
    assert "found" not in told


async def test_who_has_a_file_of_his_own_inspected_is_told_where_in_it_malware_is(listener: Listener) -> None:
    told = (await listener.send(EICAR, purpose="file")).content
    assert told["found"] == [{"signature": FOUND.signature, "path": FOUND.path}]
    known = (await listener.ask(EICAR, purpose="file")).content
    assert known["signatures"] == ["Eicar-Test"]
    assert "found" not in known, "that is not remembered"


async def test_a_detection_is_told_with_the_media_that_is_meant(listener: Listener) -> None:
    await listener.send(EICAR, mxc="mxc://example.org/abc")
    await listener.ask(EICAR)
    first, second = listener.service.of(Detected)
    assert str(first.occasion.ref) == "mxc://example.org/abc"
    assert (first.occasion.source, second.occasion.ref, second.size) == (Source.INSPECT, None, len(EICAR))


async def test_an_upload_that_was_judged_on_our_own_route_is_known(listener: Listener) -> None:
    """The homeserver asks in the middle of it, with the same bytes."""
    listener.service.homeserver.script = storing()
    assert (await upload(listener.service, LETTER)).status == 200
    assert (await listener.ask(LETTER)).content["deliver"] is True


async def test_no_bytes_at_all_are_judged_at_once(listener: Listener) -> None:
    assert (await listener.ask(b"")).content["outcome"] == "clean"


@pytest.mark.parametrize(("purpose", "delivered"), [("upload", True), ("download", False)])
async def test_what_is_opaque_is_decided_by_where_it_goes(
    listener: Listener, purpose: str, delivered: bool
) -> None:
    terms = listener.service.inspector.terms
    pipeline = terms.pipeline.replacing(StubEngine("marks", Outcome.OPAQUE))
    listener.service.inspector.terms = replace(
        terms, pipeline=pipeline, policy=Policy(deliver_opaque_uploads=True)
    )
    for reply in (await listener.send(LETTER, purpose=purpose), await listener.ask(LETTER, purpose=purpose)):
        assert (reply.content["deliver"], reply.content["outcome"]) == (delivered, "opaque")


async def test_what_was_judged_as_a_file_says_nothing_of_a_ciphertext(listener: Listener) -> None:
    await listener.send(LETTER, purpose="file")
    assert (await listener.ask(LETTER, purpose="upload")).content == UNKNOWN
    assert (await listener.ask(LETTER, purpose="file")).content["known"]


# -- limits --------------------------------------------------------------------------------------


async def test_what_is_too_large_is_unscannable_and_not_read(listener: Listener) -> None:
    size = MEDIA_SIZE + 1
    async with connected(listener.port) as client:
        target = question(LETTER, size=size)
        await client.send(request(target, listener.token, method="POST", Content_Length=str(size)))
        told = (await client.reply()).content
    assert (told["deliver"], told["outcome"], told["reason"]) == (False, "unscannable", "limit")
    assert (await listener.ask(LETTER, size=size)).content == told


async def test_the_policy_may_deliver_what_is_too_large(listener: Listener) -> None:
    policy(listener.service, deliver_unscannable=True)
    assert (await listener.ask(LETTER, size=MEDIA_SIZE + 1)).content["deliver"] is True


async def test_what_has_the_largest_size_is_judged(listener: Listener) -> None:
    content = EICAR.rjust(MEDIA_SIZE, b".")
    assert (await listener.send(content)).content["outcome"] == "infected"


async def test_while_the_share_is_full_others_wait_and_are_then_asked_to_come_again(
    listener: Listener,
) -> None:
    with_room = await listener.share.reserve(MEDIA_SIZE, "another")
    reply = await listener.send(LETTER)
    assert reply.matrix_error == (503, "M_UNKNOWN")
    assert reply.header("retry-after") == "5"
    with_room.close()
    assert (await listener.send(LETTER)).content["known"]


async def test_what_is_known_needs_no_room(listener: Listener) -> None:
    await listener.send(LETTER)
    room = await listener.share.reserve(MEDIA_SIZE, "another")
    assert (await listener.ask(LETTER)).content["known"]
    room.close()


# -- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"size": len(LETTER) + 1}])
async def test_bytes_that_are_not_those_that_were_announced_are_refused(
    listener: Listener, changes: dict[str, Any]
) -> None:
    assert (await listener.send(LETTER, **changes)).matrix_error == (400, "M_UNKNOWN")
    assert listener.service.engine.scans == 0


async def test_more_bytes_than_announced_are_refused(listener: Listener) -> None:
    assert (await listener.send(LETTER, size=3)).matrix_error == (413, "M_TOO_LARGE")


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": None},
        {"sha256": "0" * 63},
        {"sha256": "g" * 64},
        {"size": None},
        {"size": "-1"},
        {"size": "1" * 16},
        {"size": "٣"},
        {"purpose": None},
        {"purpose": "theft"},
        {"mxc": "mxc://../x"},
    ],
)
async def test_a_malformed_question_is_refused(listener: Listener, changes: dict[str, Any]) -> None:
    assert (await listener.ask(LETTER, **changes)).matrix_error == (400, "M_UNKNOWN")


async def test_an_engine_that_fails_is_to_be_asked_again(listener: Listener) -> None:
    listener.service.engine.problem = RuntimeError("broken")
    reply = await listener.send(LETTER)
    assert reply.matrix_error == (503, "M_UNKNOWN")
    assert reply.header("retry-after") == "5"
    listener.service.engine.problem = None
    assert (await listener.ask(LETTER)).content == UNKNOWN


async def test_an_observing_policy_delivers_what_failed(listener: Listener) -> None:
    policy(listener.service, observe=True)
    listener.service.engine.problem = RuntimeError("broken")
    told = (await listener.send(LETTER)).content
    assert (told["deliver"], told["outcome"]) == (True, "failed")


async def test_who_leaves_gives_everything_back(listener: Listener) -> None:
    listener.service.engine.gate.clear()
    async with connected(listener.port) as client:
        await client.send(request(question(LETTER), listener.token, method="POST", body=LETTER))
        await until(lambda: bool(listener.share.reserved))
        client.vanish()
    await until(lambda: listener.idle)


async def test_half_a_body_holds_the_share_no_longer_than_its_sender(listener: Listener) -> None:
    async with connected(listener.port) as client:
        await _half(client, listener)
        await until(lambda: bool(listener.share.reserved))
        client.vanish()
    await until(lambda: listener.idle)


async def _half(client: RawClient, listener: Listener) -> None:
    sent = request(question(LETTER), listener.token, method="POST", body=LETTER)
    await client.send(sent[: -len(LETTER) // 2])
    await asyncio.sleep(0)


@pytest.mark.parametrize("purpose", Purpose)
def test_a_question_says_what_it_is_about(purpose: Purpose) -> None:
    asked = Question.parse(f"sha256={'AB' * 32}&size=20&purpose={purpose}&mxc=mxc%3A%2F%2Fa.org%2Fb")
    assert (asked.sha256, asked.size, asked.purpose) == (b"\xab" * 32, 20, purpose)
    assert str(asked.ref) == "mxc://a.org/b"
    assert asked.keyless is (purpose is not Purpose.FILE)


def test_a_question_without_anything_is_none() -> None:
    with pytest.raises(MalformedRequest):
        Question.parse("")
