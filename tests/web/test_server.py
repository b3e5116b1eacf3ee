from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from scanner.events import Answered, BadRequest, Crashed, Event, Rejected
from scanner.web import server as server_module
from scanner.web.request import Request
from scanner.web.routes import API, Route
from scanner.web.server import Site
from scanner.web.wire import Answer
from tests.fake_homeserver import FOREVER, PNG, media_head, saying, serving, until
from tests.raw_client import RawClient, connected, request
from tests.web.service import ALICE, MIB, Attachment, Serve, Service, networks

DOWNLOAD = f"{API}/download/example.org/abc"
SCAN = f"{API}/scan/example.org/abc"
PUBLIC_KEY = f"{API}/public_key"


# -- clients that go away ------------------------------------------------------------------------

Leave = Callable[[RawClient], None]


@pytest.fixture(params=[RawClient.vanish, RawClient.half_close])
def leave(request: pytest.FixtureRequest) -> Leave:
    chosen: Leave = request.param
    return chosen


async def test_a_fetch_ends_when_its_client_leaves(service: Service, leave: Leave, discreet: None) -> None:
    service.homeserver.script = saying(media_head(MIB), b"12345", FOREVER)
    async with connected(service.port) as client:
        await client.send(request(DOWNLOAD))
        await until(lambda: service.budget.reserved == MIB)
        leave(client)
        await until(lambda: service.idle)
    await service.homeserver.until_abandoned()
    assert service.of(BadRequest) == []


async def test_a_scan_ends_when_its_client_leaves(service: Service, leave: Leave, discreet: None) -> None:
    service.engine.gate.clear()
    async with connected(service.port) as client:
        await client.send(request(DOWNLOAD))
        await until(lambda: service.engine.under_way == 1)
        leave(client)
        await until(lambda: service.idle)
    assert service.of(BadRequest) == []


async def test_a_place_in_the_queue_ends_when_its_client_leaves(service: Service, leave: Leave) -> None:
    full = await service.budget.small.reserve(service.budget.small.capacity, "somebody else")
    async with connected(service.port) as client:
        await client.send(request(DOWNLOAD))
        await service.homeserver.until_heard(1)
        await asyncio.sleep(0.02)
        leave(client)
        await until(lambda: service.site.in_flight == 0)
    full.close()
    assert service.idle


async def test_an_answer_ends_when_its_client_leaves(serve: Serve, discreet: None) -> None:
    service = await serve(media_size=20 * MIB, memory=64 * MIB)
    service.homeserver.script = serving(bytes(16 * MIB))
    async with connected(service.port, receive_buffer=4096) as client:
        await client.send(request(DOWNLOAD))
        await client.read(1)
        assert service.site.in_flight == 1
        client.vanish()
        await until(lambda: service.idle)
    assert service.of(BadRequest) == []


async def test_an_answer_to_nobody_is_no_bad_request(discreet: None) -> None:
    async def handler(request: Request) -> Answer:
        assert request.http.transport is not None
        request.http.transport.abort()
        return Answer(200)

    events: list[Event] = []
    site = _site([Route("GET", "/", handler)], events)
    async with connected(await site.listen("127.0.0.1", 0)) as client:
        await client.send(request("/"))
        assert await client.ends()
        await site.drain(1)
    assert events == []


async def test_a_client_that_leaves_takes_nobody_with_it(service: Service) -> None:
    service.engine.gate.clear()
    async with connected(service.port) as leaving, connected(service.port) as staying:
        await leaving.send(request(DOWNLOAD))
        await staying.send(request(DOWNLOAD))
        await until(lambda: service.site.in_flight == 2 and service.engine.under_way == 1)
        leaving.vanish()
        await until(lambda: service.site.in_flight == 1)
        service.engine.gate.set()
        reply = await staying.reply()
    assert reply.body == PNG
    assert len(service.homeserver.heard) == 1


# -- requests one after the other ----------------------------------------------------------------


