from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from scanner.admission import Budget
from scanner.errors import (
    AccessDenied,
    MediaNotFound,
    MediaTooLarge,
    ScannerError,
    Throttled,
    Unavailable,
    UpstreamError,
    UpstreamFailed,
    UpstreamSilent,
)
from scanner.events import FlightJoined
from scanner.media import BodyWriter, Bytes
from scanner.upstream import fetch as fetch_module
from scanner.upstream.connection import Timers
from scanner.upstream.fetch import Endpoint, MediaRequest
from tests.fake_homeserver import (
    CHUNKED_HEAD,
    FOREVER,
    LAST_CHUNK,
    PNG,
    FakeHomeserver,
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
)
from tests.upstream.rig import (
    ALICE,
    BOB,
    MIB,
    NOT_FOUND,
    QUICK,
    SIZE,
    UNKNOWN_ENDPOINT,
    Rig,
    fetched,
    refused,
    soon,
    wanted,
)

# -- what is asked -------------------------------------------------------------------------------


async def test_a_token_is_shown_to_client_v1_alone(rig: Rig) -> None:
    upstream = await rig.upstream(NOT_FOUND)
    assert isinstance(await refused(fetched(upstream)), MediaNotFound)
    assert rig.homeserver.lines == ["GET /_matrix/client/v1/media/download/example.org/abc"]


@pytest.mark.parametrize("missing", [NOT_FOUND, refusing("404 Not Found"), UNKNOWN_ENDPOINT])
async def test_without_a_token_r0_is_asked_after_v3(rig: Rig, missing: Script) -> None:
    upstream = await rig.upstream(by_endpoint(v3=missing, r0=serving(PNG)))
    assert await fetched(upstream, wanted(None)) == PNG
    assert rig.homeserver.lines == [
        "GET /_matrix/media/v3/download/example.org/abc",
        "GET /_matrix/media/r0/download/example.org/abc",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        serving(PNG),
        refusing("403 Forbidden", "M_FORBIDDEN"),
        refusing("400 Bad Request", "M_INVALID_PARAM"),
        refusing("401 Unauthorized", "M_MISSING_TOKEN"),
        refusing("500 Internal Server Error", "M_UNKNOWN"),
    ],
)
async def test_r0_is_asked_after_no_other_answer(rig: Rig, answer: Script) -> None:
    upstream = await rig.upstream(by_endpoint(v3=answer))
    with suppress(UpstreamError):
        await fetched(upstream, wanted(None))
    assert rig.homeserver.asked == ["GET v3"]


async def test_headers_are_built(rig: Rig) -> None:
    upstream = await rig.upstream()
    await fetched(upstream, wanted(client_ip="192.0.2.7"))
    assert sorted(rig.homeserver.heard[0].headers) == [
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
        ("authorization", ALICE),
        ("host", f"127.0.0.1:{rig.homeserver.port}"),
        ("user-agent", "matrix-media-scanner"),
        ("x-forwarded-for", "192.0.2.7"),
    ]


@pytest.mark.parametrize(
    ("origin", "query", "filename", "target"),
    [
        ("example.org", "width=%41&a=b%2Fc&&x=+", None, "example.org/abc?width=%41&a=b%2Fc&&x=+"),
        ("example.org:8448", "", "a%20b.png", "example.org:8448/abc/a%20b.png"),
        ("[2001:db8::1]:8448", "", None, "[2001:db8::1]:8448/abc"),
        ("192.0.2.1", "timeout_ms=1", None, "192.0.2.1/abc?timeout_ms=1"),
    ],
)
async def test_target_is_not_rewritten(
    rig: Rig, origin: str, query: str, filename: str | None, target: str
) -> None:
    """URL libraries decode `%41`, resolve dots and sort out what they find odd."""
    upstream = await rig.upstream()
    await fetched(upstream, wanted(origin=origin, query=query, filename=filename))
    assert rig.homeserver.heard[0].target == f"/_matrix/client/v1/media/download/{target}"


async def test_thumbnails_have_an_endpoint_of_their_own(rig: Rig) -> None:
    upstream = await rig.upstream()
    await fetched(upstream, wanted(endpoint=Endpoint.THUMBNAIL, query="width=1&height=2&method=crop"))
    target = "/_matrix/client/v1/media/thumbnail/example.org/abc?width=1&height=2&method=crop"
    assert rig.homeserver.heard[0].target == target


