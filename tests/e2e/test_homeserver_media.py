"""A real homeserver's downloads and thumbnails through the running product, judged by a real clamd.

What Synapse's own media tests expect of it is expected here of both together (docs/api.md).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from PIL import Image

from tests.e2e import samples
from tests.e2e.product import Product
from tests.e2e.synapse import Synapse, User
from tests.e2e.test_plain_media import HEADERS
from tests.raw_client import Reply, connected, request

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

MIB = 1024 * 1024
CURRENT, FROZEN = "client/v1/media", ("media/v3", "media/r0", "media/v1")
FORBIDDEN = (403, "M_FORBIDDEN")
SMALL = "?width=32&height=32&method=scale"

each_frozen = pytest.mark.parametrize("place", FROZEN)
each_place = pytest.mark.parametrize("place", [CURRENT, *FROZEN])
each_kind = pytest.mark.parametrize("kind", ["download", "thumbnail"])


class Reader:
    """A client without a library that knows nothing of a scanner: a connection for each request."""

    def __init__(self, url: str) -> None:
        self.port = urlsplit(url).port or 0

    async def ask(self, path: str, user: User | None, method: str = "GET", **headers: str) -> Reply:
        """`path` stands behind `/_matrix/`."""
        async with connected(self.port) as client:
            token = user.token if user else None
            return await client.ask(request(f"/_matrix/{path}", token, method=method, body=None, **headers))

    async def download(self, mxc: str, user: User | None, place: str = CURRENT, more: str = "") -> Reply:
        return await self.ask(f"{place}/download/{_path(mxc)}{more}", user)

    async def thumbnail(self, mxc: str, user: User | None, query: str = SMALL, place: str = CURRENT) -> Reply:
        return await self.ask(f"{place}/thumbnail/{_path(mxc)}{query}", user)


def _path(mxc: str) -> str:
    return mxc.removeprefix("mxc://")


@pytest.fixture
def reader(product: Product) -> Reader:
    return Reader(product.url)


async def told_by(synapse: Synapse, path: str, user: User | None) -> tuple[int, dict[str, Any]]:
    """What the homeserver itself answers."""
    status, content = await given_by(synapse, path, user)
    return status, dict(json.loads(content))


async def given_by(synapse: Synapse, path: str, user: User | None) -> tuple[int, bytes]:
    """The same, whatever it is."""
    headers = user.headers if user else {}
    async with (
        aiohttp.ClientSession(synapse.url, headers=headers) as session,
        session.get(f"/_matrix/{path}") as answer,
    ):
        return answer.status, await answer.read()


def picture(kind: str, content: bytes) -> Image.Image:
    """The picture of that format that this must be."""
    image = Image.open(io.BytesIO(content))
    assert image.format == kind
    return image


def animation() -> bytes:
    """A GIF of two frames."""
    frames = [Image.effect_noise((64, 64), sigma) for sigma in (50, 100)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return file.getvalue()


# -- downloads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "/", "/caf%C3%A9.png"])
async def test_clean_media_are_delivered_unchanged_under_headers_of_ours(
    synapse: Synapse, reader: Reader, alice: User, bob: User, name: str
) -> None:
    content = samples.png()
    mxc = await synapse.upload(alice, content, "image/png", "été.png")

    reply = await reader.download(mxc, bob, more=name)

    assert (reply.status, reply.body, reply.length) == (200, content, len(content))
    assert {header: reply.header(header.lower()) for header in HEADERS} == HEADERS
    assert reply.header("content-type") == "image/png"
    expected = "caf%C3%A9.png" if "caf" in name else "%C3%A9t%C3%A9.png"
    assert reply.header("content-disposition") == f"inline; filename*=UTF-8''{expected}"
    assert reply.header("x-robots-tag") == "noindex, nofollow, noarchive, noimageindex"


@pytest.mark.parametrize(("declared", "served"), [("text/html", "attachment"), ("text/plain", "inline")])
async def test_only_harmless_types_are_shown_inline(
    synapse: Synapse, reader: Reader, alice: User, declared: str, served: str
) -> None:
    mxc = await synapse.upload(alice, samples.text(), declared)

    reply = await reader.download(mxc, alice)

    assert (reply.header("content-type") or "").partition(";")[0] == declared
    assert reply.header("content-disposition") == served


async def test_a_head_says_what_a_get_would_and_a_range_is_ignored(
    synapse: Synapse, reader: Reader, alice: User
) -> None:
    content = samples.png()
    path = f"{CURRENT}/download/{_path(await synapse.upload(alice, content, 'image/png'))}"

    headed, got = await reader.ask(path, alice, "HEAD"), await reader.ask(path, alice)
    part = await reader.ask(path, alice, Range="bytes=0-9")

    without_date = [[each for each in reply.headers if each[0] != "date"] for reply in (headed, got)]
    assert without_date[0] == without_date[1]
    assert (part.status, part.body) == (200, content)


async def test_what_a_client_has_already_is_not_sent_again_to_those_who_may_have_it(
    synapse: Synapse, reader: Reader, alice: User, bob: User
) -> None:
    mxc = await synapse.upload(alice, samples.png(), "image/png")
    for path in (f"{CURRENT}/download/{_path(mxc)}", f"{CURRENT}/thumbnail/{_path(mxc)}{SMALL}"):
        etag = (await reader.ask(path, bob)).header("etag") or ""

        known = await reader.ask(path, alice, If_None_Match=etag)

        assert (known.status, known.body, known.header("etag")) == (304, b"", etag)
        frozen = path.replace(CURRENT, "media/r0")
        assert (await reader.ask(frozen, None, If_None_Match=etag)).matrix_error == (404, "M_NOT_FOUND")
        stranger = User("@mallory:example.org", "made-up")
        refused = await reader.ask(path, stranger, If_None_Match=etag)
        assert refused.matrix_error == (401, "M_UNKNOWN_TOKEN")


async def test_a_token_in_the_query_counts_unless_there_is_one_in_the_header(
    synapse: Synapse, reader: Reader, alice: User, bob: User
) -> None:
    mxc = await synapse.upload(alice, samples.text(), "text/plain")
    await synapse.logout(bob)

    assert (await reader.download(mxc, None, more=f"?access_token={alice.token}")).status == 200
    assert (await reader.download(mxc, alice, more=f"?access_token={bob.token}")).status == 200
    refused = await reader.download(mxc, bob, more=f"?access_token={alice.token}")
    assert refused.matrix_error == (401, "M_UNKNOWN_TOKEN")


@each_frozen
@each_kind
async def test_the_frozen_places_do_not_know_newer_media_with_or_without_a_token(
    synapse: Synapse, reader: Reader, alice: User, place: str, kind: str
) -> None:
    mxc = await synapse.upload(alice, samples.png(), "image/png")
    path = f"{place}/{kind}/{_path(mxc)}{SMALL}"

    for user in (alice, None):
        reply = await reader.ask(path, user)
        assert reply.matrix_error == (404, "M_NOT_FOUND")
        assert (reply.status, reply.content) == await told_by(synapse, path, user)


@each_place
@each_kind
async def test_media_from_before_authentication_are_given_to_everybody_once_judged(
    synapse: Synapse, reader: Reader, alice: User, place: str, kind: str
) -> None:
    clean = await synapse.upload(alice, samples.png(), "image/png")
    infected = await synapse.upload(alice, samples.infected_zip(), "application/zip")
    for mxc in (clean, infected):
        synapse.predate_authentication(mxc)

    for user in (alice, None):
        reply = await reader.ask(f"{place}/{kind}/{_path(clean)}{SMALL}", user)
        given = user is not None or place != CURRENT
        assert reply.status == (200 if given else 401)
        refused = await reader.download(infected, user, place)
        assert refused.matrix_error == (FORBIDDEN if given else (401, "M_MISSING_TOKEN"))


@pytest.mark.parametrize("sample", [samples.eicar, samples.infected_zip])
async def test_infected_media_are_withheld_whatever_they_are_called(
    synapse: Synapse, reader: Reader, alice: User, bob: User, sample: Callable[[], bytes]
) -> None:
    content = sample()
    mxc = await synapse.upload(alice, content, "image/png", "cat.png")

    for more in ("", "/cat.png", "?allow_redirect=true", "?timeout_ms=1"):
        reply = await reader.download(mxc, bob, more=more)
        assert reply.matrix_error == FORBIDDEN
        assert content not in reply.body


async def test_media_over_our_limit_are_refused_as_synapse_refuses_remote_ones(
    synapse: Synapse, reader: Reader, alice: User
) -> None:
    mxc = await synapse.upload(alice, bytes(20 * MIB + 1))

    assert (await reader.download(mxc, alice)).matrix_error == (502, "M_TOO_LARGE")


# -- thumbnails ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["scale", "crop"])
@pytest.mark.parametrize("size", [(32, 32), (96, 96), (640, 480)])
async def test_a_thumbnail_is_the_one_that_synapse_makes(
    synapse: Synapse, reader: Reader, alice: User, bob: User, method: str, size: tuple[int, int]
) -> None:
    mxc = await synapse.upload(alice, samples.png(), "image/png")

    query = f"?width={size[0]}&height={size[1]}&method={method}"

    reply = await reader.thumbnail(mxc, bob, query)

    assert reply.header("content-type") == "image/png"
    assert reply.header("cross-origin-resource-policy") == "cross-origin"
    assert (reply.status, reply.body) == await given_by(
        synapse, f"{CURRENT}/thumbnail/{_path(mxc)}{query}", bob
    )


@pytest.mark.parametrize(("asked", "kind", "frames"), [("true", "WEBP", 2), ("false", "PNG", 1)])
async def test_animated_thumbnails_are_those_who_ask_for_them(
    synapse: Synapse, reader: Reader, alice: User, asked: str, kind: str, frames: int
) -> None:
    mxc = await synapse.upload(alice, animation(), "image/gif")

    reply = await reader.thumbnail(mxc, alice, f"{SMALL}&animated={asked}")

    assert reply.header("content-type") == f"image/{kind.lower()}"
    assert getattr(picture(kind, reply.body), "n_frames", 1) == frames


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "M_MISSING_PARAM"),
        ("?width=32&height=x", "M_INVALID_PARAM"),
        (f"{SMALL}&animated=perhaps", "M_INVALID_PARAM"),
    ],
)
async def test_what_synapse_says_of_a_thumbnails_parameters_comes_through(
    synapse: Synapse, reader: Reader, alice: User, query: str, code: str
) -> None:
    mxc = await synapse.upload(alice, samples.png(), "image/png")

    reply = await reader.thumbnail(mxc, alice, query)

    assert reply.matrix_error == (400, code)
    assert (reply.status, reply.content) == await told_by(
        synapse, f"{CURRENT}/thumbnail/{_path(mxc)}{query}", alice
    )


async def test_there_is_no_thumbnail_of_a_text(synapse: Synapse, reader: Reader, alice: User) -> None:
    mxc = await synapse.upload(alice, samples.text(), "text/plain")

    assert (await reader.thumbnail(mxc, alice)).matrix_error == (400, "M_UNKNOWN")


async def test_a_thumbnail_of_an_infected_picture_is_judged_by_its_own_bytes(
    synapse: Synapse, reader: Reader, alice: User, bob: User
) -> None:
    """Synapse has painted it anew: what was found in the picture is not in it."""
    mxc = await synapse.upload(alice, samples.png() + samples.eicar(), "image/png")

    assert (await reader.download(mxc, bob)).matrix_error == FORBIDDEN
    thumbnail = await reader.thumbnail(mxc, bob)

    assert thumbnail.status == 200
    picture("PNG", thumbnail.body)
    assert samples.eicar() not in thumbnail.body


# -- what the homeserver says --------------------------------------------------------------------


@each_place
@each_kind
async def test_media_that_are_not_uploaded_yet_are_as_the_homeserver_says(
    synapse: Synapse, reader: Reader, alice: User, place: str, kind: str
) -> None:
    mxc = await synapse.reserve(alice)

    reply = await reader.ask(f"{place}/{kind}/{_path(mxc)}{SMALL}&timeout_ms=100", alice)

    assert reply.matrix_error == (504, "M_NOT_YET_UPLOADED")


@pytest.mark.parametrize(
    "path",
    [
        f"{CURRENT}/download/{{server}}/there-is-none",
        f"{CURRENT}/thumbnail/{{server}}/there-is-none{SMALL}",
        f"{CURRENT}/download/elsewhere.example/abc",
        "media/v3/download/elsewhere.example/abc?allow_remote=false",
        f"media/r0/thumbnail/elsewhere.example/abc{SMALL}&allow_remote=false",
        f"{CURRENT}/preview_url?url=https%3A%2F%2Fexample.org",
        "media/v3/preview_url?url=x",
    ],
)
@pytest.mark.parametrize("who", ["alice", "a stranger", "nobody"])
async def test_a_refusal_of_the_homeserver_comes_through_word_for_word(
    synapse: Synapse, reader: Reader, alice: User, path: str, who: str
) -> None:
    path = path.format(server=synapse.server_name)
    user = {"alice": alice, "a stranger": User("@mallory:example.org", "made-up"), "nobody": None}[who]

    reply = await reader.ask(path, user)

    assert reply.status >= 400
    assert (reply.status, reply.content) == await told_by(synapse, path, user)


@each_place
async def test_config_says_the_smaller_limit_everywhere(
    synapse: Synapse, reader: Reader, alice: User, place: str
) -> None:
    assert (await told_by(synapse, f"{place}/config", alice))[1] == {"m.upload.size": 50 * MIB}

    assert (await reader.ask(f"{place}/config", alice)).content == {"m.upload.size": 20 * MIB}
    assert (await reader.ask(f"{place}/config", None)).matrix_error == (401, "M_MISSING_TOKEN")


async def test_no_name_makes_a_series_of_metrics(
    synapse: Synapse, product: Product, reader: Reader, alice: User
) -> None:
    mxc = await synapse.upload(alice, samples.text(), "text/plain")
    await reader.download(mxc, alice)
    await reader.ask("media/v2/download", alice)
    before = product.metrics().count("\n")

    for number in range(20):
        await reader.download(f"mxc://s{number}.example/a{number}", alice, "media/v1", f"/{number}.png")
        await reader.ask(f"media/v{number + 4}/download/{number}", alice)

    assert product.metrics().count("\n") == before
    assert ".example" not in product.metrics()
