"""`scan_file`, on real sockets: a form in, a verdict out, and nothing forwarded."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable

import pytest

from scanner.crypto.pk import ServerKeys
from scanner.events import DecryptFailed, Detected, Rejected, Scanned, Source
from scanner.verdict import Policy
from scanner.web import reception
from scanner.web.routes import API
from tests.fake_homeserver import refusing, serving, until
from tests.raw_client import Reply, connected, request
from tests.real_clamd import EICAR
from tests.web.service import ALICE, BOB, FORBIDDEN, LOCKED, MIB, Attachment, Serve, Service, seal
from tests.web.test_form import BYTES, CONTENT_TYPE, END, JSON, part
from tests.web.test_uploads import json_reply, storing

TARGET = f"{API}/scan_file"
CLEAN = {"clean": True, "info": "File is clean"}
MALFORMED = (400, "MCS_MALFORMED_JSON")


@pytest.fixture(autouse=True)
def homeserver_knows_everybody(service: Service) -> None:
    service.homeserver.script = storing()


def form(file: bytes, info: bytes | None = None) -> bytes:
    """As the reference's proposal has it."""
    parts = [part(file, "body", BYTES, "file.bin")]
    if info is not None:
        parts.append(part(info, "file", JSON))
    return b"".join((*parts, END))


def asking(body: bytes | None = None, token: str | None = ALICE, **headers: str) -> bytes:
    named = {"Content_Type": CONTENT_TYPE} | headers
    return request(TARGET, token, method="POST", body=body, **named)


async def scan_file(service: Service, file: bytes, info: bytes | None = None) -> Reply:
    return await service.ask(asking(form(file, info)))


# -- verdicts ------------------------------------------------------------------------------------


async def test_a_clean_file_is_called_clean_and_goes_nowhere(service: Service) -> None:
    reply = await scan_file(service, b"clean" * 100_000)
    assert (reply.status, reply.content) == (200, CLEAN)
    assert service.homeserver.lines == ["GET /_matrix/client/v1/media/config"]
    await until(lambda: service.idle)


@pytest.mark.parametrize("content", [EICAR, LOCKED])
async def test_what_is_not_clean_is_said_to_be_unclean(service: Service, content: bytes) -> None:
    reply = await scan_file(service, content)
    assert (reply.status, reply.content["clean"]) == (200, False)


async def test_a_forbidden_type_is_an_error_as_on_every_scan(service: Service) -> None:
    assert (await scan_file(service, FORBIDDEN)).refusal == (403, "MCS_MIME_TYPE_FORBIDDEN")


@pytest.mark.parametrize(
    "told",
    [
        lambda attachment, keys: attachment.json,
        lambda attachment, keys: attachment.without("url"),
        lambda attachment, keys: json.dumps(attachment.file).encode(),
        lambda attachment, keys: seal(attachment.json, keys.public_key),
        lambda attachment, keys: seal(attachment.without("url"), keys.public_key),
    ],
)
@pytest.mark.parametrize(("plaintext", "clean"), [(b"clean", True), (EICAR, False)])
async def test_an_encrypted_file_is_judged_by_its_plaintext(
    service: Service, told: Callable[[Attachment, ServerKeys], bytes], plaintext: bytes, clean: bool
) -> None:
    attachment = Attachment.of(plaintext)
    reply = await scan_file(service, attachment.ciphertext, told(attachment, service.keys))
    assert (reply.status, reply.content["clean"]) == (200, clean)
    await until(lambda: service.idle)


async def test_the_encryption_info_may_come_first(service: Service) -> None:
    attachment = Attachment.of(EICAR)
    parts = part(attachment.json, "file"), part(attachment.ciphertext, "body", BYTES, "blob"), END
    reply = await service.ask(asking(b"".join(parts)))
    assert reply.content["clean"] is False


