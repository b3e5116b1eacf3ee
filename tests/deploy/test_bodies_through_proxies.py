"""deploy/reverse-proxy: how bodies and long polls travel; not by way of the proxy's disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.deploy.proxied import upload
from tests.e2e.curl import Answer, Curl
from tests.e2e.product import Product
from tests.e2e.reverse_proxy import HOST, PROXIES, ReverseProxy
from tests.e2e.synapse import Synapse, User

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose rights HAProxy and nginx give up"),
]

MIB = 1024 * 1024
LIMIT = 20 * MIB
API = "/_matrix/media_proxy/unstable"

# -- how bodies travel ---------------------------------------------------------------------------


@asynccontextmanager
async def connected(proxy: ReverseProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection over which a test sends, and reads, as slowly as it likes."""
    context = ssl.create_default_context(cafile=str(proxy.authority.certificate))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", proxy.client, ssl=context, server_hostname=HOST, limit=64 * 1024
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def head(method: str, target: str, user: User, **headers: str | int) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {HOST}", f"Authorization: Bearer {user.token}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
)


async def send_slowly(
    proxy: ReverseProxy, target: str, user: User, pieces: Sequence[bytes], kind: str
) -> Slow:
    """An upload over a second, and what lay on the proxy's disk meanwhile."""
    before, seen = proxy.files(), set[str]()
    length = sum(map(len, pieces))
    async with connected(proxy) as (reader, writer):
        writer.write(head("POST", target, user, Content_Type=kind, Content_Length=length))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(1 / len(pieces))
            seen |= proxy.files() - before
        status = (await reader.readline()).split()[1]
    return Slow(int(status), seen)


@dataclass(frozen=True)
class Slow:
    """How a slow upload went."""

    status: int
    on_disk: set[str]


def large() -> list[bytes]:
    """19 MiB that nobody has seen before, in pieces."""
    return [secrets.token_bytes(16) + bytes(MIB - 16) for _ in range(19)]


async def test_no_upload_touches_the_proxys_disk(proxy: ReverseProxy, alice: User) -> None:
    slow = await send_slowly(proxy, "/_matrix/media/v3/upload", alice, large(), "image/x-zeros")
    assert slow == Slow(200, set())


async def test_no_plaintext_of_scan_file_touches_the_proxys_disk(proxy: ReverseProxy, alice: User) -> None:
    pieces = [FORM, *large(), b"\r\n--edge--\r\n"]
    slow = await send_slowly(proxy, f"{API}/scan_file", alice, pieces, "multipart/form-data; boundary=edge")
    assert slow == Slow(200, set())


async def test_an_upload_reaches_the_product_while_it_comes(
    proxy: ReverseProxy, product: Product, alice: User
) -> None:
    pieces = large()
    async with connected(proxy) as (_, writer):
        length = sum(map(len, pieces))
        writer.write(head("POST", "/_matrix/media/v3/upload", alice, Content_Length=length) + pieces[0])
        await writer.drain()
        async with asyncio.timeout(5):
            while await asyncio.to_thread(product.metric, "buffer_bytes") < length:  # noqa: ASYNC110 - its event
                await asyncio.sleep(0.05)


async def test_nginx_left_to_itself_writes_uploads_to_disk(
    directory: Path, authority: Authority, product: Product, synapse: Synapse, alice: User
) -> None:
    """The control: without this, the tests before would pass whatever the proxy did."""
    place = Path(tempfile.mkdtemp(dir=directory))
    edits = {"proxy_request_buffering off": "proxy_request_buffering on"}
    with ReverseProxy("nginx", place, authority, product.url, synapse.url, edits) as proxy:
        slow = await send_slowly(proxy, "/_matrix/media/v3/upload", alice, large(), "image/x-zeros")
    assert slow.status == 200
    assert any("/bodies/" in file for file in slow.on_disk)


