from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from scanner.admission import Budget
from scanner.crypto.pk import ServerKeys
from scanner.errors import EngineError
from scanner.events import DecryptFailed, Detected, Observed, Rejected, Scanned, Source
from scanner.upstream.connection import Timers
from scanner.upstream.transport import Transport
from scanner.verdict import Outcome, Policy
from scanner.web.routes import API
from tests.fake_homeserver import (
    CHUNKED_HEAD,
    FOREVER,
    LAST_CHUNK,
    PNG,
    FakeHomeserver,
    Heard,
    Script,
    Step,
    Then,
    by_endpoint,
    by_method,
    by_token,
    chunk,
    head,
    in_turn,
    media_head,
    redirecting,
    refusing,
    saying,
    serving,
    until,
)
from tests.raw_client import Reply, connected, request
from tests.real_clamd import EICAR
from tests.web.service import ALICE, BOB, FORBIDDEN, LOCKED, MIB, Attachment, Serve, Service, seal, unpadded

MEDIA = "/example.org/abc"
PLAIN = ["/scan", "/download", "/thumbnail"]
ENCRYPTED = ["/scan_encrypted", "/download_encrypted"]
NOT_FOUND = refusing("404 Not Found", "M_NOT_FOUND")
UNKNOWN_TOKEN = refusing("401 Unauthorized", "M_UNKNOWN_TOKEN")
RETRY = range(2, 31)


def retry_after(reply: Reply) -> int:
    return int(reply.header("retry-after") or 0)


@pytest.fixture
async def attachment(service: Service) -> Attachment:
    """A harmless one, which the homeserver has."""
    attachment = Attachment.of(b"hello")
    service.homeserver.script = serving(attachment.ciphertext)
    return attachment


# -- verdicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["/download", "/thumbnail"])
async def test_clean_media_are_handed_over(service: Service, route: str) -> None:
    service.homeserver.script = serving(PNG, "image/png", Content_Disposition='inline; filename="a.png"')
    reply = await service.get(f"{route}{MEDIA}")
    assert (reply.status, reply.body) == (200, PNG)
    common = "access-control-", "x-content-type-options", "date"
    assert {n: v for n, v in reply.headers if not n.startswith(common)} == {
        "content-type": "image/png",
        "content-length": str(len(PNG)),
        "content-disposition": "inline; filename*=UTF-8''a.png",
        "content-security-policy": "sandbox; default-src 'none'; script-src 'none';"
        " plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';",
        "cross-origin-resource-policy": "cross-origin",
        "referrer-policy": "no-referrer",
        "cache-control": "private, max-age=3600",
    }


async def test_a_clean_attachment_is_handed_over_as_it_is(service: Service, attachment: Attachment) -> None:
    reply = await service.post("/download_encrypted", attachment.json)
    assert (reply.status, reply.body) == (200, attachment.ciphertext)


async def test_headers_of_the_homeserver_are_not_relayed(service: Service) -> None:
    service.homeserver.script = serving(
        PNG,
        Set_Cookie="a=b",
        Clear_Site_Data='"*"',
        X_Accel_Redirect="/x",
        Refresh="0",
        Server="Synapse",
        ETag="1",
        Access_Control_Allow_Origin="https://evil",
        Content_Security_Policy="none",
        Cache_Control="public",
    )
    names = {name for name, _ in (await service.get(f"/download{MEDIA}")).headers}
    assert not names & {"set-cookie", "clear-site-data", "x-accel-redirect", "refresh", "etag", "server"}


async def test_a_range_is_ignored(service: Service) -> None:
    reply = await service.get(f"/download{MEDIA}", Range="bytes=0-3", If_None_Match="1")
    assert (reply.status, reply.body) == (200, PNG)
    assert service.homeserver.heard[0].header("range") is None


async def test_empty_media_are_media(service: Service) -> None:
    service.homeserver.script = serving(b"")
    reply = await service.get(f"/download{MEDIA}")
    assert (reply.status, reply.body, reply.length) == (200, b"", 0)


FOUND = [
    (PNG, 200, None, {"clean": True, "info": "File is clean"}),
    (EICAR, 403, "MCS_MEDIA_NOT_CLEAN", {"clean": False, "info": "Malware was found in this file"}),
    (LOCKED, 403, "MCS_MEDIA_NOT_CLEAN", {"clean": False}),
    (FORBIDDEN, 403, "MCS_MIME_TYPE_FORBIDDEN", None),
]


@pytest.mark.parametrize(("content", "status", "reason", "scanned"), FOUND)
async def test_plain_media_are_answered_as_the_table_says(
    service: Service, content: bytes, status: int, reason: str | None, scanned: dict[str, Any] | None
) -> None:
    service.homeserver.script = serving(content)
    for route in ("/download", "/thumbnail"):
        reply = await service.get(f"{route}{MEDIA}")
        assert reply.status == status
        assert reply.body == content if reason is None else reply.refusal == (status, reason)
    _check_scan(await service.get(f"/scan{MEDIA}"), scanned)


@pytest.mark.parametrize(("content", "status", "reason", "scanned"), FOUND)
async def test_attachments_are_answered_as_the_table_says(
    service: Service, content: bytes, status: int, reason: str | None, scanned: dict[str, Any] | None
) -> None:
    """Asked twice: what is remembered is answered as what was scanned."""
    attachment = Attachment.of(content)
    service.homeserver.script = serving(attachment.ciphertext)
    for _ in range(2):
        reply = await service.post("/download_encrypted", attachment.json)
        assert reply.status == status
        if reason is None:
            assert reply.body == attachment.ciphertext
        else:
            assert reply.refusal == (status, reason)
        _check_scan(await service.post("/scan_encrypted", attachment.json), scanned)
    assert service.engine.scans == 1


