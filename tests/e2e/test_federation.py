"""Two homeservers that federate: what is infected on one never reaches a user of the other.

Before Ours stands the product, on all paths of media; Theirs knows nothing of a scanner. Media are uploaded
to the homeservers themselves, as if they had been there before the product was.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import aiohttp
import pytest
from yarl import URL

from tests.certificates import Authority
from tests.e2e import samples
from tests.e2e.federation import FederatingSynapse, Front
from tests.e2e.process import free_ports
from tests.e2e.product import Product
from tests.e2e.scanner_api import Reply
from tests.e2e.synapse import User
from tests.multipart import content_of, parts_of

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

LIMIT = 2 * 1024 * 1024
FEDERATED = "/_matrix/federation/v1/media"
SIZE = "width=32&height=32&method=crop"
NOTHING: Mapping[str, str] = {}


def eicar() -> bytes:
    """Unlike any other, so that it can be looked for on a disk."""
    return samples.eicar() + secrets.token_bytes(32)


INFECTED = pytest.mark.parametrize("sample", [eicar, samples.infected_zip])


@dataclass(frozen=True)
class Federation:
    """Both servers, and what stands before Ours."""

    ours: FederatingSynapse
    theirs: FederatingSynapse
    product: Product
    front: Front
    authority: Authority

    @property
    def door(self) -> str:
        """Where other servers ask Ours."""
        return f"https://{self.ours.server_name}"

    def judged(self, verdict: str) -> float:
        """How often something was judged on its way to another server."""
        return self.product.metric("scans_total", source="federation", verdict=verdict)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    our_port, their_port = free_ports(2)
    with ExitStack() as stack:
        ours = stack.enter_context(FederatingSynapse(our_port, authority))
        theirs = stack.enter_context(FederatingSynapse(their_port, authority))
        settings = {"limits": {"media_size": LIMIT}}
        product = stack.enter_context(Product(tmp_path_factory.mktemp("product"), ours.url, settings))
        tls = authority.server("localhost")
        front = stack.enter_context(Front(our_port, tls, ours.url, product.url))
        stack.enter_context(Front(their_port, tls, theirs.url, theirs.url))
        yield Federation(ours, theirs, product, front, authority)


@pytest.fixture
async def alice(federation: Federation) -> User:
    """Of Ours."""
    return await federation.ours.register(f"alice-{secrets.token_hex(4)}")


@pytest.fixture
async def bob(federation: Federation) -> User:
    """Of Theirs."""
    return await federation.theirs.register(f"bob-{secrets.token_hex(4)}", admin=True)


class Asking:
    """Requests as they are written here, byte for byte."""

    def __init__(self, federation: Federation, session: aiohttp.ClientSession) -> None:
        self._federation = federation
        self._session = session

    async def media(self, base: str, mxc: str, user: User, kind: str = "download", query: str = "") -> Reply:
        """As a user asks a homeserver."""
        path = f"/_matrix/client/v1/media/{kind}/{mxc.removeprefix('mxc://')}?{query}"
        return await self._ask("GET", base + path, user.headers)

    async def signed(self, target: str, signed: str | None = None, method: str = "GET") -> Reply:
        """As Theirs asks Ours; what it signs may be another target."""
        ours, theirs = self._federation.ours, self._federation.theirs
        authorization = theirs.signed(FEDERATED + (signed or target), ours.server_name)
        return await self.federated(target, {"Authorization": authorization}, method)

    async def federated(self, target: str, headers: Mapping[str, str], method: str = "GET") -> Reply:
        """As anybody asks Ours."""
        return await self._ask(method, self._federation.door + FEDERATED + target, headers)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str]) -> Reply:
        async with self._session.request(method, URL(url, encoded=True), headers=headers) as answer:
            return Reply(answer.status, answer.headers, await answer.read())


@pytest.fixture
async def ask(federation: Federation) -> AsyncIterator[Asking]:
    tls = ssl.create_default_context(cafile=federation.authority.certificate)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        yield Asking(federation, session)


def media_id(mxc: str) -> str:
    return mxc.rpartition("/")[2]


def media_in(reply: Reply) -> bytes:
    assert reply.status == 200
    metadata, media = parts_of(reply.headers["Content-Type"], reply.body)
    assert content_of(metadata) == b"{}"
    return content_of(media)


# -- Ours has the product: we serve no malware to others ----------------------------------------


@pytest.mark.parametrize(
    ("sample", "content_type", "filename", "disposition"),
    [
        (
            samples.text,
            "text/plain; charset=UTF-8",
            "été 1.txt",
            "inline; filename*=utf-8''%C3%A9t%C3%A9%201.txt",
        ),
        (samples.png, "image/png", "a.png", "inline; filename=a.png"),
        (samples.zeros, "application/x-zeros", None, "attachment"),
        (lambda: os.urandom(300_000), "application/octet-stream", "x.bin", "attachment; filename=x.bin"),
    ],
    ids=["text", "picture", "large", "opaque"],
)
async def test_media_reach_a_user_of_the_other_server_with_name_and_type(
    federation: Federation,
    ask: Asking,
    alice: User,
    bob: User,
    sample: Callable[[], bytes],
    content_type: str,
    filename: str | None,
    disposition: str,
) -> None:
    content = sample()
    mxc = await federation.ours.upload(alice, content, content_type, filename)

    reply = await ask.media(federation.theirs.url, mxc, bob)

    assert (reply.status, reply.body) == (200, content)
    assert reply.headers["Content-Type"] == content_type
    assert reply.headers["Content-Disposition"] == disposition


@INFECTED
@pytest.mark.parametrize("kind", ["download", "thumbnail"])
async def test_infected_media_do_not_reach_the_other_server(
    federation: Federation, ask: Asking, alice: User, bob: User, sample: Callable[[], bytes], kind: str
) -> None:
    content = sample()
    mxc = await federation.ours.upload(alice, content, "image/png")
    infected = federation.judged("infected")

    reply = await ask.media(federation.theirs.url, mxc, bob, kind, SIZE)

    assert (reply.status, reply.content["errcode"]) == (502, "M_UNKNOWN")
    assert federation.judged("infected") == infected + 1
    assert federation.ours.stores(content)
    assert not federation.theirs.stores(content)


async def test_what_is_withheld_is_an_alert_under_our_servers_name(
    federation: Federation, ask: Asking, alice: User, bob: User
) -> None:
    mxc = await federation.ours.upload(alice, samples.infected_zip(), "application/zip")
    await ask.media(federation.theirs.url, mxc, bob)

    lines = [json.loads(line) for line in federation.product.output(until=mxc).splitlines() if mxc in line]
    [alert] = [line for line in lines if line.get("event", {}).get("kind") == "alert"]

    assert alert["media_scanner"]["source"] == "federation"
    assert federation.product.metric("detections_total", source="federation") >= 1


@pytest.mark.parametrize("content", [eicar, lambda: bytes(LIMIT + 1)], ids=["infected", "too large"])
async def test_the_other_server_does_not_think_us_down_for_what_we_refuse(
    federation: Federation, ask: Asking, alice: User, bob: User, content: Callable[[], bytes]
) -> None:
    mxc = await federation.ours.upload(alice, content())

    assert (await ask.media(federation.theirs.url, mxc, bob)).status == 502
    assert not await federation.theirs.thinks_down(federation.ours.server_name, bob)


async def test_for_any_5xx_it_would(federation: Federation, ask: Asking, alice: User, bob: User) -> None:
    """Synapse's own answer to who is too early is one."""
    mxc = await federation.ours.reserve(alice)

    assert (await ask.media(federation.theirs.url, mxc, bob, query="timeout_ms=1")).status == 502
    assert await federation.theirs.thinks_down(federation.ours.server_name, bob)

    await federation.theirs.thinks_up(federation.ours.server_name, bob)


