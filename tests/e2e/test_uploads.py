"""Uploads to a real homeserver, through the running product, judged by a real clamd."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jsonschema
import pytest
from yarl import URL

from tests.e2e import samples
from tests.e2e.product import Product
from tests.e2e.synapse import Synapse, User
from tests.e2e.test_faults_of_clamd import address
from tests.fake_homeserver import LAST_CHUNK, chunk
from tests.raw_client import Reply, connected, request
from tests.real_clamd import Clamd

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

MIB = 1024 * 1024
LIMIT = 20 * MIB
UPLOAD = "/_matrix/media/v3/upload"
CREATE = "/_matrix/media/v1/create"
FORBIDDEN, TOO_LARGE = (403, "M_FORBIDDEN"), (413, "M_TOO_LARGE")
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "detection.json").read_text())

each_route = pytest.mark.parametrize("route", ["v3", "r0", "v1", "create"])


class Uploader:
    """A client without a library: each request on a connection of its own."""

    def __init__(self, url: str) -> None:
        self.port = urlsplit(url).port or 0

    async def ask(self, data: bytes) -> Reply:
        async with connected(self.port) as client:
            return await client.ask(data)

    async def create(self, user: User) -> str:
        """The media ID that is given, and the way to upload to it."""
        reply = await self.ask(request(CREATE, user.token, method="POST", body=b""))
        assert reply.status == 200
        return str(reply.content["content_uri"])

    async def upload(self, user: User, content: bytes, query: str = "", **headers: str) -> Reply:
        return await self.ask(request(UPLOAD + query, user.token, method="POST", body=content, **headers))

    async def put(self, user: User, mxc: str, content: bytes, query: str = "", **headers: str) -> Reply:
        target = f"{UPLOAD}/{mxc.removeprefix('mxc://')}{query}"
        return await self.ask(request(target, user.token, method="PUT", body=content, **headers))

    async def upload_by(
        self, route: str, user: User, content: bytes, query: str = "", **headers: str
    ) -> tuple[Reply, str]:
        """The answer, and the mxc:// URI if it is not in there."""
        if route == "create":
            mxc = await self.create(user)
            return await self.put(user, mxc, content, query, **headers), mxc
        target = f"/_matrix/media/{route}/upload{query}"
        reply = await self.ask(request(target, user.token, method="POST", body=content, **headers))
        return reply, str(reply.content.get("content_uri"))


@pytest.fixture
def uploader(product: Product) -> Uploader:
    return Uploader(product.url)


