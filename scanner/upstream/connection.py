"""Connections to the homeserver, and one request on them: deadlines, redirects, errors in our words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from ssl import SSLContext, create_default_context
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from scanner.errors import UpstreamFailed, UpstreamSilent
from scanner.events import Publish, UpstreamAnswered
from scanner.upstream.answers import is_granted
from scanner.upstream.transport import Caller, Transport, headers_for_others

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 3
_REACHABLE_FOR = 10.0


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds: until the response's head is complete, between two pieces, for the whole body."""

    first_byte: float = 25.0
    idle: float = 5.0
    total: float = 25.0


class Connection:
    """The one homeserver that is ever asked; use it as an async context manager.

    `redirect_hosts` are host[:port] that it may redirect to: they get nothing of the caller.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: Transport,
        redirect_hosts: frozenset[str],
        publish: Publish,
        timers: Timers,
    ) -> None:
        self.transport = transport
        self.timers = timers
        self._base = url.rstrip("/")
        self._redirect_hosts = redirect_hosts
        self._publish = publish
        self._tls_for_others = True if transport.tls is None else create_default_context()
        self._reached_at = float("-inf")
        self._reachable = False

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        # HEADs have connections of their own: held downloads must not keep callers from being authorised.
        self._session = await self._stack.enter_async_context(_session(self.transport))
        self._head_session = await self._stack.enter_async_context(_session(self.transport))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def answer(
        self,
        method: str,
        path: str,
        caller: Caller,
        *,
        headers: Mapping[str, str] | None = None,
        payload: AsyncIterable[bytes] | bytes | None = None,
        root: str = "_matrix",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request and its response; redirects to listed hosts are followed, without the token.

        `path` stands behind `root` and is sent as it is; a `payload` in pieces goes with a
        Content-Length among `headers`, and may be read again. Raises UpstreamSilent or UpstreamFailed.
        """
        url = URL(f"{self._base}/{root}/{path}", encoded=True)
        own = self.transport.headers_for_homeserver(caller)
        own.update(headers or ())
        response = await self._timed(self._asked(method, url, own, payload))
        try:
            yield response
        finally:
            _let_go(response)

    @asynccontextmanager
    async def elsewhere(self, location: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of where the homeserver says that media are, if that is listed; raises as `answer`."""
        url = self._listed(location)
        response = await self._timed(self._asked_elsewhere("GET", url, _MAX_REDIRECTS))
        try:
            yield response
        finally:
            _let_go(response)

    async def _timed(self, asked: Coroutine[None, None, aiohttp.ClientResponse]) -> aiohttp.ClientResponse:
        began = time.monotonic()
        try:
            response = await asked
        except UpstreamSilent:
            self._publish(UpstreamAnswered("homeserver", "timeout", time.monotonic() - began))
            raise
        except UpstreamFailed:
            self._publish(UpstreamAnswered("homeserver", "error", time.monotonic() - began))
            raise
        self._publish(UpstreamAnswered("homeserver", str(response.status), time.monotonic() - began))
        return response

    async def _asked(
        self, method: str, url: URL, headers: CIMultiDict[str], payload: AsyncIterable[bytes] | bytes | None
    ) -> aiohttp.ClientResponse:
        response = await self._request(method, url, headers, payload=payload)
        if method not in ("GET", "HEAD") or not _redirects(method, response):
            return response
        return await self._asked_elsewhere(method, self._redirect_target(response), _MAX_REDIRECTS - 1)

    async def _asked_elsewhere(self, method: str, url: URL, redirects: int) -> aiohttp.ClientResponse:
        """Nothing of the caller goes there; it may redirect so many times itself."""
        response = await self._request(method, url, headers_for_others(), tls=self._tls_for_others)
        if not redirects or not _redirects(method, response):
            return response
        return await self._asked_elsewhere(method, self._redirect_target(response), redirects - 1)

    async def reachable(self) -> bool:
        """Whether the homeserver answers at all; asked every 10 s at most."""
        now = time.monotonic()
        if now - self._reached_at > _REACHABLE_FOR:
            self._reached_at = now
            try:
                async with asyncio.timeout(5):
                    url = URL(f"{self._base}/_matrix/client/versions", encoded=True)
                    headers = self.transport.headers_for_homeserver()
                    async with self._head_session.get(
                        url, headers=headers, allow_redirects=False
                    ) as response:
                        self._reachable = response.status < 500
            except (aiohttp.ClientError, OSError, TimeoutError):
                self._reachable = False
        return self._reachable

    async def _request(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        *,
        tls: SSLContext | bool = True,
        payload: AsyncIterable[bytes] | bytes | None = None,
    ) -> aiohttp.ClientResponse:
        session = self._head_session if method == "HEAD" else self._session
        with translated():
            async with asyncio.timeout(self.timers.first_byte):
                return await session.request(
                    method, url, headers=headers, data=payload, ssl=tls, allow_redirects=False
                )

    def _redirect_target(self, response: aiohttp.ClientResponse) -> URL:
        response.close()
        return self._listed(response.headers.get("Location", ""))

    def _listed(self, location: str) -> URL:
        with suppress(ValueError):
            target = urlsplit(location)
            if target.scheme in ("http", "https") and target.netloc in self._redirect_hosts:
                return URL(location, encoded=True)
        raise UpstreamFailed("the homeserver redirects to a host that is not listed")


def _let_go(response: aiohttp.ClientResponse) -> None:
    """Its connection serves again, but with half a body on it."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()


def _redirects(method: str, response: aiohttp.ClientResponse) -> bool:
    return response.status in _REDIRECTS and not is_granted(method, response)


def _session(transport: Transport) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, ssl=transport.tls or True),
        proxy=transport.proxy,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept"),
    )


@contextmanager
def translated() -> Iterator[None]:
    """What aiohttp and the sockets below it raise, in our words; once, here."""
    try:
        yield
    except TimeoutError:
        raise UpstreamSilent("the homeserver did not answer in time") from None
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        raise UpstreamFailed("the homeserver could not be reached or broke off") from problem