async def test_a_cookie_is_never_sent_back(rig: Rig) -> None:
    """By name, because no cookie jar takes one from an address."""
    upstream = await rig.upstream(
        serving(PNG, Set_Cookie="session=1; Path=/"), url=f"http://localhost:{rig.homeserver.port}"
    )
    await fetched(upstream)
    await fetched(upstream)
    assert [heard.header("cookie") for heard in rig.homeserver.heard] == [None, None]


async def test_connections_are_kept(rig: Rig) -> None:
    upstream = await rig.upstream(in_turn(NOT_FOUND, serving(PNG)))
    await refused(fetched(upstream))
    await fetched(upstream)
    await fetched(upstream)
    assert len({heard.connection for heard in rig.homeserver.heard}) == 1


async def test_held_downloads_keep_nobody_waiting(rig: Rig) -> None:
    """Aiohttp would open 100 connections and no more."""
    upstream = await rig.upstream(by_method(GET=saying(FOREVER), HEAD=serving(PNG)))
    held = [asyncio.create_task(fetched(upstream, wanted(f"Bearer {number}"))) for number in range(120)]
    await rig.homeserver.until_heard(120)
    await upstream.authorise(wanted(), soon(1))
    for fetch in held:
        fetch.cancel()
    await rig.homeserver.until_abandoned(120)


# -- sizes ---------------------------------------------------------------------------------------


def declared(size: int) -> Script:
    return serving(bytes(size))


def chunked(size: int) -> Script:
    return saying(CHUNKED_HEAD, chunk(bytes(size)), LAST_CHUNK)


def until_closed(size: int) -> Script:
    return saying(head(headers=[("Content-Type", "image/png")]), bytes(size), Then.HANG_UP)


@pytest.mark.parametrize("framed", [declared, chunked, until_closed])
async def test_the_limit_is_accepted_and_one_byte_more_is_not(
    rig: Rig, framed: Callable[[int], Script]
) -> None:
    upstream = await rig.upstream(framed(SIZE))
    assert await fetched(upstream) == bytes(SIZE)
    rig.homeserver.script = framed(SIZE + 1)
    assert isinstance(await refused(fetched(upstream)), MediaTooLarge)


async def test_what_is_declared_too_large_is_not_read(rig: Rig) -> None:
    upstream = await rig.upstream(saying(media_head(SIZE + 1), FOREVER))
    assert isinstance(await refused(fetched(upstream, seconds=1)), MediaTooLarge)
    await rig.homeserver.until_abandoned()


async def test_at_most_64_kib_of_an_endless_body_are_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    class Recorder(BodyWriter):
        def write(self, piece: Bytes) -> None:
            super().write(piece)
            kept.append(self.size)

    monkeypatch.setattr(fetch_module, "BodyWriter", Recorder)
    endless = itertools.repeat(chunk(bytes(MIB)))
    upstream = await rig.upstream(lambda heard: itertools.chain([CHUNKED_HEAD], endless))
    assert isinstance(await refused(fetched(upstream)), MediaTooLarge)
    assert SIZE < max(kept) <= SIZE + 64 * 1024
    await rig.homeserver.until_abandoned()


async def test_what_is_declared_is_reserved_and_no_more(rig: Rig) -> None:
    upstream = await rig.upstream()
    async with upstream.fetch(wanted(), soon()):
        assert rig.budget.reserved == len(PNG)


async def test_what_is_not_declared_is_given_back(rig: Rig) -> None:
    upstream = await rig.upstream(saying(CHUNKED_HEAD, chunk(PNG), 0.1, LAST_CHUNK))
    fetch = asyncio.create_task(fetched(upstream))
    await rig.homeserver.until_heard(1)
    await asyncio.sleep(0.05)
    assert rig.budget.reserved == SIZE
    await fetch
    assert rig.budget.reserved == 0


# -- timers --------------------------------------------------------------------------------------

DRIP: tuple[Step, ...] = (0.1, b"x") * 99
SILENT: dict[str, tuple[Step, ...]] = {
    "silent": (FOREVER,),
    "one byte of a header now and then": (b"HTTP/1.1 200 OK\r\nA: ", *DRIP),
    "silent after its head": (media_head(10), FOREVER),
    "silent in its body": (media_head(10), b"12345", FOREVER),
    "one byte of a body now and then": (media_head(99), *DRIP),
}


@pytest.mark.parametrize("steps", SILENT.values(), ids=SILENT)
async def test_a_silent_or_dripping_homeserver_is_given_up(rig: Rig, steps: tuple[Step, ...]) -> None:
    upstream = await rig.upstream(saying(*steps), timers=QUICK)
    began = time.monotonic()
    assert type(await refused(fetched(upstream))) is UpstreamSilent
    assert time.monotonic() - began < 0.9
    await rig.homeserver.until_abandoned()