@asynccontextmanager
async def downloaded(synapse: Synapse, user: User, mxc: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """From the homeserver itself."""
    async with (
        aiohttp.ClientSession(synapse.url, headers=user.headers) as session,
        session.get(f"/_matrix/client/v1/media/download/{mxc.removeprefix('mxc://')}") as answer,
    ):
        yield answer


@each_route
async def test_clean_media_are_stored_as_they_were_sent(
    synapse: Synapse, uploader: Uploader, alice: User, bob: User, route: str
) -> None:
    content = samples.png()

    reply, mxc = await uploader.upload_by(
        route, alice, content, "?filename=%C3%A9t%C3%A9%201.png", Content_Type="image/png"
    )

    assert reply.status == 200
    async with downloaded(synapse, bob, mxc) as answer:
        assert (answer.status, await answer.read()) == (200, content)
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Content-Disposition"] == "inline; filename*=utf-8''%C3%A9t%C3%A9%201.png"


def another_eicar() -> bytes:
    """The homeserver, which other tests use as well, has EICAR itself already."""
    return samples.eicar() + secrets.token_hex(8).encode()


@each_route
@pytest.mark.parametrize("sample", [another_eicar, samples.infected_zip])
async def test_infected_media_never_get_to_the_homeservers_disk(
    synapse: Synapse, uploader: Uploader, alice: User, route: str, sample: Callable[[], bytes]
) -> None:
    content = sample()

    reply, mxc = await uploader.upload_by(route, alice, content, Content_Type="text/plain")

    assert reply.matrix_error == FORBIDDEN
    assert not synapse.stores(content)
    if route == "create":
        assert (await uploader.put(alice, mxc, samples.text())).status == 200


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", "application/octet-stream"),
        (b"<p>" + samples.text(), "text/html; charset=utf-8"),
        (samples.text(), None),
        (samples.text(), "multipart/mixed; boundary=x"),
        (samples.text().ljust(LIMIT, b"."), "text/plain"),
    ],
    ids=["empty", "html", "no type", "multipart/mixed", "exactly the limit"],
)
async def test_media_of_any_type_and_size_within_the_limit_are_stored(
    synapse: Synapse, uploader: Uploader, alice: User, content: bytes, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content_Type": content_type}

    reply = await uploader.upload(alice, content, **headers)

    assert reply.status == 200
    async with downloaded(synapse, alice, reply.content["content_uri"]) as answer:
        assert await answer.read() == content
        assert answer.headers["Content-Type"].startswith(content_type or "application/octet-stream")


async def test_a_body_without_a_length_is_stored_with_one(
    synapse: Synapse, uploader: Uploader, alice: User
) -> None:
    """Synapse takes no other."""
    pieces = [samples.zeros(), samples.text()]
    head = request(UPLOAD, alice.token, method="POST", Transfer_Encoding="chunked")

    reply = await uploader.ask(head + b"".join(map(chunk, pieces)) + LAST_CHUNK)

    async with downloaded(synapse, alice, reply.content["content_uri"]) as answer:
        assert await answer.read() == b"".join(pieces)


# -- what the homeserver says --------------------------------------------------------------------


async def test_a_media_id_is_uploaded_to_once(uploader: Uploader, alice: User, bob: User) -> None:
    mxc = await uploader.create(alice)
    assert (await uploader.put(bob, mxc, samples.text())).matrix_error == FORBIDDEN
    assert (await uploader.put(alice, mxc, samples.text())).status == 200

    again = await uploader.put(alice, mxc, samples.text())

    assert again.matrix_error == (409, "M_CANNOT_OVERWRITE_MEDIA")


async def test_a_media_id_that_is_unknown_or_expired_is_not_found(
    synapse: Synapse, uploader: Uploader, alice: User
) -> None:
    expired = await uploader.create(alice)
    synapse.expire(expired)
    unknown = f"mxc://{synapse.server_name}/never-created"

    for mxc in (expired, unknown):
        assert (await uploader.put(alice, mxc, samples.text())).matrix_error == (404, "M_NOT_FOUND")


async def test_who_has_too_many_unused_media_ids_is_told_to_wait(uploader: Uploader, alice: User) -> None:
    for _ in range(20):
        await uploader.create(alice)

    reply = await uploader.ask(request(CREATE, alice.token, method="POST", body=b""))

    assert reply.matrix_error == (429, "M_LIMIT_EXCEEDED")
    assert int(reply.header("retry-after") or 0) > 0
    assert reply.content["retry_after_ms"] > 0


# Method, target and headers; `{}` stands for Alice's token.
AS_THE_HOMESERVER: dict[str, tuple[str, str, dict[str, str]]] = {
    "unknown token": ("POST", UPLOAD, {"Authorization": "Bearer {}x"}),
    "malformed token": ("POST", UPLOAD, {"Authorization": "Bearer a {}"}),
    "unknown token in the query": ("POST", f"{UPLOAD}?access_token=x{{}}", {}),
    "name that is no UTF-8": ("POST", f"{UPLOAD}?filename=%ff", {"Authorization": "Bearer {}"}),
    "another server's media": ("PUT", f"{UPLOAD}/elsewhere.example/abc", {"Authorization": "Bearer {}"}),
    "no token to create": ("POST", CREATE, {}),
    "unknown token to create": ("POST", CREATE, {"Authorization": "Bearer {}x"}),
}


@pytest.mark.parametrize("name", AS_THE_HOMESERVER)
async def test_the_homeservers_refusal_comes_through(
    synapse: Synapse, product: Product, alice: User, name: str
) -> None:
    method, target, headers = AS_THE_HOMESERVER[name]
    asked = (
        method,
        target.format(alice.token),
        {key: value.format(alice.token) for key, value in headers.items()},
    )

    answer = await answer_of(product.url, *asked)

    assert answer == await answer_of(synapse.url, *asked)
    assert answer[0] >= 400


async def test_without_a_token_nothing_is_stored(synapse: Synapse, uploader: Uploader) -> None:
    content = samples.text()
    reply = await uploader.ask(request(UPLOAD, method="POST", body=content))
    assert reply.matrix_error == (401, "M_MISSING_TOKEN")
    assert not synapse.stores(content)


async def test_a_token_in_the_query_is_one(synapse: Synapse, uploader: Uploader, alice: User) -> None:
    content = samples.text()
    target = f"{UPLOAD}?filename=a&access_token={alice.token}"
    assert (await uploader.ask(request(target, method="POST", body=content))).status == 200
    assert synapse.stores(content)


@pytest.mark.parametrize("who", ["guest", "locked", "logged out"])
async def test_who_may_not_upload_is_told_in_the_homeservers_words(
    synapse: Synapse, product: Product, alice: User, who: str
) -> None:
    user = await synapse.guest() if who == "guest" else alice
    if who == "locked":
        await synapse.lock(alice)
    elif who == "logged out":
        await synapse.logout(alice)

    status, content = await answer_of(product.url, "POST", UPLOAD, user.headers)

    codes = {"guest": "M_GUEST_ACCESS_FORBIDDEN", "locked": "M_USER_LOCKED", "logged out": "M_UNKNOWN_TOKEN"}
    assert content["errcode"] == codes[who]
    assert (status, content) == await answer_of(synapse.url, "POST", UPLOAD, user.headers)


async def answer_of(
    url: str, method: str, target: str, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    """Status and content."""
    address = URL(url + target, encoded=True)
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, address, headers=headers, data=b"content") as answer,
    ):
        return answer.status, await answer.json()


