"""Federated media, from a homeserver's socket to a body."""

from __future__ import annotations

import asyncio
import os

import pytest

from scanner.errors import MediaTooLarge, UpstreamFailed, UpstreamSilent
from scanner.upstream.fetch import Fetched, MediaRequest, Upstream
from scanner.upstream.transport import Caller
from tests.fake_homeserver import (
    FOREVER,
    PNG,
    FakeHomeserver,
    Script,
    Step,
    Then,
    in_turn,
    media_head,
    redirecting,
    refusing,
    saying,
    serving,
    until,
)
from tests.multipart import BOUNDARY, OBJECT, federated_head, federating, form, part
from tests.upstream.rig import QUICK, SIZE, Rig, refused, soon

WANTED = MediaRequest(
    ("federation/v1/media/download/abc",), Caller('X-Matrix origin="a"', "192.0.2.7"), multipart=True
)
WHOLE = form(OBJECT, part(PNG))


async def fetched(upstream: Upstream, seconds: float = 5) -> tuple[Fetched, bytes]:
    async with upstream.fetch(WANTED, soon(seconds)) as media:
        return media, media.body.read(0, media.body.size)


async def test_the_media_part_is_the_body(rig: Rig) -> None:
    disposition = "attachment; filename=a.png"
    upstream = await rig.upstream(federating(OBJECT, part(PNG, Content_Disposition=disposition)))
    media, content = await fetched(upstream)
    assert content == PNG
    assert (media.body.content_type, media.body.disposition) == ("image/png", disposition)
    assert media.metadata == b"{}"
    assert rig.budget.reserved == 0


async def test_the_object_is_kept_as_it_came(rig: Rig) -> None:
    upstream = await rig.upstream(
        federating(b'Content-Type: application/json; charset=utf-8\r\n\r\n{ "a":1}', part(PNG))
    )
    media, _ = await fetched(upstream)
    assert media.metadata == b'{ "a":1}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"--",
        f"a--{BOUNDARY}\r\n".encode(),
        f"\r\n--{BOUNDARY[:-1]}".encode(),
        b"\r\n" * 100_000,
        os.urandom(SIZE),
    ],
    ids=["empty", "a line", "dashes", "boundary in line", "like a boundary", "lines", "the limit"],
)
@pytest.mark.parametrize("step", [1, 7, 70_000, SIZE * 2])
async def test_media_arrive_whole_whatever_is_in_them_and_however_they_are_cut(
    rig: Rig, content: bytes, step: int
) -> None:
    whole = form(OBJECT, part(content))
    cuts = range(0, min(len(whole), 600), step) if step < 100 else range(0, len(whole), step)
    pieces: list[Step] = [whole[at : at + step] for at in cuts]
    upstream = await rig.upstream(
        saying(federated_head(len(whole)), *pieces, whole[cuts[-1] + step :]),
    )
    assert (await fetched(upstream))[1] == content


@pytest.mark.parametrize("length", ["declared", "not declared"])
@pytest.mark.parametrize(
    "end", [b"\r\n--%b--", b"\r\n--%b--\r\n", b"\r\n--%b--  \r\nepilogue"], ids=["bare", "line", "epilogue"]
)
async def test_the_end_may_be_written_in_several_ways(rig: Rig, length: str, end: bytes) -> None:
    whole = form(OBJECT, part(PNG), end=end % BOUNDARY.encode())
    declared = len(whole) if length == "declared" else None
    upstream = await rig.upstream(saying(federated_head(declared), whole, Then.HANG_UP))
    assert (await fetched(upstream))[1] == PNG


async def test_small_pieces_before_a_large_one_are_read(rig: Rig) -> None:
    whole = form(OBJECT, part(bytes(1_000_000)))
    cut = whole.index(b"\r\n\r\n\0") + 6
    small: list[Step] = [whole[:cut], 0.05, whole[cut : cut + 2], 0.05]
    upstream = await rig.upstream(saying(federated_head(len(whole)), *small, whole[cut + 2 :]))
    assert len((await fetched(upstream))[1]) == 1_000_000


# -- what is not understood ----------------------------------------------------------------------