async def test_a_body_without_a_declared_length_is_taken(service: Service) -> None:
    content = form(b"clean" * 1000)
    async with connected(service.port) as client:
        await client.send(asking(Transfer_Encoding="chunked"))
        for piece in (content[:700], content[700:]):
            await client.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await client.send(b"0\r\n\r\n")
        assert (await client.reply()).content == CLEAN


async def test_a_detection_tells_what_it_was_and_no_media_id(service: Service) -> None:
    attachment = Attachment.of(EICAR)
    await scan_file(service, attachment.ciphertext, attachment.json)
    (detected,) = service.of(Detected)
    assert (detected.occasion.source, detected.occasion.ref) == (Source.SCAN, None)
    assert detected.occasion.encrypted
    assert detected.ciphertext_sha256 is not None


async def test_it_says_so_in_french(serve: Serve) -> None:
    french = await serve(language="fr")
    french.homeserver.script = storing()
    reply = await french.ask(asking(END))
    assert reply.content["info"].startswith("le formulaire doit contenir un seul fichier")


# -- what is remembered --------------------------------------------------------------------------


async def test_the_scan_after_the_upload_costs_no_second_scan(service: Service) -> None:
    await scan_file(service, b"clean")
    service.homeserver.script = serving(b"clean")
    assert (await service.get("/scan/example.org/abc")).content == CLEAN
    assert (await service.get("/download/example.org/abc", BOB)).body == b"clean"
    assert service.engine.scans == 1


@pytest.mark.parametrize(("plaintext", "clean"), [(b"clean", True), (EICAR, False)])
async def test_neither_does_that_of_an_encrypted_upload(
    service: Service, plaintext: bytes, clean: bool
) -> None:
    attachment = Attachment.of(plaintext)
    await scan_file(service, attachment.ciphertext, attachment.without("url"))
    service.homeserver.script = serving(attachment.ciphertext)
    assert (await service.post("/scan_encrypted", attachment.json)).content["clean"] is clean
    assert (await service.post("/download_encrypted", attachment.json)).status == (200 if clean else 403)
    assert service.engine.scans == 1


async def test_a_ciphertext_called_plain_says_nothing_of_its_plaintext(service: Service) -> None:
    attachment = Attachment.of(EICAR)
    assert (await scan_file(service, attachment.ciphertext)).content == CLEAN
    assert (await scan_file(service, attachment.ciphertext, attachment.json)).content["clean"] is False


# -- who may ask ---------------------------------------------------------------------------------


async def test_a_stranger_is_refused_before_his_file_is_read(service: Service) -> None:
    service.homeserver.script = refusing("401 Unauthorized", "M_UNKNOWN_TOKEN")
    async with connected(service.port) as client:
        await client.send(asking(token="stranger", Content_Length=str(MIB)))
        assert (await client.reply()).refusal == (401, "M_UNKNOWN_TOKEN")
    assert service.budget.reserved == 0


async def test_without_a_token_nobody_is_asked(service: Service) -> None:
    assert (await service.ask(asking(form(b"x"), None))).refusal == (401, "M_MISSING_TOKEN")
    assert not service.homeserver.heard


async def test_a_client_may_wait_until_its_token_was_checked(service: Service) -> None:
    content = form(b"clean")
    async with connected(service.port) as client:
        await client.send(asking(Content_Length=str(len(content)), Expect="100-continue"))
        assert b"100 Continue" in await client.interim()
        assert len(service.homeserver.heard) == 1
        await client.send(content)
        assert (await client.reply()).content == CLEAN


async def test_a_homeserver_that_fails_is_to_blame(service: Service) -> None:
    service.homeserver.script = refusing("500 Oops", "M_UNKNOWN")
    assert (await scan_file(service, b"x")).refusal == (502, "MCS_MEDIA_REQUEST_FAILED")


async def test_other_methods_are_not_ours(service: Service) -> None:
    reply = await service.get("/scan_file")
    assert (reply.status, reply.header("allow")) == (405, "POST, OPTIONS")