def _check_scan(reply: Reply, expected: dict[str, Any] | None) -> None:
    if expected is None:
        assert reply.refusal == (403, "MCS_MIME_TYPE_FORBIDDEN")
    else:
        assert reply.status == 200
        assert reply.content.keys() == {"clean", "info"}
        assert reply.content["info"]
        assert reply.content.items() >= expected.items()


async def test_what_the_policy_delivers_is_handed_over(serve: Serve) -> None:
    service = await serve(policy=Policy(deliver_encrypted_archives=True))
    service.homeserver.script = serving(LOCKED)
    assert (await service.get(f"/download{MEDIA}")).body == LOCKED
    assert (await service.get(f"/scan{MEDIA}")).content["clean"] is True


@pytest.mark.parametrize(
    "problem", [EngineError("gone", "eof"), EngineError("slow", "timeout"), KeyError("x")]
)
async def test_an_engine_that_fails_is_neither_clean_nor_infected(
    service: Service, problem: Exception
) -> None:
    service.engine.problem = problem
    for route in PLAIN:
        reply = await service.get(f"{route}{MEDIA}")
        assert reply.refusal == (503, "M_UNKNOWN")
        assert retry_after(reply) in RETRY
    service.engine.problem = None
    assert (await service.get(f"/download{MEDIA}")).body == PNG


async def test_detections_are_events(service: Service) -> None:
    attachment = Attachment.of(EICAR)
    service.homeserver.script = serving(attachment.ciphertext)
    for _ in range(2):
        await service.post("/scan_encrypted", attachment.json)
    first, second = service.of(Detected)
    assert first.occasion.source is Source.SCAN
    assert str(first.occasion.ref) == "mxc://example.org/abc"
    assert first.size == len(attachment.ciphertext)
    assert second.size is None
    assert [event.ciphertext_sha256 for event in (first, second)] == [
        base64.b64decode(attachment.file["hashes"]["sha256"] + "=").hex()
    ] * 2
    assert len(service.of(Scanned)) == 1
    for secret in (attachment.file["key"]["k"], attachment.file["iv"]):
        assert secret not in repr(service.events)


# -- observing -----------------------------------------------------------------------------------

WITHHELD = [
    (EICAR, Outcome.INFECTED, "malware"),
    (LOCKED, Outcome.UNSCANNABLE, "encrypted_archive"),
    (FORBIDDEN, Outcome.FORBIDDEN, "forbidden_type"),
]


@pytest.fixture
async def observing(serve: Serve) -> Service:
    return await serve(policy=Policy(observe=True), slots_wait=0.1)


@pytest.mark.parametrize(("content", "outcome", "reason"), WITHHELD)
async def test_observing_hands_over_plain_media_and_tells_what_it_would_have_withheld(
    observing: Service, content: bytes, outcome: Outcome, reason: str
) -> None:
    observing.homeserver.script = serving(content)
    for route in ("/download", "/thumbnail"):
        assert (await observing.get(f"{route}{MEDIA}")).body == content
    told = [(event.occasion.source, event.outcome, event.reason) for event in observing.of(Observed)]
    assert told == [(source, outcome, reason) for source in (Source.DOWNLOAD, Source.THUMBNAIL)]
    assert all(event.delivered for event in observing.of(Observed))


@pytest.mark.parametrize(("content", "outcome", "reason"), WITHHELD)
async def test_observing_hands_over_attachments_known_ones_too(
    observing: Service, content: bytes, outcome: Outcome, reason: str
) -> None:
    attachment = Attachment.of(content)
    observing.homeserver.script = serving(attachment.ciphertext)
    for _ in range(2):
        reply = await observing.post("/download_encrypted", attachment.json)
        assert (reply.status, reply.body) == (200, attachment.ciphertext)
    assert observing.engine.scans == 1
    assert [event.reason for event in observing.of(Observed)] == [reason] * 2


@pytest.mark.parametrize(("content", "status", "reason", "scanned"), FOUND)
async def test_a_scan_has_the_true_verdict_while_the_policy_observes(
    observing: Service, content: bytes, status: int, reason: str | None, scanned: dict[str, Any] | None
) -> None:
    attachment = Attachment.of(content)
    observing.homeserver.script = serving(attachment.ciphertext)
    for _ in range(2):
        _check_scan(await observing.post("/scan_encrypted", attachment.json), scanned)
    observing.homeserver.script = serving(content)
    _check_scan(await observing.get(f"/scan{MEDIA}"), scanned)
    assert not any(event.delivered for event in observing.of(Observed))


async def test_a_clean_file_is_nothing_to_observe(observing: Service) -> None:
    await observing.get(f"/download{MEDIA}")
    assert observing.of(Observed) == []


async def test_a_detection_that_is_observed_says_so(observing: Service) -> None:
    observing.homeserver.script = serving(EICAR)
    await observing.get(f"/download{MEDIA}")
    [event] = observing.of(Detected)
    assert event.decision.observed