@pytest.mark.parametrize("target", [DOWNLOAD, SCAN, PUBLIC_KEY, "/", f"{API}/scan/!/!", "/health/ready"])
async def test_a_head_keeps_the_connection_in_step(service: Service, target: str) -> None:
    """The body of an answer to a HEAD, which aiohttp would send, would be taken for the next answer."""
    async with connected(service.port) as client:
        to_head = await client.ask(request(target, method="HEAD"))
        to_get = await client.ask(request(target))
    assert (to_head.status, to_head.length) == (to_get.status, to_get.length)
    assert to_head.header("content-type") == to_get.header("content-type")


async def test_pipelined_requests_are_answered_in_turn(service: Service) -> None:
    async with connected(service.port) as client:
        await client.send(request(DOWNLOAD) + request(PUBLIC_KEY) + request("/nowhere"))
        assert (await client.reply()).body == PNG
        assert "public_key" in (await client.reply()).content
        assert (await client.reply()).status == 404


async def test_an_upgrade_is_declined_and_the_connection_goes_on(service: Service) -> None:
    async with connected(service.port) as client:
        upgrade = request(PUBLIC_KEY, Connection="Upgrade", Upgrade="websocket")
        assert "public_key" in (await client.ask(upgrade)).content
        assert (await client.ask(request(DOWNLOAD))).body == PNG


async def test_http_1_0_is_answered_and_closed(service: Service) -> None:
    async with connected(service.port) as client:
        reply = await client.ask(b"GET " + PUBLIC_KEY.encode() + b" HTTP/1.0\r\n\r\n")
        assert reply.status == 200
        assert await client.ends()


async def test_answers_do_not_pile_up_for_a_client_that_takes_none(discreet: None) -> None:
    async def handler(request: Request) -> Answer:
        return Answer(200, {"Content-Type": "text/plain"}, bytes(50_000))

    answered: list[Event] = []
    site = _site([Route("GET", "/", handler)], answered)
    async with connected(await site.listen("127.0.0.1", 0), receive_buffer=4096) as client:
        client.writer.write(request("/") * 1000)
        before = -1
        while before < len(answered):
            before = len(answered)
            await asyncio.sleep(0.2)
        await site.drain(0)
    assert 0 < len(answered) < 500


# -- what is no HTTP -----------------------------------------------------------------------------

START = f"GET {PUBLIC_KEY}?access_token=SECRET HTTP/1.1\r\nHost: a\r\n".encode()
MALFORMED = {
    "space before the colon": START + b"Authorization : Bearer SECRET\r\n\r\n",
    "no colon": START + b"Authorization Bearer SECRET\r\n\r\n",
    "folded": START + b"Authorization: Bearer\r\n SECRET\r\n\r\n",
    "control character": START + b"Authorization: Bearer SECRET\x00\r\n\r\n",
    "long header": START + b"Authorization: SECRET" + b"x" * 9000 + b"\r\n\r\n",
    "many headers": START + b"".join(b"A%d: SECRET\r\n" % n for n in range(200)) + b"\r\n",
    "long target": b"GET /?access_token=SECRET" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
    "odd version": b"GET /?access_token=SECRET HTTP/9.9\r\n\r\n",
    "spaces in the target": b"GET /?access_token=SECRET and more HTTP/1.1\r\n\r\n",
    "control character in the target": b"GET /?access_token=SECRET\x01 HTTP/1.1\r\n\r\n",
    "odd method": b"G@T /?access_token=SECRET HTTP/1.1\r\n\r\n",
    "unknown method": b"SECRET /?access_token=SECRET HTTP/1.1\r\n\r\n",
    "no ASCII in the path": b"GET /SECRET\xff HTTP/1.1\r\n\r\n",
    "no ASCII in the query": "GET /?access_token=SECRETé HTTP/1.1\r\n\r\n".encode(),
    "odd host": b"GET http://[SECRET/?access_token=SECRET HTTP/1.1\r\nHost: a\r\n\r\n",
    "two lengths": START + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "negative length": START + b"Content-Length: -1\r\n\r\nxx",
    "length and chunks": START + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "odd transfer encoding": START + b"Transfer-Encoding: SECRET\r\n\r\n0\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03SECRET\r\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_http_is_answered_without_an_echo(
    service: Service, raw: bytes, discreet: None
) -> None:
    async with connected(service.port) as client:
        reply = await client.ask(raw)
        assert reply.refusal == (400, "M_UNKNOWN")
        assert b"SECRET" not in reply.body
        assert await client.ends()
    assert len(service.of(BadRequest)) == 1
    assert "SECRET" not in repr(service.events)