NESTED = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nmalware\r\n--x--"
MANY = b"".join(b"X-%d: 1\r\n" % number for number in range(1000))


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (OBJECT,),
        (part(PNG),),
        (part(PNG), OBJECT),
        (OBJECT, part(PNG), part(PNG)),
        (OBJECT, part(PNG), OBJECT),
        (OBJECT, NESTED),
        (NESTED, part(PNG)),
        (OBJECT, b"Content-Type: multipart/mixed\r\n\r\n"),
        (b"\r\n{}", part(PNG)),
        (b"Content-Type: application/json\r\n\r\n", part(PNG)),
        (b"Content-Type: application/json\r\n\r\n[]", part(PNG)),
        (b"Content-Type: application/json\r\n\r\n{", part(PNG)),
        (b"Content-Type: application/json\r\n\r\n" + b"[" * 60_000, part(PNG)),
        (b"Content-Type: application/json\r\n\r\n" + "{}".encode("utf-16"), part(PNG)),
        (b'Content-Type: application/json\r\n\r\n{"a":"' + b"x" * 70_000 + b'"}', part(PNG)),
        (OBJECT, MANY + part(PNG)),
        (MANY + OBJECT, part(PNG)),
        (OBJECT, part(PNG, X="x" * 5000)),
        (OBJECT, part(f"--{BOUNDARY}".encode())),
        (OBJECT, part(f"a\r\n--{BOUNDARY}b".encode())),
        (OBJECT, b"no header at all\r\n\r\n" + PNG),
        (OBJECT, b"Content-Type: text/html\r\n" + part(PNG)),
        (OBJECT, part(PNG, Content_Length="1000")),
        (OBJECT, part(PNG, Content_Length="1")),
        (OBJECT, part(PNG, Content_Length="-1")),
        (OBJECT, part(PNG, Content_Encoding="gzip")),
        (OBJECT, part(PNG, Content_Transfer_Encoding="base64")),
        (OBJECT, part(PNG, Transfer_Encoding="chunked")),
        (b"Content-Encoding: gzip\r\n" + OBJECT, part(PNG)),
    ],
)
async def test_what_is_not_an_object_and_then_media_is_refused(rig: Rig, parts: tuple[bytes, ...]) -> None:
    upstream = await rig.upstream(federating(*parts))
    assert isinstance(await refused(fetched(upstream)), UpstreamFailed)
    assert rig.budget.reserved == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        PNG,
        WHOLE[:10],
        WHOLE[:40],
        WHOLE[: WHOLE.index(b"PNG")],
        WHOLE[:-30],
        WHOLE[:-6],
        form(OBJECT, part(PNG), end=b""),
        form(OBJECT, part(PNG), end=f"\r\n--{BOUNDARY}x--\r\n".encode()),
        WHOLE.replace(b"\r\n", b"\n"),
        b"x" * 200_000,
    ],
)
@pytest.mark.parametrize("length", ["declared", "not declared"])
async def test_a_body_that_breaks_off_is_refused(rig: Rig, body: bytes, length: str) -> None:
    declared = len(body) if length == "declared" else None
    upstream = await rig.upstream(saying(federated_head(declared), body, Then.HANG_UP))
    assert isinstance(await refused(fetched(upstream)), UpstreamFailed)


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "multipart/mixed",
        "multipart/mixed; boundary=other",
        "multipart/mixed; boundary=" + "x" * 80,
        "multipart/mixed; boundary=é",
        f"multipart/form-data; boundary={BOUNDARY}",
        f"multipart/related; boundary={BOUNDARY}",
    ],
)
async def test_another_form_is_refused(rig: Rig, content_type: str) -> None:
    upstream = await rig.upstream(federating(content_type=content_type, body=WHOLE))
    assert isinstance(await refused(fetched(upstream)), UpstreamFailed)


@pytest.mark.parametrize(
    "header", [("Content-Encoding", "gzip"), ("Content-Type", "multipart/mixed; boundary=x")]
)
async def test_an_encoded_form_or_one_of_two_types_is_refused(rig: Rig, header: tuple[str, str]) -> None:
    upstream = await rig.upstream(saying(federated_head(len(WHOLE), further=[header]), WHOLE))
    assert isinstance(await refused(fetched(upstream)), UpstreamFailed)


# -- limits --------------------------------------------------------------------------------------


async def test_media_over_the_limit_are_refused_as_their_length_tells(rig: Rig) -> None:
    upstream = await rig.upstream(saying(federated_head(SIZE + 200_000), FOREVER))
    assert isinstance(await refused(fetched(upstream)), MediaTooLarge)


@pytest.mark.parametrize("length", ["declared", "not declared"])
async def test_media_one_byte_over_the_limit_are_refused(rig: Rig, length: str) -> None:
    whole = form(OBJECT, part(bytes(SIZE + 1)))
    declared = len(whole) if length == "declared" else None
    upstream = await rig.upstream(saying(federated_head(declared), whole, Then.HANG_UP))
    assert isinstance(await refused(fetched(upstream)), MediaTooLarge)
    await until(lambda: rig.budget.reserved == 0)


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (WHOLE[:30],),
        (WHOLE[:80],),
        (*(b"X: 1\r\n", 0.1) * 20,),
        (WHOLE[:-60],),
        (WHOLE[:-20],),
    ],
)
async def test_a_homeserver_that_falls_silent_or_drips_is_given_up(rig: Rig, steps: tuple[Step, ...]) -> None:
    upstream = await rig.upstream(saying(federated_head(len(WHOLE)), *steps, FOREVER), timers=QUICK)
    assert isinstance(await refused(fetched(upstream)), UpstreamSilent)
    await rig.homeserver.until_abandoned()