async def test_observing_goes_on_without_an_antivirus_and_remembers_nothing(observing: Service) -> None:
    observing.engine.problem = EngineError("gone", "eof")
    for _ in range(2):
        assert (await observing.get(f"/download{MEDIA}")).body == PNG
    assert (await observing.get(f"/scan{MEDIA}")).refusal == (503, "M_UNKNOWN")
    assert [event.reason for event in observing.of(Observed)] == ["engine_unavailable"] * 3
    observing.engine.problem = None
    assert (await observing.get(f"/scan{MEDIA}")).content["clean"] is True
    assert observing.engine.scans == 4


async def test_observing_goes_on_when_no_slot_is_free(observing: Service, attachment: Attachment) -> None:
    observing.homeserver.script = serving(attachment.ciphertext)
    async with AsyncExitStack() as others:
        for _ in range(6):
            others.enter_context(await observing.slots.take(1))
        download = await observing.post("/download_encrypted", attachment.json)
        scan = await observing.post("/scan_encrypted", attachment.json)
    assert (download.status, download.body) == (200, attachment.ciphertext)
    assert scan.refusal == (503, "M_UNKNOWN")
    [event] = observing.of(Observed)
    assert (event.outcome, event.reason, event.delivered) == (Outcome.FAILED, "overload", True)
    assert observing.of(Rejected) == [Rejected("overload")], "that is the scan"


async def test_observing_goes_on_when_the_scan_takes_too_long(serve: Serve) -> None:
    service = await serve(policy=Policy(observe=True), request_timeout=0.2)
    service.engine.gate.clear()
    assert (await service.get(f"/download{MEDIA}")).body == PNG
    assert [event.reason for event in service.of(Observed)] == ["timeout"]


async def test_observing_changes_no_error_that_is_not_a_verdict(serve: Serve) -> None:
    service = await serve(policy=Policy(observe=True), media_size=64 * 1024, queue_wait=0.1)
    service.homeserver.script = serving(HELLO.ciphertext + b"x")
    broken = await service.post("/download_encrypted", HELLO.json)
    assert broken.refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")
    service.homeserver.script = serving(bytes(64 * 1024 + 1))
    assert (await service.get(f"/download{MEDIA}")).refusal == (413, "MCS_MEDIA_REQUEST_FAILED")
    service.homeserver.script = UNKNOWN_TOKEN
    assert (await service.get(f"/download{MEDIA}")).refusal == (401, "M_UNKNOWN_TOKEN")
    service.homeserver.script = serving(PNG)
    full = await _filled(service.budget)
    assert (await service.get(f"/download{MEDIA}")).refusal == (503, "M_UNKNOWN")
    full.close()
    assert service.of(Observed) == []


async def test_a_known_verdict_is_no_access_grant_while_the_policy_observes(observing: Service) -> None:
    attachment = Attachment.of(EICAR)
    observing.homeserver.script = for_alice_alone(attachment.ciphertext)
    await observing.post("/download_encrypted", attachment.json)
    reply = await observing.post("/download_encrypted", attachment.json, BOB)
    assert reply.refusal == (401, "M_UNKNOWN_TOKEN")


# -- languages -----------------------------------------------------------------------------------


async def test_users_are_answered_in_the_language_of_the_policy(serve: Serve) -> None:
    service = await serve(language="fr")

    async def info(answer: Awaitable[Reply]) -> str:
        return str((await answer).content["info"])

    assert await info(service.get(f"/scan{MEDIA}")) == "Ce fichier est sain"
    assert await info(service.post("/scan_encrypted", b"{")) == "le corps de la requête n'est pas du JSON"
    short_key = HELLO.replacing("AAAA", "key", "k")
    assert await info(service.post("/scan_encrypted", short_key)) == (
        "file.key.k doit compter 32 octets en base64"
    )
    service.homeserver.script = serving(EICAR)
    found = "Un logiciel malveillant a été détecté dans ce fichier"
    assert await info(service.get(f"/download{MEDIA}")) == found
    assert await info(service.get(f"/scan{MEDIA}")) == found
    service.homeserver.script = NOT_FOUND
    assert (
        await info(service.get(f"/download{MEDIA}")) == "ce fichier est introuvable sur le serveur d'accueil"
    )
    two_headers = b"GET %b/scan/a.org/b HTTP/1.1\r\nHost: a\r\n" % API.encode() + b"Authorization: x\r\n" * 2
    assert await info(service.ask(two_headers + b"\r\n")) == "plusieurs en-têtes Authorization"
    assert await info(service.ask(b"nonsense\r\n\r\n")) == "Requête mal formée"


# -- new terms -----------------------------------------------------------------------------------


async def test_a_request_keeps_the_policy_that_it_began_with(service: Service) -> None:
    service.engine.gate.clear()
    service.homeserver.script = serving(EICAR)
    began_under_enforce = asyncio.create_task(service.get(f"/download{MEDIA}"))
    await until(lambda: service.engine.under_way == 1)
    service.inspector.terms = replace(service.inspector.terms, policy=Policy(observe=True))
    service.engine.gate.set()
    assert (await began_under_enforce).refusal == (403, "MCS_MEDIA_NOT_CLEAN")
    assert (await service.get(f"/download{MEDIA}")).body == EICAR


async def test_a_request_keeps_the_language_that_it_began_with(service: Service) -> None:
    service.engine.gate.clear()
    asked = asyncio.create_task(service.get(f"/scan{MEDIA}"))
    await until(lambda: service.engine.under_way == 1)
    service.site.language = "fr"
    service.engine.gate.set()
    assert (await asked).content["info"] == "File is clean"
    assert (await service.get(f"/scan{MEDIA}")).content["info"] == "Ce fichier est sain"