async def test_a_slow_first_byte_may_take_longer_than_a_pause(rig: Rig) -> None:
    """Synapse is silent while it fetches a remote file."""
    upstream = await rig.upstream(saying(0.25, media_head(len(PNG)), PNG), timers=QUICK)
    assert await fetched(upstream) == PNG


async def test_the_deadline_counts_against_the_homeserver_while_it_is_waited_for(rig: Rig) -> None:
    upstream = await rig.upstream(saying(FOREVER))
    assert type(await refused(fetched(upstream, seconds=0.1))) is UpstreamSilent


async def test_waiting_for_a_share_is_overload(rig: Rig) -> None:
    upstream = await rig.upstream(saying(CHUNKED_HEAD, chunk(PNG), LAST_CHUNK))
    full = await rig.budget.downloads.reserve(rig.budget.downloads.capacity, "somebody")
    error = await refused(fetched(upstream))
    assert isinstance(error, Unavailable)
    assert error.cause == "overload"
    full.close()


async def test_waiting_for_a_share_beyond_the_deadline_is_not_the_homeservers_fault(rig: Rig) -> None:
    upstream = await rig.upstream(saying(CHUNKED_HEAD, chunk(PNG), LAST_CHUNK))
    full = await rig.budget.downloads.reserve(rig.budget.downloads.capacity, "somebody")
    error = await refused(fetched(upstream, seconds=0.1))
    assert isinstance(error, Unavailable)
    assert error.cause == "timeout"
    full.close()


async def test_waiting_for_a_share_does_not_run_the_homeservers_timers(rig: Rig) -> None:
    timers = Timers(first_byte=0.3, idle=0.1, total=0.1)
    upstream = await rig.upstream(saying(CHUNKED_HEAD, chunk(PNG), LAST_CHUNK), timers=timers)
    full = await rig.budget.downloads.reserve(rig.budget.downloads.capacity, "somebody")
    asyncio.get_running_loop().call_later(0.15, full.close)
    assert await fetched(upstream) == PNG


async def full_for(rig: Rig, seconds: float) -> None:
    """Fill the share for bodies of unknown length, for a while."""
    full = await rig.budget.downloads.reserve(rig.budget.downloads.capacity, "somebody")
    asyncio.get_running_loop().call_later(seconds, full.close)


async def test_a_response_is_not_held_while_its_body_waits_for_room(rig: Rig) -> None:
    """A hundred of them would hold tens of megabytes that nobody has accounted for."""
    upstream = await rig.upstream(saying(CHUNKED_HEAD, chunk(PNG), FOREVER))
    await full_for(rig, 0.15)
    fetch = asyncio.create_task(fetched(upstream))
    await rig.homeserver.until_abandoned()
    rig.homeserver.script = saying(CHUNKED_HEAD, chunk(PNG), LAST_CHUNK)
    assert await fetch == PNG
    assert len(rig.homeserver.heard) == 2


async def test_a_body_that_grew_while_it_waited_for_room_is_not_read(rig: Rig) -> None:
    size = Budget.SMALL + 1
    upstream = await rig.upstream(saying(media_head(size), FOREVER))
    await full_for(rig, 0.15)
    fetch = asyncio.create_task(fetched(upstream))
    await rig.homeserver.until_abandoned()
    rig.homeserver.script = saying(media_head(size + 1), bytes(size + 1))
    assert isinstance(await refused(fetch), UpstreamFailed)
    assert rig.budget.reserved == 0


async def test_who_is_refused_after_the_wait_for_room_is_refused(rig: Rig) -> None:
    upstream = await rig.upstream(saying(CHUNKED_HEAD, chunk(PNG), FOREVER))
    await full_for(rig, 0.15)
    fetch = asyncio.create_task(fetched(upstream))
    await rig.homeserver.until_abandoned()
    rig.homeserver.script = refusing("401 Unauthorized", "M_UNKNOWN_TOKEN")
    assert isinstance(await refused(fetch), AccessDenied)
    assert rig.budget.reserved == 0


# -- redirects -----------------------------------------------------------------------------------


