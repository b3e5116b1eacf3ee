from __future__ import annotations

import asyncio
import gzip
import json
import time
from contextlib import AsyncExitStack

import pytest

from scanner.events import Rejected
from scanner.web import wire
from scanner.web.routes import API
from tests.fake_homeserver import serving, until
from tests.raw_client import connected, request
from tests.web.service import MIB, Attachment, Serve, Service

SCAN = f"{API}/scan_encrypted"
ATTACHMENT = Attachment.of(b"hello")


def posting(headers: str, body: bytes = b"") -> bytes:
    """A request whose framing is the test's affair."""
    return f"POST {SCAN} HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n".encode() + body


def chunks(body: bytes, size: int) -> bytes:
    pieces = [body[offset : offset + size] for offset in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.fixture
async def ready(service: Service) -> Service:
    service.homeserver.script = serving(ATTACHMENT.ciphertext)
    return service


# -- how a body may come -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_body_may_come_in_chunks(ready: Service, size: int) -> None:
    reply = await ready.ask(posting("Transfer-Encoding: chunked", chunks(ATTACHMENT.json, size)))
    assert reply.content["clean"] is True


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "nonsense", "image/png; x"])
async def test_the_type_of_a_request_does_not_matter(ready: Service, content_type: str) -> None:
    reply = await ready.post("/scan_encrypted", ATTACHMENT.json, Content_Type=content_type)
    assert reply.content["clean"] is True


async def test_a_compressed_body_is_not_decompressed(ready: Service) -> None:
    bomb = gzip.compress(ATTACHMENT.json + b" " * 10_000_000)
    reply = await ready.post("/scan_encrypted", bomb, Content_Encoding="gzip")
    assert reply.refusal == (400, "MCS_MALFORMED_JSON")


async def test_a_body_of_1_mib_is_read(ready: Service) -> None:
    reply = await ready.post("/scan_encrypted", ATTACHMENT.json.ljust(MIB))
    assert reply.content["clean"] is True


# -- too large -----------------------------------------------------------------------------------


async def test_more_than_1_mib_is_too_large(ready: Service) -> None:
    reply = await ready.post("/scan_encrypted", ATTACHMENT.json.ljust(MIB + 1))
    assert reply.refusal == (413, "MCS_MALFORMED_JSON")
    assert ready.homeserver.heard == []
    assert ready.of(Rejected) == [Rejected("too_large")]


async def test_more_than_1_mib_in_chunks_is_too_large(ready: Service) -> None:
    body = chunks(ATTACHMENT.json.ljust(MIB + 1), 100_000)
    reply = await ready.ask(posting("Transfer-Encoding: chunked", body))
    assert reply.refusal == (413, "MCS_MALFORMED_JSON")


async def test_what_is_declared_too_large_is_refused_before_it_comes(ready: Service) -> None:
    reply = await ready.ask(posting(f"Content-Length: {MIB + 1}"))
    assert reply.refusal == (413, "MCS_MALFORMED_JSON")


async def test_who_sends_far_too_much_sees_the_refusal(ready: Service) -> None:
    """Without reading on, the client's kernel would see a reset and drop the answer."""
    async with connected(ready.port) as client:
        await client.send(posting(f"Content-Length: {20 * MIB}", bytes(20 * MIB)))
        assert (await client.reply()).refusal == (413, "MCS_MALFORMED_JSON")
        assert (await client.ask(request(f"{API}/public_key"))).status == 200