async def test_media_of_exactly_the_limit_reach_the_other_server(
    federation: Federation, ask: Asking, alice: User, bob: User
) -> None:
    content = samples.text().ljust(LIMIT, b".")
    mxc = await federation.ours.upload(alice, content, "text/plain")

    assert (await ask.media(federation.theirs.url, mxc, bob)).body == content


@pytest.mark.parametrize(("sample", "status"), [(samples.text, 200), (samples.infected_zip, 502)])
async def test_a_server_that_finds_no_federated_media_asks_where_users_did(
    federation: Federation, ask: Asking, alice: User, bob: User, sample: Callable[[], bytes], status: int
) -> None:
    mxc = await federation.ours.upload(alice, sample(), "application/octet-stream")

    federation.front.old = True
    reply = await ask.media(federation.theirs.url, mxc, bob)
    federation.front.old = False

    assert reply.status == status
    assert (
        f"/_matrix/media/v3/download/{mxc.removeprefix('mxc://')}?allow_remote=false" in federation.ours.log()
    )


# -- what other servers sign ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?timeout_ms=20000",
        "?timeout_ms=99999999",
        "?timeout_ms=%31000&a=%2f%2F&b=%C3%A9+%20&c=%7e~&&;=&d",
        "?access_token=x&allow_redirect=true;b",
    ],
)
async def test_the_signature_holds_whatever_the_query_looks_like(
    federation: Federation, ask: Asking, alice: User, query: str
) -> None:
    content = samples.text()
    mxc = await federation.ours.upload(alice, content, "text/plain")

    assert media_in(await ask.signed(f"/download/{media_id(mxc)}{query}")) == content


