"""Previews of web pages that a real homeserver fetches: what is in them goes through the product."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from importlib.util import find_spec
from urllib.parse import quote

import pytest

from tests.e2e import samples
from tests.e2e.product import Product
from tests.e2e.synapse import Synapse, User
from tests.e2e.test_homeserver_media import CURRENT, FORBIDDEN, FROZEN, Reader
from tests.fake_homeserver import FakeHomeserver, Heard, Step, serving

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(180),
    pytest.mark.skipif(find_spec("bs4") is None, reason="Synapse's previews need beautifulsoup4"),
]


@pytest.fixture(scope="module")
def previewing() -> Iterator[Synapse]:
    """It may fetch pages from this machine."""
    settings = {
        "url_preview_enabled": True,
        "url_preview_ip_range_blacklist": ["192.0.2.0/24"],
        "ip_range_blacklist": [],
    }
    with Synapse(settings) as running:
        yield running


@pytest.fixture(scope="module")
def reader(previewing: Synapse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with Product(tmp_path_factory.mktemp("previews"), previewing.url) as running:
        yield Reader(running.url)


@pytest.fixture
async def website() -> AsyncIterator[FakeHomeserver]:
    """A page, and `picture.png` in it."""
    async with FakeHomeserver() as site:
        yield site


@pytest.fixture
async def carol(previewing: Synapse) -> User:
    return await previewing.register(f"carol-{secrets.token_hex(4)}")


@pytest.mark.parametrize("place", [CURRENT, *FROZEN])
@pytest.mark.parametrize("infected", [False, True])
async def test_the_picture_of_a_page_is_judged_like_any_other(
    reader: Reader, website: FakeHomeserver, carol: User, place: str, *, infected: bool
) -> None:
    content = samples.png() + (samples.eicar() if infected else b"")

    def page(heard: Heard) -> Iterable[Step]:
        if heard.target.endswith(".png"):
            return serving(content, "image/png")(heard)
        html = (
            b'<html><head><title>Cats</title><meta property="og:image" content="/picture.png"></head></html>'
        )
        return serving(html, "text/html")(heard)

    website.script = page
    preview = await reader.ask(f"{place}/preview_url?url={quote(website.url, safe='')}%2F{place[-2:]}", carol)

    assert (preview.status, preview.content["og:title"]) == (200, "Cats")
    picture = await reader.download(preview.content["og:image"], carol)
    assert infected or (picture.status, picture.body) == (200, content)
    assert not infected or picture.matrix_error == FORBIDDEN
    thumbnail = await reader.thumbnail(preview.content["og:image"], carol)
    assert (thumbnail.status, samples.eicar() in thumbnail.body) == (200, False)


async def test_a_page_that_synapse_may_not_fetch_is_refused_in_its_words(reader: Reader, carol: User) -> None:
    reply = await reader.ask(f"{CURRENT}/preview_url?url=http%3A%2F%2F192.0.2.1", carol)

    assert reply.matrix_error == (403, "M_UNKNOWN")