async def test_who_never_stops_sending_is_cut(ready: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_DISCARDING", 0.2)
    async with connected(ready.port) as client:
        await client.send(posting(f"Content-Length: {10**12}"))
        assert (await client.reply()).status == 413
        began = time.monotonic()
        while not await client.ends(0.02):
            await client.send(bytes(1000))
        assert time.monotonic() - began < 1


async def test_who_sends_without_end_is_cut_however_fast(
    ready: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_DISCARDED", MIB)
    async with connected(ready.port) as client:
        await client.send(posting(f"Content-Length: {10**12}"))
        assert (await client.reply()).status == 413
        began = time.monotonic()
        while not await client.ends(0.02):
            await client.send(bytes(MIB // 4))
        assert time.monotonic() - began < 2


# -- Expect: 100-continue ------------------------------------------------------------------------


async def test_a_client_that_waits_is_invited(ready: Service) -> None:
    length = len(ATTACHMENT.json)
    async with connected(ready.port) as client:
        await client.send(posting(f"Content-Length: {length}\r\nExpect: 100-continue"))
        assert await client.interim() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.ask(ATTACHMENT.json)).content["clean"] is True


async def test_a_client_that_would_send_too_much_is_not_invited(ready: Service) -> None:
    async with connected(ready.port) as client:
        await client.send(posting(f"Content-Length: {MIB + 1}\r\nExpect: 100-continue"))
        reply = await client.reply()
        assert (reply.status, reply.header("connection")) == (413, "close")


@pytest.mark.parametrize("target", ["/nowhere", f"{API}/public_key"])
async def test_nobody_is_invited_to_where_no_body_belongs(ready: Service, target: str) -> None:
    async with connected(ready.port) as client:
        await client.send(request(target, method="POST", Content_Length="5", Expect="100-continue"))
        assert (await client.reply()).status in (404, 405)


async def test_http_1_0_knows_no_invitation(ready: Service) -> None:
    head = f"POST {SCAN} HTTP/1.0\r\nContent-Length: {len(ATTACHMENT.json)}\r\nExpect: 100-continue\r\n\r\n"
    assert (await ready.ask(head.encode() + ATTACHMENT.json)).content["clean"] is True


# -- bodies that do not come ---------------------------------------------------------------------


async def test_half_a_body_is_refused_at_the_deadline(serve: Serve) -> None:
    service = await serve(request_timeout=0.3)
    began = time.monotonic()
    async with connected(service.port) as client:
        await client.send(posting("Content-Length: 100", b'{"file"'))
        assert (await client.reply()).refusal == (400, "MCS_MALFORMED_JSON")
    assert 0.2 < time.monotonic() - began < 0.8


async def test_a_dripping_body_is_refused_at_the_deadline(serve: Serve) -> None:
    service = await serve(request_timeout=0.3)
    began = time.monotonic()
    async with connected(service.port) as client:
        await client.send(posting("Content-Length: 100"))
        while time.monotonic() - began < 0.35:
            await client.send(b" ")
            await asyncio.sleep(0.03)
        assert (await client.reply()).refusal == (400, "MCS_MALFORMED_JSON")


async def test_many_large_bodies_at_once_are_turned_away(ready: Service) -> None:
    """Nobody has shown a token yet; what clients ordinarily send is read all the same."""
    large = posting(f"Content-Length: {MIB}", b" " * (MIB - 1))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(ready.port)) for _ in range(18)]
        for client in clients:
            await client.send(large)
        await until(lambda: ready.of(Rejected) == [Rejected("overload")] * 2, 5)
        assert (await ready.post("/scan_encrypted", ATTACHMENT.json)).content["clean"] is True
    assert (await ready.post("/scan_encrypted", ATTACHMENT.json.ljust(MIB))).content["clean"] is True


@pytest.mark.parametrize(
    "body", [b"zz\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX", b"-1\r\n", b"5;\x00\r\nhello\r\n"]
)
async def test_bad_framing_is_refused_at_once(ready: Service, body: bytes, discreet: None) -> None:
    began = time.monotonic()
    reply = await ready.ask(posting("Transfer-Encoding: chunked", body))
    assert reply.status == 400
    assert reply.refusal[1] in ("MCS_MALFORMED_JSON", "M_UNKNOWN")
    assert time.monotonic() - began < 1
    assert ready.homeserver.heard == []


async def test_a_client_that_leaves_in_its_body_leaves_nothing(ready: Service, discreet: None) -> None:
    async with connected(ready.port) as client:
        await client.send(posting("Content-Length: 100", json.dumps({}).encode()))
        await until(lambda: ready.site.in_flight == 1)
        client.half_close()
        await until(lambda: ready.idle)