async def test_no_download_touches_the_proxys_disk(
    proxy: ReverseProxy, synapse: Synapse, alice: User
) -> None:
    mxc = await synapse.upload(alice, b"".join(large()), "image/x-zeros")
    before = proxy.files()
    async with connected(proxy) as (reader, writer):
        writer.write(head("GET", f"/_matrix/media/v3/download/{mxc.removeprefix('mxc://')}", alice))
        assert b" 200 " in await reader.readline()
        await asyncio.sleep(0.3)
        assert proxy.files() == before


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_the_refusal_of_what_is_too_large_arrives(proxy: ReverseProxy, alice: User, version: str) -> None:
    """The status alone, and without Expect: behind Caddy curl does not always get more, see the README."""
    curl = Curl(proxy, proxy.client, version)
    answer = upload(curl, alice, "/_matrix/media/v3/upload", bytes(LIMIT + MIB), 'header = "Expect:"')
    assert answer.status == 413


async def test_who_sends_all_of_it_before_he_reads_sees_the_products_refusal_too(
    proxy: ReverseProxy, alice: User
) -> None:
    async with connected(proxy) as (reader, writer):
        # It is in our buffer by then. A reset at the end, and a StreamReader does not hand it out any more.
        answer = asyncio.create_task(reader.readuntil(b"}"))
        writer.write(head("POST", "/_matrix/media/v3/upload", alice, Content_Length=LIMIT + MIB))
        with contextlib.suppress(ConnectionError):  # TLS ends both directions at once
            for _ in range(LIMIT // MIB + 1):
                writer.write(bytes(MIB))
                await writer.drain()
        status, _, rest = (await answer).partition(b"\r\n")
        assert b" 413 " in status
        assert b'"M_TOO_LARGE"' in rest


def test_an_upload_broken_off_after_its_refusal_spoils_no_other(proxy: ReverseProxy, alice: User) -> None:
    """The client stops sending then. HAProxy without `http-server-close` answered every other 400."""
    curl = Curl(proxy, proxy.client)
    answers = [
        upload(curl, alice, "/_matrix/media/v3/upload", bytes(LIMIT + MIB), 'header = "Expect:"')
        for _ in range(8)
    ]
    assert [answer.status for answer in answers] == [413] * 8


# -- the rest of Matrix --------------------------------------------------------------------------


async def test_sync_waits_as_long_as_it_is_asked_to_and_ends_when_something_happens(
    directory: Path, authority: Authority, product: Product, synapse: Synapse
) -> None:
    """Through all of them at once, since it takes five seconds."""
    with contextlib.ExitStack() as stack:
        proxies = []
        for name in PROXIES:
            place = Path(tempfile.mkdtemp(dir=directory))
            proxy = ReverseProxy(name, place, authority, product.url, synapse.url)
            proxies.append(stack.enter_context(proxy))
        await asyncio.gather(*(syncs(Curl(each, each.client), synapse) for each in proxies))


async def syncs(curl: Curl, synapse: Synapse) -> None:
    user = await synapse.register(f"sync-{curl.proxy.name}")

    async def ask(target: str, *options: str) -> tuple[Answer, float]:
        began = time.monotonic()
        answer = await asyncio.to_thread(curl.ask, target, user.headers, *options)
        return answer, time.monotonic() - began

    first, _ = await ask("/_matrix/client/v3/sync?timeout=0")
    since = first.content["next_batch"]
    quiet, waited = await ask(f"/_matrix/client/v3/sync?timeout=5000&since={since}")
    assert quiet.status == 200
    assert 5 <= waited < 8

    waiting = asyncio.create_task(ask(f"/_matrix/client/v3/sync?timeout=20000&since={since}"))
    await asyncio.sleep(0.3)
    await ask("/_matrix/client/v3/createRoom", 'data = "{}"')
    woken, waited = await waiting
    assert waited < 5
    while "rooms" not in woken.content:  # something else happened before
        woken, _ = await ask(f"/_matrix/client/v3/sync?timeout=20000&since={woken.content['next_batch']}")
    assert woken.content["rooms"]["join"]