async def test_a_homeserver_that_breaks_off_is_not_called_silent(rig: Rig) -> None:
    upstream = await rig.upstream(saying(federated_head(len(WHOLE)), WHOLE[:30], Then.RESET))
    assert isinstance(await refused(fetched(upstream)), UpstreamFailed)


async def test_while_there_is_no_room_the_form_is_let_go_and_asked_for_again(rig: Rig) -> None:
    taken = await rig.budget.small.reserve(rig.budget.small.capacity, "somebody")
    upstream = await rig.upstream(federating(OBJECT, part(PNG)))
    fetching = asyncio.create_task(fetched(upstream))
    await rig.homeserver.until_heard(1)
    await asyncio.sleep(0.05)
    taken.close()
    assert (await fetching)[1] == PNG
    assert len(rig.homeserver.heard) == 2


# -- media that are elsewhere --------------------------------------------------------------------


def elsewhere(homeserver: FakeHomeserver, path: str = "/abc?sig=1") -> Script:
    return federating(OBJECT, part(b"", None, Location=f"{homeserver.url}{path}"))


def listed(homeserver: FakeHomeserver) -> frozenset[str]:
    return frozenset({homeserver.url.removeprefix("http://")})


async def test_media_at_a_listed_host_are_fetched_without_credentials(rig: Rig) -> None:
    async with FakeHomeserver() as cdn:
        cdn.script = serving(PNG, "image/png", Content_Disposition="inline; filename=b.png")
        upstream = await rig.upstream(elsewhere(cdn), redirect_hosts=listed(cdn))
        media, content = await fetched(upstream)
        assert (content, media.body.content_type, media.metadata) == (PNG, "image/png", b"{}")
        assert media.body.disposition == "inline; filename=b.png"
        assert cdn.lines == ["GET /abc?sig=1"]
        assert {"authorization", "x-forwarded-for"}.isdisjoint(dict(cdn.heard[0].headers))


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:1/abc", "ftp://127.0.0.1/abc", "/abc", "", "http://[", "file:///etc/passwd"],
)
async def test_media_at_another_host_are_refused(rig: Rig, location: str) -> None:
    upstream = await rig.upstream(
        federating(OBJECT, part(PNG, None, Location=location)), redirect_hosts=frozenset({"cdn.example"})
    )
    assert isinstance(await refused(fetched(upstream)), UpstreamFailed)


async def test_two_locations_are_refused(rig: Rig) -> None:
    async with FakeHomeserver() as cdn:
        twice = f"Location: {cdn.url}/a\r\nLocation: {cdn.url}/b\r\n\r\n".encode()
        upstream = await rig.upstream(federating(OBJECT, twice), redirect_hosts=listed(cdn))
        assert isinstance(await refused(fetched(upstream)), UpstreamFailed)
        assert cdn.heard == []


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (refusing("404 Not Found", "M_NOT_FOUND"), UpstreamFailed),
        (refusing("500 Internal Server Error"), UpstreamFailed),
        (redirecting("http://127.0.0.1:1/abc"), UpstreamFailed),
        (saying(media_head(SIZE + 1), FOREVER), MediaTooLarge),
        (saying(media_head(10), b"x", Then.HANG_UP), UpstreamFailed),
    ],
)
async def test_what_fails_elsewhere_is_the_homeservers_failure(
    rig: Rig, script: Script, problem: type[Exception]
) -> None:
    async with FakeHomeserver() as cdn:
        cdn.script = script
        upstream = await rig.upstream(elsewhere(cdn), redirect_hosts=listed(cdn))
        error = await refused(fetched(upstream))
        assert isinstance(error, problem)
        assert getattr(error, "refusal", None) is None


async def test_a_listed_host_may_redirect_to_itself(rig: Rig) -> None:
    async with FakeHomeserver() as cdn:
        cdn.script = in_turn(redirecting(f"{cdn.url}/there"), serving(PNG))
        upstream = await rig.upstream(elsewhere(cdn), redirect_hosts=listed(cdn))
        assert (await fetched(upstream))[1] == PNG
        assert cdn.lines == ["GET /abc?sig=1", "GET /there"]