async def test_a_percent_encoded_media_id_is_that_media(
    federation: Federation, ask: Asking, alice: User
) -> None:
    content = samples.text()
    name = media_id(await federation.ours.upload(alice, content, "text/plain"))

    assert media_in(await ask.signed(f"/download/%{ord(name[0]):x}{name[1:]}")) == content


async def test_a_federated_thumbnail_is_the_homeservers(
    federation: Federation, ask: Asking, alice: User
) -> None:
    mxc = await federation.ours.upload(alice, samples.png(), "image/png")

    thumbnail = media_in(await ask.signed(f"/thumbnail/{media_id(mxc)}?{SIZE}"))

    assert thumbnail[16:24] == bytes([0, 0, 0, 32, 0, 0, 0, 32])


async def test_head_says_the_length_to_who_signed_a_get(
    federation: Federation, ask: Asking, alice: User
) -> None:
    mxc = await federation.ours.upload(alice, samples.text(), "text/plain")

    reply = await ask.signed(f"/download/{media_id(mxc)}", method="HEAD")

    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["Content-Length"]) > len(samples.text())


async def test_infected_media_are_withheld_from_who_signs(
    federation: Federation, ask: Asking, alice: User
) -> None:
    mxc = await federation.ours.upload(alice, samples.infected_zip(), "application/zip")

    reply = await ask.signed(f"/download/{media_id(mxc)}")

    assert (reply.status, reply.content["errcode"]) == (403, "M_FORBIDDEN")


async def test_another_query_than_the_signed_one_is_refused_by_the_homeserver(
    federation: Federation, ask: Asking, alice: User
) -> None:
    target = f"/download/{media_id(await federation.ours.upload(alice, samples.text()))}"

    reply = await ask.signed(f"{target}?timeout_ms=20000", signed=f"{target}?timeout_ms=20001")

    assert (reply.status, reply.content["errcode"]) == (401, "M_UNAUTHORIZED")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (NOTHING, 401),
        ({"Authorization": "Bearer abc"}, 401),
        ({"Authorization": "X-Matrix nonsense"}, 400),
        ({"Authorization": 'X-Matrix origin="a b",key="k",sig="s"'}, 400),
    ],
)
@pytest.mark.parametrize("kind", ["download", "thumbnail"])
async def test_without_a_signature_the_homeservers_refusal_comes_through(
    federation: Federation, ask: Asking, alice: User, headers: Mapping[str, str], status: int, kind: str
) -> None:
    mxc = await federation.ours.upload(alice, samples.text())

    reply = await ask.federated(f"/{kind}/{media_id(mxc)}?{SIZE}", headers)

    assert (reply.status, reply.content["errcode"]) == (status, "M_UNAUTHORIZED")


@pytest.mark.parametrize(
    ("reserved", "refusal"), [(True, (504, "M_NOT_YET_UPLOADED")), (False, (404, "M_NOT_FOUND"))]
)
async def test_media_that_are_not_there_are_refused_in_the_homeservers_words(
    federation: Federation, ask: Asking, alice: User, reserved: bool, refusal: tuple[int, str]
) -> None:
    name = media_id(await federation.ours.reserve(alice)) if reserved else "there-is-no-such-media"

    reply = await ask.signed(f"/download/{name}?timeout_ms=100")

    assert (reply.status, reply.content["errcode"]) == refusal


# -- Theirs has no product: its malware does not reach our users ----------------------------------


async def test_clean_media_of_the_other_server_reach_our_users(
    federation: Federation, ask: Asking, alice: User, bob: User
) -> None:
    content = samples.png()
    mxc = await federation.theirs.upload(bob, content, "image/png", "b.png")

    reply = await ask.media(federation.product.url, mxc, alice)

    assert (reply.status, reply.body, reply.headers["Content-Type"]) == (200, content, "image/png")
    assert reply.headers["Content-Disposition"] == "inline; filename*=UTF-8''b.png"


@INFECTED
async def test_infected_media_of_the_other_server_do_not_reach_our_users(
    federation: Federation, ask: Asking, alice: User, bob: User, sample: Callable[[], bytes]
) -> None:
    """Our homeserver has fetched them for all that: keeping them off its disk is the module's part."""
    content = sample()
    mxc = await federation.theirs.upload(bob, content, "application/octet-stream")

    reply = await ask.media(federation.product.url, mxc, alice)

    assert (reply.status, reply.content["errcode"]) == (403, "M_FORBIDDEN")
    assert federation.ours.stores(content)
