"""The media repository as we see it: one homeserver, asked with the caller's own token.

The rules: headers are built, not relayed, in both directions; a token is never in a URL and never goes to
another host; requests with the same endpoint, media, query, Authorization and forwarded headers share one
fetch, and nobody else's; a body is read only inside a share of the budget, and never past the limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from ssl import SSLContext, create_default_context
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from scanner.admission import Budget, Reservation
from scanner.errors import MediaNotFound, MediaTooLarge, Unavailable, UpstreamFailed, UpstreamSilent
from scanner.events import FlightJoined, Publish, StageTimed, UpstreamAnswered
from scanner.media import Body, BodyWriter, MediaRef
from scanner.single_flight import SingleFlight
from scanner.upstream_answers import content_type, error_code, is_granted, is_unknown_there, problem
from scanner.upstream_transport import Forwarded, Transport, headers_for_others

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 3
_STEP = 128 * 1024
_OVERSHOOT = 64 * 1024  # kept beyond the limit at most
_REACHABLE_FOR = 10.0
# How long to authorise by GET after a HEAD was refused what a GET then was given.
_HEAD_DISTRUST = 3600.0


class Endpoint(StrEnum):
    """The two kinds of media that the homeserver hands out."""

    DOWNLOAD = "download"
    THUMBNAIL = "thumbnail"


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds: until the response's head is complete, between two pieces, for the whole body."""

    first_byte: float = 25.0
    idle: float = 5.0
    total: float = 25.0


@dataclass(frozen=True, slots=True)
class MediaRequest:
    """What one caller asks of the homeserver. `filename` is percent-encoded, `query` is as it came.

    `forwarded` are the headers of his that go along; the homeserver may answer by them, so that they make it
    another request.
    """

    endpoint: Endpoint
    ref: MediaRef
    query: str = ""
    filename: str | None = None
    authorization: str | None = field(default=None, repr=False)
    client_ip: str | None = field(default=None, compare=False)
    forwarded: Forwarded = field(default=(), repr=False)

    @property
    def caller(self) -> str:
        """Whose turn it is in a queue."""
        return self.authorization or self.client_ip or ""


