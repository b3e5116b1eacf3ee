"""Headers, proxies and certificates on the way to the homeserver, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from multidict import CIMultiDict

from scanner.errors import MalformedRequest, UpstreamFailed
from scanner.tls import trusting
from scanner.upstream.transport import Caller, Transport
from tests.certificates import Authority
from tests.fake_homeserver import FakeHomeserver, Heard, Step, redirecting, serving, until
from tests.fake_proxy import FakeProxy
from tests.upstream.rig import ALICE, Rig, fetched, refused, soon, wanted

MEDIA = "/_matrix/client/v1/media/download/example.org/abc"
KEY = "homeserver.ca_file"


@asynccontextmanager
async def rig_before(homeserver: FakeHomeserver) -> AsyncIterator[Rig]:
    async with homeserver, AsyncExitStack() as stack:
        rig = Rig(homeserver, stack)
        yield rig
        await until(lambda: rig.budget.reserved == 0)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with rig_before(FakeHomeserver()) as rig:
        yield rig


# -- headers -------------------------------------------------------------------------------------


def test_forwarded_headers_are_all_of_their_name_and_no_others() -> None:
    transport = Transport(headers_to_forward=("X-Tag", "Absent"))
    headers = CIMultiDict([("x-tag", "1"), ("X-Tag", "2"), ("X-Other", "3")])
    assert transport.forwarded(headers) == (("X-Tag", "1"), ("X-Tag", "2"))


@pytest.mark.parametrize("value", ["é", "\udcff", "a\tb", "a\nb"])
def test_header_that_cannot_be_sent_is_the_callers_mistake_and_is_not_shown(value: str) -> None:
    with pytest.raises(MalformedRequest) as problem:
        Transport(headers_to_forward=("X-Tag",)).forwarded(CIMultiDict({"X-Tag": value}))
    assert problem.value.info == "the header X-Tag has characters that cannot be forwarded"


def test_a_callers_turn_is_that_of_his_token_his_server_or_his_address() -> None:
    """A server signs each request anew, and would be as many callers as it asks for files."""
    requests = [Caller(f'X-Matrix origin="a.example",key="k",sig="{sig}"', "192.0.2.7") for sig in "xy"]
    assert [caller.name for caller in requests] == ["a.example", "a.example"]
    assert len(set(requests)) == 2
    assert Caller("Bearer t", "192.0.2.7").name == "Bearer t"
    assert Caller(None, "192.0.2.7").name == "192.0.2.7"
    for authorization in ("Bearer t", 'X-Matrix origin="a.example"'):
        assert Caller(authorization, "192.0.2.7", checked=False).name == "192.0.2.7"


async def test_every_request_carries_the_additional_headers(rig: Rig) -> None:
    headers = {"user-agent": "ours/1", "X-Gate": "open"}
    upstream = await rig.upstream(transport=Transport(additional_headers=headers))
    await fetched(upstream)
    await upstream.authorise(wanted(), soon())
    assert await rig.connection.reachable()
    assert [heard.method for heard in rig.homeserver.heard] == ["GET", "HEAD", "GET"]
    for heard in rig.homeserver.heard:
        assert (heard.header("user-agent"), heard.header("x-gate")) == ("ours/1", "open")
        assert heard.header("accept-encoding") == "identity"


async def test_what_the_caller_sent_counts_more_than_what_is_configured(rig: Rig) -> None:
    upstream = await rig.upstream(transport=Transport(additional_headers={"User-Agent": "ours/1"}))
    await fetched(upstream, wanted(forwarded=(("User-Agent", "his/2"), ("X-Tag", "1"), ("X-Tag", "2"))))
    [heard] = rig.homeserver.heard
    assert heard.header("user-agent") == "his/2"
    assert [value for name, value in heard.headers if name == "x-tag"] == ["1", "2"]
    assert heard.header("authorization") == ALICE


async def test_callers_with_other_headers_share_no_fetch(rig: Rig) -> None:
    def by_tag(heard: Heard) -> list[Step]:
        return [0.05, *serving((heard.header("x-tag") or "").encode())(heard)]

    upstream = await rig.upstream(by_tag)
    asked = [wanted(forwarded=(("X-Tag", tag),)) for tag in ("red", "blue", "red")]
    assert await asyncio.gather(*(fetched(upstream, each) for each in asked)) == [b"red", b"blue", b"red"]
    assert len(rig.homeserver.heard) == 2


async def test_a_redirect_gets_neither_forwarded_nor_additional_headers(rig: Rig) -> None:
    async with FakeHomeserver() as cdn:
        host = cdn.url.removeprefix("http://")
        transport = Transport(additional_headers={"X-Gate": "open", "User-Agent": "ours/1"})
        upstream = await rig.upstream(
            redirecting(f"{cdn.url}/blob"), redirect_hosts=frozenset({host}), transport=transport
        )
        await fetched(upstream, wanted(forwarded=(("X-Tag", "1"),)))
        [heard] = cdn.heard
    names = {name for name, _ in heard.headers}
    assert names == {"host", "accept", "accept-encoding", "user-agent"}
    assert heard.header("user-agent") == "matrix-media-scanner"


def test_values_of_headers_are_in_no_repr() -> None:
    secret = "let-me-in"
    transport = Transport(additional_headers={"X-Gate": secret})
    assert secret not in repr(transport)
    assert secret not in repr(wanted(forwarded=(("X-Gate", secret),)))


# -- proxies -------------------------------------------------------------------------------------


async def test_http_homeserver_is_asked_of_the_proxy_by_its_url(rig: Rig) -> None:
    async with FakeProxy() as proxy:
        upstream = await rig.upstream(transport=Transport(proxy=proxy.url))
        await fetched(upstream, wanted(filename="a%2Fb"))
        await upstream.authorise(wanted(), soon())
        assert await rig.connection.reachable()
    url = rig.homeserver.url
    versions = f"GET {url}/_matrix/client/versions"
    assert proxy.asked == [f"GET {url}{MEDIA}/a%2Fb", f"HEAD {url}{MEDIA}", versions]
    assert [heard.header("authorization") for heard in rig.homeserver.heard] == [ALICE, ALICE, None]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_https_homeserver_is_reached_through_a_tunnel_that_shows_the_proxy_nothing(
    tmp_path: Path, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def ask() -> None:
        authority = Authority(tmp_path)
        tls = trusting(authority.certificate, KEY)
        async with rig_before(FakeHomeserver(tls=authority.server())) as rig, FakeProxy() as proxy:
            upstream = await rig.upstream(serving(b"media"), transport=Transport(proxy=proxy.url, tls=tls))
            assert await fetched(upstream) == b"media"
            assert proxy.asked == [f"CONNECT 127.0.0.1:{rig.homeserver.port}"]
            assert b"alice" not in b"".join(proxy.heads)

    run(ask())


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 Who?\r\n\r\n", b"HTTP/1.1 502 No\r\n\r\n", b"", b"?\r\n\r\n"]
)
async def test_proxy_that_refuses_is_a_homeserver_that_cannot_be_reached(
    tmp_path: Path, answer: bytes
) -> None:
    authority = Authority(tmp_path)
    tls = trusting(authority.certificate, KEY)
    async with rig_before(FakeHomeserver(tls=authority.server())) as rig, FakeProxy() as proxy:
        proxy.refuses = answer
        upstream = await rig.upstream(transport=Transport(proxy=proxy.url, tls=tls))
        assert isinstance(await refused(fetched(upstream)), UpstreamFailed)
        assert not await rig.connection.reachable()


# -- certificates --------------------------------------------------------------------------------


async def test_homeserver_of_a_listed_authority_is_believed_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    async with rig_before(FakeHomeserver(tls=authority.server())) as rig:
        believed = await rig.upstream(transport=Transport(tls=trusting(authority.certificate, KEY)))
        assert await fetched(believed)
        assert await rig.connection.reachable()
        for tls in (None, trusting(other.certificate, KEY)):
            upstream = await rig.upstream(transport=Transport(tls=tls))
            assert isinstance(await refused(fetched(upstream)), UpstreamFailed)
            assert not await rig.connection.reachable()


async def test_certificate_has_to_be_that_of_the_homeservers_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with rig_before(FakeHomeserver(tls=authority.server("127.0.0.2"))) as rig:
        upstream = await rig.upstream(transport=Transport(tls=trusting(authority.certificate, KEY)))
        assert isinstance(await refused(fetched(upstream)), UpstreamFailed)


async def test_redirect_has_to_have_a_certificate_that_the_system_believes(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = trusting(authority.certificate, KEY)
    async with (
        rig_before(FakeHomeserver(tls=authority.server())) as rig,
        FakeHomeserver(tls=authority.server()) as cdn,
    ):
        host = cdn.url.removeprefix("https://")
        upstream = await rig.upstream(
            redirecting(f"{cdn.url}/blob"), redirect_hosts=frozenset({host}), transport=Transport(tls=tls)
        )
        assert isinstance(await refused(fetched(upstream)), UpstreamFailed)
        assert cdn.heard == []