async def test_what_follows_a_good_request_may_be_no_http(service: Service, discreet: None) -> None:
    async with connected(service.port) as client:
        assert (await client.ask(request(PUBLIC_KEY))).status == 200
        assert (await client.ask(MALFORMED["no colon"])).refusal == (400, "M_UNKNOWN")


# -- clients that are slow to ask ----------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_HEAD_TIMEOUT", 0.2)


@pytest.mark.parametrize("start", [b"", b"GET ", START])
async def test_half_a_head_is_cut_off(service: Service, hurried: None, start: bytes, discreet: None) -> None:
    async with connected(service.port) as client:
        began = time.monotonic()
        await client.send(start)
        assert await client.ends()
        assert 0.15 < time.monotonic() - began < 0.6


async def test_a_dripping_head_is_cut_off(service: Service, hurried: None) -> None:
    async with connected(service.port) as client:
        began = time.monotonic()
        await client.send(START)
        while not await client.ends(0.05):
            await client.send(b"x")
        assert time.monotonic() - began < 0.6


async def test_half_a_second_head_is_cut_off(service: Service, hurried: None) -> None:
    async with connected(service.port) as client:
        await client.ask(request(PUBLIC_KEY))
        await client.send(START)
        assert await client.ends(0.6)


async def test_an_idle_connection_is_kept(service: Service, hurried: None) -> None:
    async with connected(service.port) as client:
        await client.ask(request(PUBLIC_KEY))
        assert not await client.ends(0.4)
        assert (await client.ask(request(PUBLIC_KEY))).status == 200


async def test_a_slow_answer_is_not_half_a_head(service: Service, hurried: None) -> None:
    service.homeserver.script = saying(0.4, media_head(len(PNG)), PNG)
    async with connected(service.port) as client:
        assert (await client.ask(request(DOWNLOAD))).body == PNG


async def test_a_slow_body_is_not_half_a_head(service: Service, hurried: None) -> None:
    attachment = Attachment.of(b"hello")
    service.homeserver.script = serving(attachment.ciphertext)
    whole = request(f"{API}/scan_encrypted", method="POST", body=attachment.json)
    async with connected(service.port) as client:
        await client.send(whole[:-20])
        await asyncio.sleep(0.2)
        await client.send(whole[-20:-10])
        await asyncio.sleep(0.2)
        assert (await client.ask(whole[-10:])).content["clean"] is True
        assert (await client.ask(request(PUBLIC_KEY))).status == 200


# -- who asks ------------------------------------------------------------------------------------


async def test_the_callers_token_is_relayed_as_it_came(service: Service) -> None:
    await service.get("/download/example.org/abc", "a+b/c~d")
    assert service.homeserver.heard[0].header("authorization") == "Bearer a+b/c~d"


@pytest.mark.parametrize(
    ("query", "relayed"),
    [
        ("access_token=tok%2Ben", ""),
        ("width=1&access_token=tok%2Ben&height=%41", "?width=1&height=%41"),
        ("access%5Ftoken=tok%2Ben&width=1", "?width=1"),
    ],
)
async def test_a_token_in_the_query_becomes_a_header(
    service: Service, query: str, relayed: str, discreet: None
) -> None:
    await service.get(f"/download/example.org/abc?{query}", None)
    (heard,) = service.homeserver.heard
    assert heard.header("authorization") == "Bearer tok+en"
    assert heard.target == f"/_matrix/client/v1/media/download/example.org/abc{relayed}"


async def test_the_header_counts_before_the_query(service: Service) -> None:
    await service.get("/download/example.org/abc?access_token=other", "tok")
    (heard,) = service.homeserver.heard
    assert heard.header("authorization") == "Bearer tok"
    assert "other" not in heard.raw.decode()