async def test_a_request_keeps_the_keys_that_it_began_with(service: Service, attachment: Attachment) -> None:
    """Its sealed body is still on the way when the keys change."""
    body = seal(attachment.json, service.keys.public_key)
    head = request(f"{API}/scan_encrypted", method="POST", body=body).removesuffix(body)
    async with connected(service.port) as client:
        await client.send(head)
        await until(lambda: service.site.in_flight == 1)
        service.inspector.terms = replace(service.inspector.terms, keys=ServerKeys(os.urandom(32)))
        assert (await client.ask(body)).content["clean"] is True
    assert (await service.post("/scan_encrypted", body)).refusal == (403, "MCS_BAD_DECRYPTION")


# -- requests that cannot be served --------------------------------------------------------------

HELLO = Attachment.of(b"hello")
NOT_JSON: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "bad UTF-8": HELLO.json.replace(b"example", b"\xff\xfe"),
    "UTF-16": HELLO.json.decode().encode("utf-16"),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + HELLO.json,
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"file":' * 100_000,
    "huge number": HELLO.json[:-1] + b', "x": ' + b"9" * 500_000 + b"}",
    "NaN": HELLO.json[:-1] + b', "x": NaN}',
    "Infinity": HELLO.json[:-1] + b', "x": -Infinity}',
    "two objects": HELLO.json * 2,
    "cut off": HELLO.json[:-1],
    "list": b"[]",
    "string": b'"file"',
    "null": b"null",
    "number": b"1e999",
}
NO_FILE: dict[str, bytes] = {
    "nothing": b"{}",
    "null": b'{"file": null}',
    "a list": b'{"file": []}',
    "all null": b'{"file": null, "encrypted_body": null}',
    "at the top": json.dumps(HELLO.file).encode(),
    **{f"no {path[-1]}": HELLO.without(*path) for path in (("url",), ("iv",), ("v",), ("key",), ("hashes",))},
    **{f"no key.{name}": HELLO.without("key", name) for name in ("k", "alg", "kty", "ext", "key_ops")},
    "no sha256": HELLO.without("hashes", "sha256"),
    "number as key": HELLO.replacing(5, "key", "k"),
    "list as iv": HELLO.replacing([], "iv"),
    "string as hashes": HELLO.replacing("x", "hashes"),
    "v1": HELLO.replacing("v1", "v"),
    "other alg": HELLO.replacing("A128CTR", "key", "alg"),
    "other kty": HELLO.replacing("RSA", "key", "kty"),
    "ext as 1": HELLO.replacing(1, "key", "ext"),
    "encrypt alone": HELLO.replacing(["encrypt"], "key", "key_ops"),
    **{
        f"url {url!r}": HELLO.replacing(url, "url")
        for url in (
            None,
            5,
            "",
            "https://example.org/abc",
            "mxc://example.org",
            "mxc://example.org/",
            "mxc:///abc",
            "mxc://../abc",
            "mxc://example.org/../abc",
            "mxc://example.org/abc/def",
            "mxc://example.org/abc?x",
            "mxc://example.org/\x00",
            "mxc://example.org/\ud800",
            "mxc://bad_server!/abc",
        )
    },
}
UNDECODABLE: dict[str, tuple[bytes, str]] = {
    "short key": (HELLO.replacing("AAAA", "key", "k"), "file.key.k"),
    "no base64 key": (HELLO.replacing("!" * 43, "key", "k"), "file.key.k"),
    "long iv": (HELLO.replacing(unpadded(bytes(17)), "iv"), "file.iv"),
    "short hash": (HELLO.replacing(unpadded(bytes(31)), "hashes", "sha256"), "file.hashes.sha256"),
}


@pytest.mark.parametrize("route", ENCRYPTED)
@pytest.mark.parametrize("bodies", [NOT_JSON, NO_FILE], ids=["no JSON", "no file"])
async def test_what_is_not_the_json_that_we_expect_is_refused(
    service: Service, route: str, bodies: Mapping[str, bytes], discreet: None
) -> None:
    refusals = {name: (await service.post(route, body)).refusal for name, body in bodies.items()}
    assert refusals == dict.fromkeys(bodies, (400, "MCS_MALFORMED_JSON"))
    assert service.homeserver.heard == []


async def test_a_body_of_many_small_values_is_not_parsed(service: Service) -> None:
    """A megabyte of them would hold the interpreter, and so the event loop, for 25 ms."""
    body = HELLO.replacing(["decrypt", "encrypt", *"x" * 10_000], "key", "key_ops")
    assert (await service.post("/scan_encrypted", body)).refusal == (400, "MCS_MALFORMED_JSON")


@pytest.mark.parametrize("route", ENCRYPTED)
@pytest.mark.parametrize(("body", "name"), UNDECODABLE.values(), ids=UNDECODABLE)
async def test_what_cannot_be_decoded_is_named_and_not_shown(
    service: Service, route: str, body: bytes, name: str
) -> None:
    reply = await service.post(route, body)
    assert reply.refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")
    assert name in reply.content["info"]
    value = json.loads(body)
    for member in name.split("."):
        value = value[member]
    assert value not in reply.content["info"]
    assert len(service.of(DecryptFailed)) == 1


async def test_another_hash_is_refused_before_any_engine_sees_it(service: Service) -> None:
    service.homeserver.script = serving(HELLO.ciphertext + b"x")
    for route in ENCRYPTED:
        assert (await service.post(route, HELLO.json)).refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")
    assert service.engine.scans == 0
    assert service.of(DecryptFailed) == [DecryptFailed("hash")] * 2