class Upstream:
    """One homeserver, its connections and its timers."""

    def __init__(
        self,
        url: str,
        *,
        budget: Budget,
        media_size: int,
        timers: Timers,
        redirect_hosts: frozenset[str],
        publish: Publish,
        transport: Transport,
    ) -> None:
        self.transport = transport
        self._base = url.rstrip("/")
        self._budget = budget
        self._media_size = media_size
        self._timers = timers
        self._redirect_hosts = redirect_hosts
        self._publish = publish
        self._tls_for_others = True if transport.tls is None else create_default_context()
        self._fetches: SingleFlight[MediaRequest, Body] = SingleFlight(
            dispose=Body.release, joined=lambda: publish(FlightJoined("local"))
        )
        self._waiting_for_room: set[MediaRequest] = set()
        self._head_distrusted_until = float("-inf")
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
    async def fetch(self, wanted: MediaRequest, deadline: float) -> AsyncIterator[Body]:
        """The media's bytes, valid inside the block. Raises UpstreamError or Unavailable."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout_at(deadline):
                    flight = self._fetches.join(wanted, lambda: self._fetch(wanted))
                    body = await stack.enter_async_context(flight)
            except TimeoutError:
                if wanted in self._waiting_for_room:
                    raise Unavailable("too much media under way, try again", "timeout") from None
                raise UpstreamSilent("the homeserver did not answer in time") from None
            yield body

    async def authorise(self, wanted: MediaRequest, deadline: float) -> None:
        """Return if the homeserver gives this media to this caller; else raise UpstreamError.

        Asks with HEAD; where that is not to be trusted, with a GET whose body is not read.
        """
        try:
            async with asyncio.timeout_at(deadline):
                if time.monotonic() < self._head_distrusted_until:
                    await self._authorise_by_get(wanted)
                elif not await self._authorised_by_head(wanted):
                    await self._authorise_by_get(wanted)
                    self._head_distrusted_until = time.monotonic() + _HEAD_DISTRUST
        except TimeoutError:
            raise UpstreamSilent("the homeserver did not answer in time") from None

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

    # -- asking ----------------------------------------------------------------------------------

    async def _fetch(self, wanted: MediaRequest) -> Body:
        began = time.monotonic()
        body = await self._fetched(wanted)
        self._publish(StageTimed("fetch", time.monotonic() - began))
        return body

    async def _fetched(self, wanted: MediaRequest) -> Body:
        """Room is reserved once, when the length is known.

        A response that would have to wait for room is let go, and asked for again when there is some: up
        to a megabyte of it may have arrived, which nobody has accounted for.
        """
        async with self._first_found("GET", wanted) as response:
            size = self._size(response)
            room = self._budget.share_for(size).reserve_at_once(size)
            if room is not None:
                return await self._read(response, room)
        room = await self._turn(size, wanted)
        try:
            async with self._first_found("GET", wanted) as response:
                self._check_room(response, size)
                return await self._read(response, room)
        except BaseException:
            room.close()
            raise

    async def _turn(self, size: int, wanted: MediaRequest) -> Reservation:
        self._waiting_for_room.add(wanted)
        try:
            return await self._budget.share_for(size).reserve(size, wanted.caller)
        finally:
            self._waiting_for_room.discard(wanted)

    async def _authorised_by_head(self, wanted: MediaRequest) -> bool:
        try:
            async with self._first_found("HEAD", wanted):
                return True
        except (MediaNotFound, UpstreamFailed):
            return False  # some answer 404, 405 or 501 to a HEAD on media that is there, or break off

    async def _authorise_by_get(self, wanted: MediaRequest) -> None:
        async with self._first_found("GET", wanted):
            pass

    @asynccontextmanager
    async def _first_found(self, method: str, wanted: MediaRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        """The media, from the first endpoint that knows it: with a token there is only one to ask."""
        *earlier, last = self._urls(wanted)
        for url in earlier:
            async with self._answer(method, url, wanted) as response:
                if is_granted(method, response):
                    yield response
                    return
                code = await error_code(response)
            if not is_unknown_there(response.status, code):
                raise problem(response, code, with_token=bool(wanted.authorization))
        async with self._answer(method, last, wanted) as response:
            if not is_granted(method, response):
                raise problem(response, await error_code(response), with_token=bool(wanted.authorization))
            yield response

    def _urls(self, wanted: MediaRequest) -> list[URL]:
        prefixes = ("client/v1/media",) if wanted.authorization else ("media/v3", "media/r0")
        path = f"{wanted.endpoint}/{wanted.ref.origin}/{wanted.ref.media_id}"
        if wanted.filename:
            path += f"/{wanted.filename}"
        if wanted.query:
            path += f"?{wanted.query}"
        return [URL(f"{self._base}/_matrix/{prefix}/{path}", encoded=True) for prefix in prefixes]

    @asynccontextmanager
    async def _answer(
        self, method: str, url: URL, wanted: MediaRequest
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request and its response, redirects to listed hosts followed without the token."""
        began = time.monotonic()
        try:
            response = await self._request(method, url, self._headers(wanted))
            for _ in range(_MAX_REDIRECTS):
                if response.status not in _REDIRECTS or is_granted(method, response):
                    break
                target = self._redirect_target(response)
                response.close()
                response = await self._request(method, target, headers_for_others(), tls=self._tls_for_others)
        except UpstreamSilent:
            self._publish(UpstreamAnswered("homeserver", "timeout", time.monotonic() - began))
            raise
        except UpstreamFailed:
            self._publish(UpstreamAnswered("homeserver", "error", time.monotonic() - began))
            raise
        self._publish(UpstreamAnswered("homeserver", str(response.status), time.monotonic() - began))
        try:
            yield response
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def _request(
        self, method: str, url: URL, headers: CIMultiDict[str], *, tls: SSLContext | bool = True
    ) -> aiohttp.ClientResponse:
        session = self._head_session if method == "HEAD" else self._session
        with _translated():
            async with asyncio.timeout(self._timers.first_byte):
                return await session.request(method, url, headers=headers, ssl=tls, allow_redirects=False)

    def _headers(self, wanted: MediaRequest) -> CIMultiDict[str]:
        headers = self.transport.headers_for_homeserver(wanted.forwarded)
        if wanted.authorization is not None:
            headers["Authorization"] = wanted.authorization
        if wanted.client_ip is not None:
            headers["X-Forwarded-For"] = wanted.client_ip
        return headers

    def _redirect_target(self, response: aiohttp.ClientResponse) -> URL:
        location = response.headers.get("Location", "")
        try:
            target = urlsplit(location)
            listed = target.scheme in ("http", "https") and target.netloc in self._redirect_hosts
            if listed:
                return URL(location, encoded=True)
        except ValueError:
            pass
        response.close()
        raise UpstreamFailed("the homeserver redirects to a host that is not listed")

    # -- reading ---------------------------------------------------------------------------------

    def _size(self, response: aiohttp.ClientResponse) -> int:
        """The length that is declared; else the most that there may be."""
        declared = response.content_length
        if declared is not None and declared > self._media_size:
            raise self._too_large()
        return self._media_size if declared is None else declared

    def _check_room(self, response: aiohttp.ClientResponse, size: int) -> None:
        if self._size(response) > size:
            raise UpstreamFailed("the homeserver first announced a shorter body")

    async def _read(self, response: aiohttp.ClientResponse, room: Reservation) -> Body:
        writer = BodyWriter(room)
        try:
            declared = content_type(response)
            await self._read_into(writer, response)
            return writer.seal(declared, response.headers.get("Content-Disposition"))
        except BaseException:
            writer.discard()
            raise

    async def _read_into(self, writer: BodyWriter, response: aiohttp.ClientResponse) -> None:
        try:
            await self._read_in_time(writer, response)
        except UpstreamSilent:
            # aiohttp hangs up when framing breaks in the middle of a body, and tells its reader nothing.
            if response.connection is None or response.connection.transport is None:
                raise UpstreamFailed("the homeserver broke off or sent bad framing") from None
            raise

    async def _read_in_time(self, writer: BodyWriter, response: aiohttp.ClientResponse) -> None:
        now = asyncio.get_running_loop().time
        end = now() + self._timers.total
        with _translated():
            async with asyncio.timeout(self._timers.idle) as limit:
                async for piece in response.content.iter_any():
                    room = self._media_size - writer.size
                    if len(piece) > room:
                        writer.write(memoryview(piece)[: room + _OVERSHOOT])
                        raise self._too_large()
                    await _write(writer, piece)
                    limit.reschedule(min(now() + self._timers.idle, end))

    def _too_large(self) -> MediaTooLarge:
        return MediaTooLarge(f"the media is larger than {self._media_size} bytes")


async def _write(writer: BodyWriter, piece: bytes) -> None:
    """In steps: a fast homeserver's piece can be large enough to hold the event loop."""
    for offset in range(0, len(piece), _STEP):
        if offset:
            await asyncio.sleep(0)
        writer.write(memoryview(piece)[offset : offset + _STEP])


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
def _translated() -> Iterator[None]:
    """What aiohttp and the sockets below it raise, in our words; once, here."""
    try:
        yield
    except TimeoutError:
        raise UpstreamSilent("the homeserver did not answer in time") from None
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        raise UpstreamFailed("the homeserver could not be reached or broke off") from problem