@pytest.mark.parametrize("query", ["", "?access_token="])
async def test_without_a_token_none_is_sent(service: Service, query: str) -> None:
    await service.get(f"/download/example.org/abc{query}", None)
    (heard,) = service.homeserver.heard
    assert heard.header("authorization") is None
    assert service.homeserver.asked == ["GET v3"]


@pytest.mark.parametrize(
    "caller",
    [
        request(f"{DOWNLOAD}?access_token=%C3%A9"),
        request(f"{DOWNLOAD}?access_token=a%0D%0AX-Evil:%201"),
        request(DOWNLOAD, Authorization="Bearer \udcff"),
        request(DOWNLOAD, Authorization="Bearer é"),
    ],
)
async def test_a_token_that_no_header_can_carry_is_unknown(
    service: Service, caller: bytes, discreet: None
) -> None:
    """A 5xx would make clients ask again for 15 minutes."""
    assert (await service.ask(caller)).refusal == (401, "M_UNKNOWN_TOKEN")
    assert service.homeserver.heard == []


async def test_two_authorizations_are_refused(service: Service, discreet: None) -> None:
    reply = await service.ask(
        f"GET {DOWNLOAD} HTTP/1.1\r\nHost: a\r\nAuthorization: SECRET\r\nAuthorization: b\r\n\r\n".encode()
    )
    assert reply.status == 400
    assert reply.refusal[1] in ("MCS_MALFORMED_JSON", "M_UNKNOWN")
    assert service.homeserver.heard == []


async def test_a_callers_own_headers_are_not_relayed(service: Service) -> None:
    await service.get(
        "/download/example.org/abc",
        Cookie="a=b",
        Range="bytes=0-1",
        If_None_Match="1",
        Forwarded="for=192.0.2.1",
        X_Real_IP="192.0.2.1",
        User_Agent="me",
    )
    names = {name for name, _ in service.homeserver.heard[0].headers}
    assert names == {"host", "accept", "accept-encoding", "user-agent", "authorization", "x-forwarded-for"}
    assert service.homeserver.heard[0].header("user-agent") != "me"