async def test_a_counter_that_would_wrap_is_refused(service: Service, attachment: Attachment) -> None:
    """Web clients count in 64 bits, all others in 128: they would see another plaintext than we."""
    wraps = attachment.replacing(unpadded(bytes(8) + b"\xff" * 8), "iv")
    assert (await service.post("/scan_encrypted", wraps)).content["clean"] is True
    two_blocks = Attachment.of(b"x" * 17)
    service.homeserver.script = serving(two_blocks.ciphertext)
    wraps = two_blocks.replacing(unpadded(bytes(8) + b"\xff" * 8), "iv")
    reply = await service.post("/scan_encrypted", wraps)
    assert reply.refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")


# -- sealed bodies -------------------------------------------------------------------------------


async def test_the_public_key_is_there_whatever_else_is_not(service: Service) -> None:
    await service.homeserver.__aexit__()
    service.readiness["engine"] = "gone"
    reply = await service.get("/public_key", None)
    assert reply.content == {"public_key": service.keys.public_key}


@pytest.mark.parametrize("route", ENCRYPTED)
async def test_a_sealed_body_is_opened(service: Service, attachment: Attachment, route: str) -> None:
    public_key = (await service.get("/public_key")).content["public_key"]
    assert (await service.post(route, seal(attachment.json, public_key))).status == 200


async def test_a_retired_secret_still_opens(serve: Serve) -> None:
    retired = os.urandom(32)
    service = await serve(retired_secrets=(retired,))
    service.homeserver.script = serving(HELLO.ciphertext)
    public_key = type(service.keys)(retired).public_key
    assert public_key != service.keys.public_key
    assert (await service.post("/scan_encrypted", seal(HELLO.json, public_key))).content["clean"] is True


async def test_a_null_beside_the_file_is_nothing(service: Service, attachment: Attachment) -> None:
    body = json.dumps({"file": attachment.file, "encrypted_body": None}).encode()
    assert (await service.post("/scan_encrypted", body)).content["clean"] is True


async def test_a_sealed_body_wins_over_a_file(service: Service, attachment: Attachment) -> None:
    sealed = json.loads(seal(attachment.json, service.keys.public_key))
    body = json.dumps({**sealed, "file": {"url": "mxc://example.org/other"}}).encode()
    assert (await service.post("/scan_encrypted", body)).content["clean"] is True


async def test_a_large_sealed_body_is_opened(service: Service, attachment: Attachment) -> None:
    body = seal(attachment.json.ljust(300_000), service.keys.public_key)
    assert (await service.post("/scan_encrypted", body)).content["clean"] is True


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"mac": "AAAAAAAAAAA"}, (403, "MCS_BAD_DECRYPTION")),
        ({"mac": "AAAA"}, (403, "MCS_BAD_DECRYPTION")),
        ({"mac": "!"}, (403, "MCS_BAD_DECRYPTION")),
        ({"ephemeral": unpadded(bytes(32))}, (403, "MCS_BAD_DECRYPTION")),
        ({"ephemeral": unpadded(bytes(31))}, (403, "MCS_BAD_DECRYPTION")),
        ({"ciphertext": unpadded(bytes(16))}, (403, "MCS_BAD_DECRYPTION")),
        ({"ciphertext": unpadded(bytes(15))}, (403, "MCS_BAD_DECRYPTION")),
        ({"ciphertext": ""}, (403, "MCS_BAD_DECRYPTION")),
        ({"ciphertext": None}, (400, "MCS_MALFORMED_JSON")),
        ({"ephemeral": 5}, (400, "MCS_MALFORMED_JSON")),
        ({"mac": []}, (400, "MCS_MALFORMED_JSON")),
    ],
)
async def test_a_sealed_body_that_does_not_open_is_refused(
    service: Service, changes: dict[str, object], expected: tuple[int, str]
) -> None:
    sealed = json.loads(seal(HELLO.json, service.keys.public_key))
    sealed["encrypted_body"].update(changes)
    for body in (sealed, {**sealed, **json.loads(HELLO.json)}):
        reply = await service.post("/download_encrypted", json.dumps(body).encode())
        assert reply.refusal == expected


@pytest.mark.parametrize("value", [b"5", b'"x"', b"[]", b"false", b"{}"])
async def test_a_sealed_body_of_another_shape_is_malformed(service: Service, value: bytes) -> None:
    body = b'{"encrypted_body": ' + value + b"}"
    assert (await service.post("/scan_encrypted", body)).refusal == (400, "MCS_MALFORMED_JSON")


@pytest.mark.parametrize("content", [b"hello", b"[]", b"{}", b"\xff"])
async def test_what_was_sealed_must_be_the_json_that_we_expect(service: Service, content: bytes) -> None:
    reply = await service.post("/scan_encrypted", seal(content, service.keys.public_key))
    assert reply.refusal == (400, "MCS_MALFORMED_JSON")


async def test_a_body_sealed_for_somebody_else_does_not_open(service: Service) -> None:
    stranger = type(service.keys)(os.urandom(32)).public_key
    reply = await service.post("/scan_encrypted", seal(HELLO.json, stranger))
    assert reply.refusal == (403, "MCS_BAD_DECRYPTION")
    assert service.of(DecryptFailed) == [DecryptFailed("body")]


# -- what the homeserver says --------------------------------------------------------------------