# -- what cannot be judged -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        END,
        b"no form",
        form(b"x")[: -len(END)],
        part(b'{"file": {}}', "file", JSON) + END,
        part(b"x", "body", BYTES, "a") + part(b"y", "file", BYTES, "b") + END,
        form(b"x", b"not JSON"),
        form(b"x", b"{}"),
        form(b"x", b'{"file": null}'),
    ],
)
async def test_what_is_no_form_of_one_file_is_refused(service: Service, body: bytes) -> None:
    assert (await service.ask(asking(body))).refusal == MALFORMED
    assert service.engine.scans == 0
    await until(lambda: service.idle)


async def test_what_is_no_form_at_all_is_refused_unread(service: Service) -> None:
    async with connected(service.port) as client:
        await client.send(asking(Content_Type=JSON, Content_Length=str(MIB)))
        assert (await client.reply()).refusal == MALFORMED
    assert not service.homeserver.heard


async def test_another_hash_is_refused_before_any_engine_sees_the_file(service: Service) -> None:
    attachment = Attachment.of(b"clean")
    reply = await scan_file(service, attachment.ciphertext + b"x", attachment.json)
    assert reply.refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")
    assert service.engine.scans == 0
    assert service.of(DecryptFailed) == [DecryptFailed("hash")]
    await until(lambda: service.idle)


async def test_a_key_of_the_wrong_length_is_refused_and_not_shown(service: Service, discreet: None) -> None:
    attachment = Attachment.of(b"clean")
    reply = await scan_file(service, attachment.ciphertext, attachment.replacing("SECRET", "key", "k"))
    assert reply.refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")
    assert "file.key.k" in reply.content["info"]
    assert "SECRET" not in reply.content["info"]


async def test_what_is_sealed_for_another_key_is_refused(service: Service) -> None:
    attachment, other = Attachment.of(b"clean"), ServerKeys(os.urandom(32))
    reply = await scan_file(service, attachment.ciphertext, seal(attachment.json, other.public_key))
    assert reply.refusal == (403, "MCS_BAD_DECRYPTION")
    await until(lambda: service.idle)


async def test_what_is_encoded_is_refused(service: Service) -> None:
    reply = await service.ask(asking(form(b"x"), Content_Encoding="gzip"))
    assert reply.refusal == (415, "MCS_MEDIA_REQUEST_FAILED")
    assert not service.homeserver.heard
    encoded = part(b"eA==", "body", BYTES, "a", Content_Transfer_Encoding="base64") + END
    assert (await service.ask(asking(encoded))).refusal == (415, "MCS_MEDIA_REQUEST_FAILED")


# -- what is too much, and too slow --------------------------------------------------------------


async def test_a_file_may_have_exactly_the_limit_beside_its_info(service: Service) -> None:
    attachment = Attachment.of(bytes(4 * MIB))
    info = attachment.json.ljust(MIB)
    assert (await scan_file(service, attachment.ciphertext, info)).content == CLEAN


@pytest.mark.parametrize("declared", [4 * MIB + 1000, 64 * MIB])
async def test_a_larger_one_is_refused(service: Service, declared: int) -> None:
    """By its declared length, if that leaves no doubt; else as soon as there is none."""
    content = form(bytes(4 * MIB + 1))
    async with connected(service.port) as client:
        await client.send(asking(Content_Length=str(declared)) + content[:declared])
        assert (await client.reply()).refusal == (413, "MCS_MEDIA_REQUEST_FAILED")
    assert service.of(Rejected) == [Rejected("too_large")]
    await until(lambda: service.idle)


async def test_encryption_info_over_its_limit_is_refused(service: Service) -> None:
    reply = await scan_file(service, b"x", b" " * (MIB + 1))
    assert reply.refusal == (413, "MCS_MALFORMED_JSON")
    await until(lambda: service.idle)