async def test_a_listed_host_is_followed_without_the_token(rig: Rig) -> None:
    async with FakeHomeserver() as cdn:
        upstream = await rig.upstream(
            redirecting(f"{cdn.url}/file?signature=%41"), redirect_hosts=frozenset({f"127.0.0.1:{cdn.port}"})
        )
        assert await fetched(upstream, wanted(client_ip="192.0.2.7")) == PNG
        assert cdn.lines == ["GET /file?signature=%41"]
        assert cdn.heard[0].header("authorization") is None
        assert cdn.heard[0].header("x-forwarded-for") is None


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
@pytest.mark.parametrize(
    "location",
    [
        "{cdn}/file",
        "/_matrix/elsewhere",
        "file:///etc/passwd",
        "ftp://listed.example/",
        "http://listed.example@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@listed.example/",
        "http://[",
        "",
    ],
)
async def test_nobody_else_is_asked(rig: Rig, status: str, location: str) -> None:
    async with FakeHomeserver() as cdn:
        location = location.format(cdn=cdn.url, port=cdn.port)
        upstream = await rig.upstream(
            redirecting(location, status), redirect_hosts=frozenset({"listed.example"})
        )
        assert type(await refused(fetched(upstream))) is UpstreamFailed
        assert cdn.heard == []
        assert len(rig.homeserver.heard) == 1


async def test_a_redirect_loop_ends(rig: Rig) -> None:
    hosts = frozenset({f"127.0.0.1:{rig.homeserver.port}"})
    upstream = await rig.upstream(redirecting(f"{rig.homeserver.url}/again"), redirect_hosts=hosts)
    assert type(await refused(fetched(upstream))) is UpstreamFailed
    assert len(rig.homeserver.heard) == 4


# -- sharing -------------------------------------------------------------------------------------


async def test_the_same_request_is_sent_once(rig: Rig) -> None:
    upstream = await rig.upstream(saying(media_head(len(PNG)), 0.05, PNG))
    requests = [wanted(client_ip=f"192.0.2.{number}") for number in range(5)]
    assert await asyncio.gather(*(fetched(upstream, request) for request in requests)) == [PNG] * 5
    assert len(rig.homeserver.heard) == 1
    assert rig.events.count(FlightJoined("local")) == 4


@pytest.mark.parametrize(
    "other",
    [
        wanted(BOB),
        wanted(None),
        wanted(endpoint=Endpoint.THUMBNAIL),
        wanted(query="width=1"),
        wanted(origin="example.com"),
    ],
)
async def test_another_request_is_sent_itself(rig: Rig, other: MediaRequest) -> None:
    upstream = await rig.upstream(saying(media_head(len(PNG)), 0.05, PNG))
    await asyncio.gather(fetched(upstream), fetched(upstream, other))
    assert len(rig.homeserver.heard) == 2


async def test_one_callers_refusal_never_reaches_another(rig: Rig) -> None:
    refusal = refusing("401 Unauthorized", "M_UNKNOWN_TOKEN")
    upstream = await rig.upstream(
        by_token(
            {ALICE: lambda heard: (0.05, *refusal(heard)), BOB: lambda heard: (0.05, *serving(PNG)(heard))}
        )
    )
    denied, given = await asyncio.gather(
        refused(fetched(upstream, wanted(ALICE))), fetched(upstream, wanted(BOB))
    )
    assert isinstance(denied, AccessDenied)
    assert given == PNG


async def test_a_shared_fetch_survives_whoever_came_first(rig: Rig) -> None:
    upstream = await rig.upstream(saying(media_head(len(PNG)), 0.1, PNG))
    leader = asyncio.create_task(fetched(upstream))
    await rig.homeserver.until_heard(1)
    follower = asyncio.create_task(fetched(upstream))
    await asyncio.sleep(0)
    leader.cancel()
    assert await follower == PNG
    assert len(rig.homeserver.heard) == 1


async def test_a_fetch_ends_with_its_last_caller(rig: Rig) -> None:
    upstream = await rig.upstream(saying(media_head(SIZE), b"12345", FOREVER))
    callers = [asyncio.create_task(fetched(upstream)) for _ in range(2)]
    await rig.homeserver.until_heard(1)
    await asyncio.sleep(0.05)
    assert rig.budget.reserved == SIZE
    for caller in callers:
        caller.cancel()
    await rig.homeserver.until_abandoned()
    assert rig.budget.reserved == 0


# -- authorising ---------------------------------------------------------------------------------

BROKEN_HEADS: dict[str, Script] = {
    "404": NOT_FOUND,
    "405": refusing("405 Method Not Allowed"),
    "501": refusing("501 Not Implemented"),
    "500": refusing("500 Internal Server Error"),
    "hangs up": saying(Then.HANG_UP),
    "resets": saying(Then.RESET),
    "no HTTP": saying(b"what?\r\n\r\n", Then.HANG_UP),
}