async def test_forms_are_refused_as_synapse_refuses_them(
    synapse: Synapse, uploader: Uploader, alice: User
) -> None:
    """It says so with a status alone."""
    content = samples.text()
    reply = await uploader.upload(alice, content, Content_Type="multipart/form-data; boundary=x")
    assert reply.matrix_error == (415, "M_UNKNOWN")
    assert not synapse.stores(content)


async def test_encoded_bodies_are_refused(synapse: Synapse, uploader: Uploader, alice: User) -> None:
    """Synapse would store them as they are, and hand them out as what they are not."""
    content = gzip.compress(samples.text())
    reply = await uploader.upload(alice, content, Content_Encoding="gzip")
    assert reply.matrix_error == (415, "M_UNKNOWN")
    assert not synapse.stores(content)


# -- too large, or of another length than declared ------------------------------------------------


@pytest.fixture(scope="module")
def generous(synapse: Synapse, clamd: Clamd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uploader]:
    """A product whose limit is larger than the homeserver's, which is 50 MiB."""
    settings: dict[str, dict[str, Any]] = {
        "limits": {"media_size": "60MiB", "memory": "210MiB"},
        "clamav": {"addresses": [address(clamd)], "max_signature_age": None},
    }
    with Product(tmp_path_factory.mktemp("generous"), synapse.url, settings) as product:
        yield Uploader(product.url)


@pytest.mark.parametrize(("whose", "limit"), [("product", LIMIT), ("homeserver", 50 * MIB)])
async def test_who_sends_far_too_much_sees_the_refusal(
    uploader: Uploader, generous: Uploader, alice: User, whose: str, limit: int
) -> None:
    """It comes on the head, and the client, that goes on sending 60 MB, reads it then."""
    port = (uploader if whose == "product" else generous).port
    async with connected(port) as client:
        await client.send(request(UPLOAD, alice.token, method="POST", Content_Length=str(limit + 1)))
        assert (await client.reply()).matrix_error == TOO_LARGE
    async with connected(port) as client:
        await client.send(request(UPLOAD, alice.token, method="POST", Content_Length=str(60_000_000)))
        for _ in range(60):
            await client.send(bytes(1_000_000))
        assert (await client.reply()).matrix_error == TOO_LARGE


async def test_an_ordinary_client_sees_the_refusal(product: Product, alice: User) -> None:
    async with (
        aiohttp.ClientSession(product.url, headers=alice.headers) as session,
        session.post(UPLOAD, data=io.BytesIO(bytes(60_000_000))) as answer,
    ):
        assert answer.status == 413
        assert (await answer.json())["errcode"] == "M_TOO_LARGE"
    await asyncio.sleep(0.3)  # it goes on sending behind our back


async def test_one_byte_over_the_limit_is_too_much_declared_or_not(
    synapse: Synapse, uploader: Uploader, alice: User
) -> None:
    content = samples.text().ljust(LIMIT + 1, b".")
    chunked = request(UPLOAD, alice.token, method="POST", Transfer_Encoding="chunked")

    assert (await uploader.upload(alice, content)).matrix_error == TOO_LARGE
    assert (await uploader.ask(chunked + chunk(content) + LAST_CHUNK)).matrix_error == TOO_LARGE

    assert not synapse.stores(content[:1000])