@pytest.mark.parametrize(
    ("trusted", "said", "address"),
    [
        ((), None, "127.0.0.1"),
        ((), "192.0.2.1", "127.0.0.1"),
        (("127.0.0.0/8",), None, "127.0.0.1"),
        (("127.0.0.0/8",), "192.0.2.1", "192.0.2.1"),
        (("127.0.0.0/8",), "2001:db8::1", "2001:db8::1"),
        (("127.0.0.0/8",), "198.51.100.9, 192.0.2.1", "192.0.2.1"),
        (("127.0.0.0/8", "10.0.0.0/8"), "198.51.100.9, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        (("127.0.0.0/8",), "nonsense", "127.0.0.1"),
        (("127.0.0.0/8",), "192.0.2.1, unknown", "127.0.0.1"),
        (("127.0.0.0/8",), "127.0.0.2", "127.0.0.2"),
        (("10.0.0.0/8",), "192.0.2.1", "127.0.0.1"),
    ],
)
async def test_the_address_is_the_peers_or_what_a_trusted_proxy_says(
    serve: Serve, trusted: tuple[str, ...], said: str | None, address: str
) -> None:
    service = await serve(trusted_proxies=trusted)
    headers = {} if said is None else {"X_Forwarded_For": said}
    await service.get("/download/example.org/abc", **headers)
    assert service.homeserver.heard[0].header("x-forwarded-for") == address


# -- shutting down -------------------------------------------------------------------------------


async def test_what_is_under_way_is_finished(service: Service) -> None:
    service.engine.gate.clear()
    async with connected(service.port) as client:
        await client.send(request(DOWNLOAD))
        await until(lambda: service.engine.under_way == 1)
        drained = asyncio.create_task(service.site.drain(5))
        await asyncio.sleep(0.05)
        service.engine.gate.set()
        assert (await client.reply()).body == PNG
        assert await client.ends()
        await drained


async def test_what_takes_too_long_is_told_to_come_again(service: Service, discreet: None) -> None:
    service.engine.gate.clear()
    async with connected(service.port) as client:
        await client.send(request(DOWNLOAD))
        await until(lambda: service.engine.under_way == 1)
        drained = asyncio.create_task(service.site.drain(0.1))
        reply = await client.reply()
        assert reply.refusal == (503, "M_UNKNOWN")
        assert 2 <= int(reply.header("retry-after") or 0) <= 30
        assert await client.ends()
        await drained
    assert Rejected("shutdown") in service.events
    assert service.idle


async def test_a_slow_reader_does_not_hold_up_the_shutdown(serve: Serve, discreet: None) -> None:
    service = await serve(media_size=20 * MIB, memory=64 * MIB)
    service.homeserver.script = serving(bytes(16 * MIB))
    async with connected(service.port, receive_buffer=4096) as client:
        await client.send(request(DOWNLOAD))
        await client.read(1)
        began = time.monotonic()
        await service.site.drain(0.1)
        assert time.monotonic() - began < 2
    await until(lambda: service.idle)


async def test_idle_connections_are_closed_at_once(service: Service, discreet: None) -> None:
    service.engine.gate.clear()
    async with connected(service.port) as idle, connected(service.port) as busy:
        await idle.ask(request(PUBLIC_KEY))
        await busy.send(request(DOWNLOAD))
        await until(lambda: service.engine.under_way == 1)
        drained = asyncio.create_task(service.site.drain(5))
        assert await idle.ends(0.5)
        service.engine.gate.set()
        assert (await busy.reply()).status == 200
        await drained


async def test_nobody_is_accepted_any_more(service: Service) -> None:
    await service.site.drain(0)
    with pytest.raises(ConnectionError):
        async with connected(service.port):
            pass


async def test_a_busy_port_is_an_error(service: Service) -> None:
    site = _site([], [])
    with pytest.raises(OSError, match="in use"):
        await site.listen("127.0.0.1", service.port)
    await site.drain(0)


# -- events --------------------------------------------------------------------------------------


async def test_every_answer_is_an_event(service: Service) -> None:
    await service.get("/download/example.org/abc?access_token=SECRET")
    await service.get("/scan/example.org/..")
    await service.ask(request("/SECRET"))
    await service.ask(request(PUBLIC_KEY, method="DELETE"))
    answers = [(e.route, e.method, e.code, e.reason, str(e.ref)) for e in service.of(Answered)]
    assert answers == [
        (f"{API}/download/{{server}}/{{media}}", "GET", 200, None, "mxc://example.org/abc"),
        (f"{API}/scan/{{server}}/{{media}}", "GET", 404, "M_NOT_FOUND", "None"),
        ("unknown", "GET", 404, "M_UNRECOGNIZED", "None"),
        (PUBLIC_KEY, "DELETE", 405, "M_UNRECOGNIZED", "None"),
    ]
    assert "SECRET" not in repr(service.events)


def _site(routes: list[Route], events: list[Event]) -> Site:
    return Site(
        routes, publish=events.append, request_timeout=5, reader_timeout=5, trusted_proxies=networks()
    )


@pytest.fixture
async def broken() -> AsyncIterator[tuple[int, list[Event]]]:
    """The port of a listener whose only handler has a bug, and its events."""

    async def handler(request: Request) -> Answer:
        raise KeyError("SECRET")

    events: list[Event] = []
    site = _site([Route("GET", "/bug", handler)], events)
    yield await site.listen("127.0.0.1", 0), events
    await site.drain(0)


async def test_a_bug_of_ours_is_one_failed_request(broken: tuple[int, list[Event]], discreet: None) -> None:
    port, events = broken
    async with connected(port) as client:
        for _ in range(2):
            assert (await client.ask(request("/bug", ALICE))).refusal == (500, "M_UNKNOWN")
    crash = events[0]
    assert isinstance(crash, Crashed)
    assert (crash.route, crash.problem) == ("/bug", "KeyError")
    assert crash.where.startswith("test_server.py:")
    assert "SECRET" not in repr(events)