async def test_a_head_authorises(rig: Rig) -> None:
    upstream = await rig.upstream()
    await upstream.authorise(wanted(), soon())
    assert rig.homeserver.asked == ["HEAD client/v1"]
    assert rig.homeserver.heard[0].header("authorization") == ALICE


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
async def test_the_homeservers_own_redirect_authorises(rig: Rig, status: str) -> None:
    upstream = await rig.upstream(redirecting("https://cdn.example/file", status))
    await upstream.authorise(wanted(), soon())
    assert rig.homeserver.asked == ["HEAD client/v1"]


@pytest.mark.parametrize("broken", BROKEN_HEADS.values(), ids=BROKEN_HEADS)
async def test_a_get_authorises_where_a_head_does_not_work(rig: Rig, broken: Script) -> None:
    upstream = await rig.upstream(by_method(HEAD=broken, GET=serving(PNG)))
    await upstream.authorise(wanted(), soon())
    tried, first, *_ = dict.fromkeys(rig.homeserver.asked)  # where it hangs up, aiohttp asks twice
    assert (tried, first) == ("HEAD client/v1", "GET client/v1")
    rig.homeserver.heard.clear()
    await upstream.authorise(wanted(), soon())
    assert rig.homeserver.asked == ["GET client/v1"]


async def test_a_head_is_tried_again_after_a_while(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "_HEAD_DISTRUST", 0.1)
    upstream = await rig.upstream(by_method(HEAD=NOT_FOUND, GET=serving(PNG)))
    await upstream.authorise(wanted(), soon())
    await upstream.authorise(wanted(), soon())
    await asyncio.sleep(0.11)
    await upstream.authorise(wanted(), soon())
    heads = [asked.startswith("HEAD") for asked in rig.homeserver.asked]
    assert heads == [True, False, False, True, False]


@pytest.mark.parametrize("broken", BROKEN_HEADS.values(), ids=BROKEN_HEADS)
async def test_a_get_refuses_where_a_head_does_not_work(rig: Rig, broken: Script) -> None:
    denied = refusing("401 Unauthorized", "M_UNKNOWN_TOKEN")
    upstream = await rig.upstream(by_method(HEAD=broken, GET=denied))
    assert isinstance(await refused(upstream.authorise(wanted(), soon())), AccessDenied)


async def test_a_refused_caller_does_not_make_heads_distrusted(rig: Rig) -> None:
    upstream = await rig.upstream(NOT_FOUND)
    assert isinstance(await refused(upstream.authorise(wanted(), soon())), MediaNotFound)
    assert isinstance(await refused(upstream.authorise(wanted(), soon())), MediaNotFound)
    assert rig.homeserver.asked == ["HEAD client/v1", "GET client/v1"] * 2


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (refusing("401 Unauthorized"), AccessDenied),
        (refusing("429 Too Many Requests", Retry_After="3"), Throttled),
    ],
)
async def test_a_head_refuses(rig: Rig, refusal: Script, expected: type[ScannerError]) -> None:
    upstream = await rig.upstream(refusal)
    assert type(await refused(upstream.authorise(wanted(), soon()))) is expected
    assert rig.homeserver.asked == ["HEAD client/v1"]


async def test_a_silent_homeserver_authorises_nobody(rig: Rig) -> None:
    upstream = await rig.upstream(saying(FOREVER), timers=QUICK)
    assert type(await refused(upstream.authorise(wanted(), soon()))) is UpstreamSilent
    assert type(await refused(upstream.authorise(wanted(), soon(0.1)))) is UpstreamSilent


async def test_to_authorise_reads_no_body(rig: Rig) -> None:
    upstream = await rig.upstream(by_method(HEAD=NOT_FOUND, GET=saying(media_head(SIZE), FOREVER)))
    await upstream.authorise(wanted(), soon(1))
    await rig.homeserver.until_abandoned()


async def test_without_a_token_a_head_asks_v3_then_r0(rig: Rig) -> None:
    upstream = await rig.upstream(by_endpoint(v3=NOT_FOUND, r0=serving(PNG)))
    await upstream.authorise(wanted(None), soon())
    assert rig.homeserver.asked == ["HEAD v3", "HEAD r0"]


# -- events --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (serving(PNG), "200"),
        (NOT_FOUND, "404"),
        (saying(FOREVER), "timeout"),
        (saying(Then.HANG_UP), "error"),
    ],
)
async def test_every_answer_of_the_homeserver_is_an_event(rig: Rig, script: Script, code: str) -> None:
    upstream = await rig.upstream(script, timers=QUICK)
    with suppress(UpstreamError):
        await fetched(upstream)
    assert rig.codes() == [code]