REFUSALS: dict[str, tuple[Script, int, str]] = {
    "404": (NOT_FOUND, 404, "M_NOT_FOUND"),
    "400": (refusing("400 Bad Request", "M_INVALID_PARAM"), 404, "M_NOT_FOUND"),
    "403": (refusing("403 Forbidden", "M_FORBIDDEN"), 404, "M_NOT_FOUND"),
    "unknown token": (UNKNOWN_TOKEN, 401, "M_UNKNOWN_TOKEN"),
    "missing token": (refusing("401 Unauthorized", "M_MISSING_TOKEN"), 401, "M_MISSING_TOKEN"),
    "401": (refusing("401 Unauthorized"), 401, "M_UNKNOWN_TOKEN"),
    "429": (refusing("429 Slow Down", "M_LIMIT_EXCEEDED", Retry_After="7"), 429, "MCS_MEDIA_REQUEST_FAILED"),
    "not yet": (refusing("504 Gateway Timeout", "M_NOT_YET_UPLOADED"), 504, "MCS_MEDIA_REQUEST_FAILED"),
    "500": (refusing("500 Internal Server Error", "M_UNKNOWN"), 502, "MCS_MEDIA_REQUEST_FAILED"),
    "502": (refusing("502 Bad Gateway"), 502, "MCS_MEDIA_REQUEST_FAILED"),
    "hangs up": (saying(Then.HANG_UP), 502, "MCS_MEDIA_REQUEST_FAILED"),
    "cut off": (saying(media_head(9), b"x", Then.HANG_UP), 502, "MCS_MEDIA_REQUEST_FAILED"),
    "bad framing": (saying(CHUNKED_HEAD, b"zz\r\n"), 502, "MCS_MEDIA_REQUEST_FAILED"),
    "two types": (
        saying(head(headers=[("Content-Type", "a/b"), ("Content-Type", "c/d"), ("Content-Length", "0")])),
        502,
        "MCS_MEDIA_REQUEST_FAILED",
    ),
    "gzip": (serving(PNG, Content_Encoding="gzip"), 502, "MCS_MEDIA_REQUEST_FAILED"),
    "redirect": (redirecting("http://127.0.0.1:1/"), 502, "MCS_MEDIA_REQUEST_FAILED"),
    "declared too large": (saying(media_head(4 * MIB + 1), FOREVER), 413, "MCS_MEDIA_REQUEST_FAILED"),
    "too large": (saying(CHUNKED_HEAD, chunk(bytes(4 * MIB + 1)), FOREVER), 413, "MCS_MEDIA_REQUEST_FAILED"),
    "too large for it": (refusing("413 Too Large", "M_TOO_LARGE"), 413, "MCS_MEDIA_REQUEST_FAILED"),
    "silent": (saying(FOREVER), 504, "MCS_MEDIA_REQUEST_FAILED"),
    "silent in its body": (saying(media_head(9), b"x", FOREVER), 504, "MCS_MEDIA_REQUEST_FAILED"),
}


@pytest.mark.parametrize(("script", "status", "reason"), REFUSALS.values(), ids=REFUSALS)
async def test_what_the_homeserver_refuses_is_answered_as_the_table_says(
    serve: Serve, script: Script, status: int, reason: str, discreet: None
) -> None:
    service = await serve(timers=Timers(first_byte=0.1, idle=0.1, total=0.3))
    service.homeserver.script = script
    replies = [await service.get(f"{route}{MEDIA}") for route in PLAIN]
    replies += [await service.post(route, HELLO.json) for route in ENCRYPTED]
    assert [reply.refusal for reply in replies] == [(status, reason)] * 5
    if status == 429:
        assert [reply.header("retry-after") for reply in replies] == ["7"] * 5


async def test_an_absent_homeserver_is_a_bad_gateway(service: Service) -> None:
    await service.homeserver.__aexit__()
    assert (await service.get(f"/download{MEDIA}")).refusal == (502, "MCS_MEDIA_REQUEST_FAILED")


async def test_without_a_token_r0_is_asked_after_v3(service: Service) -> None:
    service.homeserver.script = by_endpoint(v3=NOT_FOUND, r0=serving(PNG))
    assert (await service.get(f"/download{MEDIA}", None)).body == PNG
    assert service.homeserver.asked == ["GET v3", "GET r0"]


async def test_without_a_token_a_401_says_that_one_is_missing(service: Service) -> None:
    service.homeserver.script = refusing("401 Unauthorized")
    assert (await service.get(f"/download{MEDIA}", None)).refusal == (401, "M_MISSING_TOKEN")


async def test_media_without_a_type_are_an_octet_stream(service: Service) -> None:
    service.homeserver.script = serving(PNG, None)
    reply = await service.get(f"/download{MEDIA}")
    assert reply.header("content-type") == "application/octet-stream"
    assert reply.header("content-disposition") == "attachment"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content_Type", "text/html\x0b; x"),
        ("Content_Disposition", "inline; filename*=undefined''%20"),
        ("Content_Disposition", "inline; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20a%3Db"),
        ("Content_Disposition", 'attachment; filename="\udcff"'),
        ("Content_Disposition", "inline; filename=" + "x" * 8000),
        ("Content_Disposition", ";;;"),
    ],
)
async def test_hostile_headers_do_no_harm(service: Service, name: str, value: str, discreet: None) -> None:
    service.homeserver.script = serving(PNG, **{"content_type": "image/png", name: value})
    reply = await service.get(f"/download{MEDIA}")
    assert reply.status in (200, 502)
    assert reply.header("set-cookie") is None
    assert len(reply.header("content-disposition") or "") < 800


