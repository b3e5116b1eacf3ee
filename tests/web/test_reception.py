"""Bodies on their way to us."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing

import pytest

from scanner.admission import Reader, Share
from scanner.web import reception
from scanner.web.dialects import MATRIX
from scanner.web.reception import arriving
from scanner.web.request import Request
from scanner.web.routes import Route
from scanner.web.server import Site
from scanner.web.wire import Answer, json_answer
from tests.fake_homeserver import until
from tests.raw_client import RawClient, connected, request
from tests.web.service import ALICE, BOB, MIB, Serve, Service
from tests.web.test_uploads import UPLOAD, storing, upload

SLOW, TRY_AGAIN = (408, "M_UNKNOWN"), (503, "M_UNKNOWN")


@asynccontextmanager
async def sending(
    service: Service, length: int, token: str = ALICE, first: bytes = b""
) -> AsyncIterator[RawClient]:
    """A client that has begun to upload; `first` has arrived."""
    service.homeserver.script = storing()
    async with connected(service.port) as client:
        before = service.budget.reserved
        await client.send(request(UPLOAD, token, method="POST", Content_Length=str(length)) + first)
        await until(lambda: service.budget.reserved == before + length)
        yield client


async def test_a_silent_sender_is_given_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "SILENCE", 0.2)
    async with sending(service, 100, first=b"begin") as client:
        assert (await client.reply()).matrix_error == SLOW
    await until(lambda: service.idle)


async def test_a_sender_below_the_lowest_rate_is_given_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "SILENCE", 0.3)
    async with sending(service, MIB) as client:
        for _ in range(10):
            await client.send(b"x")
            await asyncio.sleep(0.05)
        assert (await client.reply()).matrix_error == SLOW
    await until(lambda: service.idle)


async def test_a_sender_above_the_lowest_rate_has_all_the_time_he_needs(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a request may take: its deadline starts at the last byte."""
    monkeypatch.setattr(reception, "SILENCE", 0.3)
    monkeypatch.setattr(reception, "LOWEST_RATE", 1000)
    service = await serve(request_timeout=0.5)
    async with sending(service, 12 * 100) as client:
        for _ in range(11):
            await client.send(b"x" * 100)
            await asyncio.sleep(0.08)
        assert (await client.ask(b"x" * 100)).status == 200


@pytest.mark.slow
async def test_a_slow_sender_is_cut_while_others_wait(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanner.admission._PATIENCE", 0.1)
    service = await serve(media_size=2 * MIB, memory=8 * MIB, queue_wait=3)
    async with sending(service, 2 * MIB, first=b"begin") as slow:
        assert (await upload(service, bytes(MIB), BOB)).status == 200
        assert (await slow.reply()).matrix_error == SLOW
    await until(lambda: service.idle)


async def test_without_room_in_time_nothing_is_read(serve: Serve) -> None:
    service = await serve(media_size=2 * MIB, memory=8 * MIB, queue_wait=0.1)
    async with sending(service, 2 * MIB), connected(service.port) as client:
        await client.send(request(UPLOAD, BOB, method="POST", Content_Length="9", Expect="100-continue"))
        reply = await client.reply()
    assert (reply.matrix_error, reply.header("retry-after")) == (TRY_AGAIN, "5")


async def test_one_caller_leaves_half_of_the_room_to_others(serve: Serve) -> None:
    service = await serve(media_size=MIB, memory=16 * MIB, queue_wait=0.1)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(sending(service, MIB))
        assert (await upload(service, bytes(MIB), ALICE)).matrix_error == TRY_AGAIN
        assert (await upload(service, bytes(MIB), BOB)).status == 200


async def test_without_a_length_the_largest_there_may_be_is_reserved(service: Service) -> None:
    service.homeserver.script = storing()
    async with connected(service.port) as client:
        await client.send(request(UPLOAD, ALICE, method="POST", Transfer_Encoding="chunked"))
        await until(lambda: service.budget.reserved == 4 * MIB)
        assert (await client.ask(b"3\r\nabc\r\n0\r\n\r\n")).status == 200


@pytest.mark.parametrize("framing", [b"zz\r\nabc", b"3\r\nabcdef\r\n"])
async def test_bad_framing_is_the_callers_mistake(service: Service, framing: bytes) -> None:
    service.homeserver.script = storing()
    async with connected(service.port) as client:
        await client.send(request(UPLOAD, ALICE, method="POST", Transfer_Encoding="chunked"))
        await until(lambda: service.budget.reserved > 0)
        assert (await client.ask(framing)).matrix_error == (400, "M_UNKNOWN")
    await until(lambda: service.idle)
    assert len(service.homeserver.heard) == 1


async def test_a_sender_that_leaves_gives_everything_back(service: Service) -> None:
    async with sending(service, MIB, first=bytes(1000)) as client:
        client.vanish()
        await until(lambda: service.idle)


async def test_what_is_arriving_when_the_service_stops_is_let_in(service: Service) -> None:
    async with sending(service, MIB, first=bytes(1000)) as client:
        stopping = asyncio.create_task(service.site.drain(5))
        await asyncio.sleep(0.1)
        assert (await client.ask(bytes(MIB - 1000))).status == 200
        assert await client.ends()
        await stopping


@pytest.mark.slow
async def test_what_does_not_arrive_when_the_service_stops_is_to_be_sent_again(service: Service) -> None:
    async with sending(service, MIB, first=bytes(1000)) as client:
        await service.site.drain(0.1)
        reply = await client.reply()
        assert (reply.matrix_error, reply.header("retry-after")) == (TRY_AGAIN, "5")


async def test_a_sender_may_be_cut_in_the_moment_in_which_he_is_given_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[Callable[[], None]] = []
    enter = Share.enter

    def entering(share: Share, reader: Reader) -> None:
        cuts.append(reader.cut)
        enter(share, reader)

    monkeypatch.setattr(Share, "enter", entering)
    async with sending(service, 100, first=b"begin") as client:
        cuts[0]()
        await asyncio.sleep(0)  # the time is up, and the sender does not know it yet
        cuts[0]()
        assert (await client.reply()).matrix_error == SLOW
    await until(lambda: service.idle)


async def test_whoever_uses_a_piece_may_take_his_time_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that is cut meanwhile is given up at the next one."""
    monkeypatch.setattr(reception, "SILENCE", 0.1)
    share, used = Share(100, wait=0), list[bytes]()

    async def answer(asked: Request) -> Answer:
        with closing(await share.reserve(100, "alice")) as room:
            async with aclosing(arriving(asked, room, 100)) as pieces:
                async for piece in pieces:
                    await asyncio.sleep(0.2)
                    used.append(piece)
        return json_answer({})

    site = Site(
        [Route("POST", "/", answer, MATRIX)],
        publish=lambda _: None,
        request_timeout=5,
        reader_timeout=5,
        trusted_proxies=(),
    )
    port = await site.listen("127.0.0.1", 0)
    async with connected(port) as client:
        assert (await client.ask(request("/", method="POST", body=b"all"))).status == 200
        await client.send(request("/", method="POST", Content_Length="9") + b"begin")
        assert (await client.reply()).matrix_error == SLOW
    assert used == [b"all", b"begin"]
    assert share.reserved == 0
    await site.drain(0)