async def test_what_comes_behind_the_declared_length_is_no_part_of_the_media(
    synapse: Synapse, uploader: Uploader, alice: User
) -> None:
    content = samples.text()
    head = request(UPLOAD, alice.token, method="POST", Content_Length=str(len(content)))
    async with connected(uploader.port) as client:
        reply = await client.ask(head + content)
        assert (await client.ask(samples.eicar() + b"\r\n\r\n")).status == 400
    async with downloaded(synapse, alice, reply.content["content_uri"]) as answer:
        assert await answer.read() == content


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_what_breaks_off_is_not_stored(
    synapse: Synapse, uploader: Uploader, alice: User, framing: str
) -> None:
    content = samples.text()
    if framing == "length":
        declared = request(UPLOAD, alice.token, method="POST", Content_Length="1000") + content
    else:
        declared = request(UPLOAD, alice.token, method="POST", Transfer_Encoding="chunked") + chunk(content)
    async with connected(uploader.port) as client:
        await client.send(declared)
        client.half_close()
        assert await client.ends()
    assert not synapse.stores(content)


# -- Expect: 100-continue ------------------------------------------------------------------------


def waiting(token: str | None, length: int) -> bytes:
    return request(UPLOAD, token, method="POST", Content_Length=str(length), Expect="100-continue")


async def test_who_waits_for_it_is_told_to_go_on(uploader: Uploader, alice: User) -> None:
    content = samples.text()
    async with connected(uploader.port) as client:
        await client.send(waiting(alice.token, len(content)))
        assert await client.interim() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.ask(content)).status == 200


@pytest.mark.parametrize(
    ("who", "length", "refusal"),
    [
        ("nobody", 10, (401, "M_MISSING_TOKEN")),
        ("stranger", 10, (401, "M_UNKNOWN_TOKEN")),
        ("alice", LIMIT + 1, TOO_LARGE),
    ],
)
async def test_no_stranger_and_no_too_long_body_is_told_to_go_on(
    uploader: Uploader, alice: User, who: str, length: int, refusal: tuple[int, str]
) -> None:
    tokens = {"nobody": None, "stranger": "syt_unknown", "alice": alice.token}
    async with connected(uploader.port) as client:
        reply = await client.ask(waiting(tokens[who], length))
    assert reply.matrix_error == refusal
    assert reply.header("connection") == "close"


# -- what is told --------------------------------------------------------------------------------


async def test_an_infected_upload_is_one_alert_in_the_log(
    uploader: Uploader, alice: User, written: Callable[[], Awaitable[str]]
) -> None:
    mxc = await uploader.create(alice)
    await uploader.put(alice, mxc, samples.infected_zip(), "?filename=secret-name.zip")
    output = await written()

    lines = [json.loads(line) for line in output.splitlines() if mxc in line]
    [alert] = [line for line in lines if line.get("event", {}).get("kind") == "alert"]

    jsonschema.validate(alert, SCHEMA)
    assert alert["event"]["action"] == "media-blocked"
    assert alert["media_scanner"]["source"] == "upload"
    assert "secret-name" not in output
    assert alice.token not in output


async def test_an_infected_upload_that_has_no_name_yet_is_an_alert_too(
    uploader: Uploader, alice: User, written: Callable[[], Awaitable[str]]
) -> None:
    content = samples.infected_zip()
    await uploader.upload(alice, content)

    digest = hashlib.sha256(content).hexdigest()
    [alert] = [json.loads(line) for line in (await written()).splitlines() if digest in line]

    jsonschema.validate(alert, SCHEMA)
    assert "mxc" not in alert["media_scanner"]


async def test_uploads_are_counted_as_such(product: Product, uploader: Uploader, alice: User) -> None:
    def counted() -> list[float]:
        blocked = product.metric("blocked_responses_total", reason="M_FORBIDDEN")
        scans = [
            product.metric("scans_total", source="upload", verdict=name) for name in ("clean", "infected")
        ]
        return [*scans, product.metric("detections_total", source="upload"), blocked]

    before = await asyncio.to_thread(counted)
    await uploader.upload(alice, samples.text())
    await uploader.upload(alice, samples.infected_zip())
    after = await asyncio.to_thread(counted)

    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1, 1]


async def test_ciphertext_is_opaque_and_counted_as_such(
    synapse: Synapse, product: Product, uploader: Uploader, alice: User
) -> None:
    content = os.urandom(100_000)
    before = await asyncio.to_thread(product.metric, "scans_total", source="upload", verdict="opaque")

    assert (await uploader.upload(alice, content)).status == 200

    after = await asyncio.to_thread(product.metric, "scans_total", source="upload", verdict="opaque")
    assert after == before + 1
    assert synapse.stores(content)