async def test_20_mib_are_accepted_and_one_byte_more_is_not(serve: Serve) -> None:
    service = await serve(media_size=20 * MIB, memory=64 * MIB)
    attachment = Attachment.of(bytes(20 * MIB))
    service.homeserver.script = serving(attachment.ciphertext)
    reply = await service.post("/download_encrypted", attachment.json)
    assert reply.body == attachment.ciphertext
    service.homeserver.script = serving(bytes(20 * MIB + 1))
    assert (await service.get(f"/download{MEDIA}")).refusal == (413, "MCS_MEDIA_REQUEST_FAILED")
    service.homeserver.script = saying(CHUNKED_HEAD, chunk(bytes(20 * MIB + 1)), LAST_CHUNK)
    assert (await service.get(f"/download{MEDIA}")).refusal == (413, "MCS_MEDIA_REQUEST_FAILED")
    assert service.of(Rejected) == [Rejected("too_large")] * 2


# -- time and room -------------------------------------------------------------------------------


async def test_the_homeserver_is_to_blame_while_it_is_waited_for(serve: Serve) -> None:
    service = await serve(request_timeout=0.2)
    service.homeserver.script = saying(FOREVER)
    assert (await service.get(f"/download{MEDIA}")).refusal == (504, "MCS_MEDIA_REQUEST_FAILED")


async def test_we_are_to_blame_while_the_engines_are_waited_for(serve: Serve) -> None:
    service = await serve(request_timeout=0.2)
    service.engine.gate.clear()
    reply = await service.get(f"/download{MEDIA}")
    assert reply.refusal == (503, "M_UNKNOWN")
    assert retry_after(reply) in RETRY
    assert service.of(Rejected) == [Rejected("timeout")]


async def test_we_are_to_blame_while_room_is_waited_for(serve: Serve) -> None:
    service = await serve(queue_wait=0.1)
    full = await _filled(service.budget)
    reply = await service.get(f"/download{MEDIA}")
    assert reply.refusal == (503, "M_UNKNOWN")
    assert retry_after(reply) in RETRY
    assert service.of(Rejected) == [Rejected("overload")]
    full.close()


async def _filled(budget: Budget) -> Any:
    return await budget.small.reserve(budget.small.capacity, "somebody else")


async def test_we_are_to_blame_while_a_slot_is_waited_for(serve: Serve) -> None:
    service = await serve(slots_wait=0.1)
    async with AsyncExitStack() as others:
        for _ in range(6):
            others.enter_context(await service.slots.take(1))
        reply = await service.get(f"/download{MEDIA}")
    assert reply.refusal == (503, "M_UNKNOWN")
    assert retry_after(reply) in RETRY
    assert service.of(Rejected) == [Rejected("overload")]


# -- who may know --------------------------------------------------------------------------------


def for_alice_alone(content: bytes) -> Script:
    """What a homeserver does with private media, HEAD included."""
    return by_token({f"Bearer {ALICE}": serving(content), f"Bearer {BOB}": UNKNOWN_TOKEN, None: NOT_FOUND})


async def test_one_callers_refusal_never_reaches_another(service: Service) -> None:
    script = for_alice_alone(PNG)
    service.homeserver.script = lambda heard: (0.05, *script(heard))
    alice, bob, nobody = await asyncio.gather(
        *(service.get(f"/download{MEDIA}", token) for token in (ALICE, BOB, None))
    )
    assert alice.body == PNG
    assert bob.refusal == (401, "M_UNKNOWN_TOKEN")
    assert nobody.refusal == (404, "M_NOT_FOUND")


async def test_requests_with_the_same_token_share_a_fetch_and_a_scan(service: Service) -> None:
    service.homeserver.script = saying(media_head(len(PNG)), 0.1, PNG)
    replies = await asyncio.gather(*(service.get(f"/download{MEDIA}") for _ in range(5)))
    assert [reply.body for reply in replies] == [PNG] * 5
    assert len(service.homeserver.heard) == 1
    assert service.engine.scans == 1


async def test_equal_content_is_scanned_once_whoever_asks(service: Service) -> None:
    service.engine.gate.clear()
    asking = [asyncio.create_task(service.get(f"/download{MEDIA}", token)) for token in (ALICE, BOB)]
    await service.homeserver.until_heard(2)
    await asyncio.sleep(0.02)
    service.engine.gate.set()
    assert [reply.body for reply in await asyncio.gather(*asking)] == [PNG] * 2
    assert service.engine.scans == 1


async def test_two_keys_for_one_media_are_two_plaintexts(service: Service) -> None:
    """One caller's harmless plaintext must not answer for another's malware."""
    infected = Attachment.of(EICAR)
    other_key = infected.replacing(HELLO.file["key"]["k"], "key", "k")
    script = serving(infected.ciphertext)
    service.homeserver.script = lambda heard: (0.02, *script(heard))
    garbage, found = await asyncio.gather(
        service.post("/scan_encrypted", other_key), service.post("/scan_encrypted", infected.json)
    )
    assert garbage.content["clean"] is True
    assert found.content["clean"] is False
    assert service.engine.scans == 2


async def test_an_engine_that_moves_its_offset_moves_nobody_elses(service: Service) -> None:
    """A passed descriptor shares its offset with ours: clamd moves it, and a hostile one would at will."""
    service.engine.rude = True
    replies = await asyncio.gather(
        *(service.get(f"/download{MEDIA}", token) for token in (ALICE, ALICE, BOB))
    )
    assert [reply.body for reply in replies] == [PNG] * 3