async def test_a_preamble_does_not_go_on_for_ever(service: Service) -> None:
    async with connected(service.port) as client:
        await client.send(asking(Transfer_Encoding="chunked"))
        for _ in range(6):
            await client.send(f"{MIB:x}\r\n".encode() + bytes(MIB) + b"\r\n")
        assert (await client.reply()).status == 413
    await until(lambda: service.idle)


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(service: Service) -> None:
    content = form(bytes(MIB))
    async with connected(service.port) as client:
        await client.send(asking(Content_Length=str(len(content))) + content[: MIB // 2])
        await until(lambda: service.budget.reserved > 0)
        client.vanish()
        await until(lambda: service.idle)
    assert service.engine.scans == 0


async def test_a_silent_client_is_given_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "SILENCE", 0.2)
    content = form(bytes(1000))
    async with connected(service.port) as client:
        await client.send(asking(Content_Length=str(len(content))) + content[:500])
        assert (await client.reply()).refusal == (408, "MCS_MEDIA_REQUEST_FAILED")
    await until(lambda: service.idle)


async def test_a_form_that_is_refused_does_not_disturb_the_next_request(service: Service) -> None:
    """On the same connection, while the timers of the first would still run."""
    async with connected(service.port) as client:
        bad = part(b"x", "body", BYTES, "a") + part(b"y", "file", BYTES, "b") + END
        assert (await client.ask(asking(bad + bytes(50_000)))).refusal == MALFORMED
        assert (await client.ask(asking(form(b"clean")))).content == CLEAN


async def test_a_slow_client_uses_up_his_own_time(serve: Serve) -> None:
    service = await serve(request_timeout=0.5)
    service.homeserver.script = storing()
    content = form(b"clean" * 1000)
    async with connected(service.port) as client:
        await client.send(asking(Content_Length=str(len(content))) + content[:100])
        await asyncio.sleep(0.7)
        await client.send(content[100:])
        assert (await client.reply()).content == CLEAN


async def test_files_wait_for_their_share_and_are_turned_away(serve: Serve) -> None:
    service = await serve(queue_wait=0.1)
    service.homeserver.script = storing()
    content = form(bytes(4 * MIB - 1000))
    async with connected(service.port) as first, connected(service.port) as second:
        await first.send(asking(Content_Length=str(len(content))) + content[:1000])
        await until(lambda: service.budget.uploads.reserved > 0)
        reply = await second.ask(asking(content))
        assert reply.refusal == (503, "M_UNKNOWN")
        assert int(reply.header("retry-after") or 0) > 0


# -- engines that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize("observe", [False, True])
async def test_without_an_engine_there_is_no_verdict(serve: Serve, observe: bool) -> None:
    """Where the policy only observes, too: there is nothing to hand over here."""
    service = await serve(policy=Policy(observe=observe))
    service.homeserver.script = storing()
    service.engine.problem = RuntimeError("broken")
    reply = await scan_file(service, b"clean")
    assert reply.refusal == (503, "M_UNKNOWN")
    assert reply.header("retry-after") == "5"
    service.engine.problem = None
    assert (await scan_file(service, b"clean")).content == CLEAN


async def test_an_observing_policy_tells_the_truth(serve: Serve) -> None:
    service = await serve(policy=Policy(observe=True))
    service.homeserver.script = storing()
    assert (await scan_file(service, EICAR)).content["clean"] is False


async def test_a_scan_goes_on_for_others_when_the_first_to_ask_leaves(service: Service) -> None:
    service.engine.gate.clear()
    async with connected(service.port) as first, connected(service.port) as second:
        await first.send(asking(form(b"clean")))
        await until(lambda: service.engine.under_way == 1)
        await second.send(asking(form(b"clean"), BOB))
        await until(lambda: len(service.homeserver.heard) == 2)
        first.vanish()
        await asyncio.sleep(0.1)
        service.engine.gate.set()
        assert (await second.reply()).content == CLEAN
    assert [scanned.source for scanned in service.of(Scanned)] == [Source.SCAN]
    await until(lambda: service.idle)


async def test_the_homeservers_own_limit_is_no_limit_here(service: Service) -> None:
    service.homeserver.script = lambda heard: json_reply({"m.upload.size": 10})
    assert (await scan_file(service, b"clean" * 10)).content == CLEAN