BROKEN_HEADS: dict[str, Script] = {
    "404": NOT_FOUND,
    "405": refusing("405 Method Not Allowed"),
    "501": refusing("501 Not Implemented"),
    "breaks": saying(Then.HANG_UP),
}


@pytest.mark.parametrize("content", [b"hello", EICAR], ids=["clean", "infected"])
@pytest.mark.parametrize("route", ENCRYPTED)
@pytest.mark.parametrize("to_head", [None, *BROKEN_HEADS.values()], ids=["works", *BROKEN_HEADS])
async def test_a_known_verdict_is_no_access_grant(
    service: Service, content: bytes, route: str, to_head: Script | None
) -> None:
    attachment = Attachment.of(content)
    script = for_alice_alone(attachment.ciphertext)
    service.homeserver.script = script if to_head is None else by_method(HEAD=to_head, GET=script)
    known = await service.post(route, attachment.json, ALICE)
    again = await service.post(route, attachment.json, ALICE)
    assert (again.status, again.body) == (known.status, known.body)
    assert (await service.post(route, attachment.json, BOB)).refusal == (401, "M_UNKNOWN_TOKEN")
    assert (await service.post(route, attachment.json, None)).refusal == (404, "M_NOT_FOUND")
    assert service.engine.scans == 1


async def test_a_known_verdict_needs_a_head_and_no_fetch(service: Service, attachment: Attachment) -> None:
    await service.post("/scan_encrypted", attachment.json)
    await service.post("/scan_encrypted", attachment.json, BOB)
    assert service.homeserver.asked == ["GET client/v1", "HEAD client/v1"]
    assert service.homeserver.heard[1].header("authorization") == f"Bearer {BOB}"


async def test_known_malware_is_withheld_without_a_fetch(service: Service) -> None:
    attachment = Attachment.of(EICAR)
    service.homeserver.script = serving(attachment.ciphertext)
    await service.post("/scan_encrypted", attachment.json)
    reply = await service.post("/download_encrypted", attachment.json)
    assert reply.refusal == (403, "MCS_MEDIA_NOT_CLEAN")
    assert service.homeserver.asked == ["GET client/v1", "HEAD client/v1"]


async def test_the_homeservers_own_redirect_grants_access(service: Service, attachment: Attachment) -> None:
    service.homeserver.script = by_method(
        GET=serving(attachment.ciphertext), HEAD=redirecting("https://cdn.example/x")
    )
    await service.post("/scan_encrypted", attachment.json)
    assert (await service.post("/scan_encrypted", attachment.json, BOB)).content["clean"] is True


async def test_what_is_known_of_one_media_is_not_known_of_another(service: Service) -> None:
    """An attacker could name his own upload beside a victim's hash."""
    attachment = Attachment.of(EICAR)
    service.homeserver.script = serving(attachment.ciphertext)
    await service.post("/scan_encrypted", attachment.json)
    other = attachment.replacing("mxc://example.org/other", "url")
    service.homeserver.script = serving(b"something else")
    reply = await service.post("/scan_encrypted", other)
    assert reply.refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")


async def test_other_bytes_on_the_second_fetch_are_not_served(service: Service) -> None:
    service.homeserver.script = in_turn(serving(PNG), serving(EICAR))
    assert (await service.get(f"/download{MEDIA}")).body == PNG
    assert (await service.get(f"/download{MEDIA}")).refusal == (403, "MCS_MEDIA_NOT_CLEAN")


async def test_a_listed_host_is_fetched_from_without_the_token(serve: Serve) -> None:
    async with FakeHomeserver() as cdn:
        service = await serve(redirect_hosts=frozenset({f"127.0.0.1:{cdn.port}"}))
        service.homeserver.script = redirecting(f"{cdn.url}/file")
        assert (await service.get(f"/download{MEDIA}")).body == PNG
        assert cdn.heard[0].header("authorization") is None


async def test_listed_headers_of_the_client_go_along_and_no_others(serve: Serve) -> None:
    service = await serve(transport=Transport(headers_to_forward=("X-Tag",)))
    service.homeserver.script = by_method(GET=serving(PNG), HEAD=serving(PNG))
    assert (await service.get(f"/download{MEDIA}", X_Tag="red", X_Other="blue")).body == PNG
    [heard] = service.homeserver.heard
    assert (heard.header("x-tag"), heard.header("x-other")) == ("red", None)
    refusal = await service.get(f"/download{MEDIA}", X_Tag="r\udcffd")
    assert refusal.refusal == (400, "MCS_MALFORMED_JSON")
    assert len(service.homeserver.heard) == 1


async def test_clients_whose_forwarded_headers_differ_share_no_fetch(serve: Serve) -> None:
    def by_cookie(heard: Heard) -> list[Step]:
        return [0.1, *(serving(PNG) if heard.header("cookie") == "good" else refusing("403 No"))(heard)]

    service = await serve(transport=Transport(headers_to_forward=("Cookie",)))
    service.homeserver.script = by_cookie
    replies = await asyncio.gather(
        *(service.get(f"/download{MEDIA}", Cookie=cookie) for cookie in ("good", "bad", "good"))
    )
    assert [reply.status for reply in replies] == [200, 404, 200]


async def test_a_query_is_the_homeservers_to_judge(service: Service) -> None:
    await service.get(f"/thumbnail{MEDIA}?width=%41&method=crop&animated=true&access_token=t")
    target = "/_matrix/client/v1/media/thumbnail/example.org/abc?width=%41&method=crop&animated=true"
    assert service.homeserver.heard[0].target == target
