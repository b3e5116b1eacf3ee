"""The media repository as we see it: one homeserver, asked with the caller's own token.

The rules: headers are built, not relayed, in both directions; a token is never in a URL and never goes to
another host; requests for the same paths and query by the same caller share one fetch, and nobody else's; a
body is read only inside a share of the budget, and never past the limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

import aiohttp

from scanner.admission import Budget, Reservation
from scanner.errors import MediaNotFound, MediaTooLarge, Unavailable, UpstreamFailed, UpstreamSilent
from scanner.events import FlightJoined, Publish, StageTimed
from scanner.media import Body, BodyWriter, MediaRef
from scanner.single_flight import SingleFlight
from scanner.upstream import multipart
from scanner.upstream.answers import (
    content_type,
    error_code,
    is_granted,
    is_unknown_there,
    problem,
    refusal_in,
)
from scanner.upstream.connection import Connection, translated
from scanner.upstream.multipart import MultipartMedia
from scanner.upstream.transport import Caller

_OVERSHOOT = 64 * 1024  # kept beyond the limit at most
# How long to authorise by GET after a HEAD was refused what a GET then was given.
_HEAD_DISTRUST = 3600.0


class Endpoint(StrEnum):
    """The two kinds of media that the homeserver hands out."""

    DOWNLOAD = "download"
    THUMBNAIL = "thumbnail"


@dataclass(frozen=True, slots=True)
class MediaRequest:
    """What one caller asks of the homeserver: `paths`, in this order until one knows the media.

    They stand behind `/_matrix/`, percent-encoded; `query` is as it came. To another homeserver media are
    handed out as multipart.
    """

    paths: tuple[str, ...]
    caller: Caller
    query: str = ""
    multipart: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """Media, and to another homeserver the JSON object that goes with them, as it came."""

    body: Body
    metadata: bytes


@dataclass(frozen=True, slots=True)
class _Incoming:
    """Media about to be read: `length` bytes at most; `read` gives the next piece, empty at the end."""

    response: aiohttp.ClientResponse
    content_type: str
    disposition: str | None
    read: Callable[[], Awaitable[bytes]]
    length: int | None
    metadata: bytes = b""


def paths_to(
    endpoint: Endpoint, ref: MediaRef, filename: str | None = None, *, authenticated: bool
) -> tuple[str, ...]:
    """Where media are found: with a token there is only one place to ask. `filename` is percent-encoded."""
    prefixes = ("client/v1/media",) if authenticated else ("media/v3", "media/r0")
    path = f"{endpoint}/{ref.origin}/{ref.media_id}"
    return tuple(f"{prefix}/{path}/{filename}" if filename else f"{prefix}/{path}" for prefix in prefixes)


class Upstream:
    """Media of one homeserver."""

    def __init__(self, connection: Connection, *, budget: Budget, media_size: int, publish: Publish) -> None:
        self._connection = connection
        self._timers = connection.timers
        self._budget = budget
        self._media_size = media_size
        self._publish = publish
        self._fetches: SingleFlight[MediaRequest, Fetched] = SingleFlight(
            dispose=lambda media: media.body.release(), joined=lambda: publish(FlightJoined("local"))
        )
        self._waiting_for_room: set[MediaRequest] = set()
        self._head_distrusted_until = float("-inf")

    @asynccontextmanager
    async def fetch(self, wanted: MediaRequest, deadline: float) -> AsyncIterator[Fetched]:
        """The media, valid inside the block. Raises UpstreamError or Unavailable."""
        with self._fetches.join(wanted, lambda: self._fetch(wanted)) as flight:
            try:
                async with asyncio.timeout_at(deadline):
                    media = await flight.value()
            except TimeoutError:
                if wanted in self._waiting_for_room:
                    raise Unavailable("too much media under way, try again", "timeout") from None
                raise UpstreamSilent("the homeserver did not answer in time") from None
            yield media

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

    # -- asking ----------------------------------------------------------------------------------

    async def _fetch(self, wanted: MediaRequest) -> Fetched:
        began = time.monotonic()
        media = await self._fetched(wanted)
        self._publish(StageTimed("fetch", time.monotonic() - began))
        return media

    async def _fetched(self, wanted: MediaRequest) -> Fetched:
        """Room is reserved once, when the length is known.

        A response that would have to wait for room is let go, and asked for again when there is some: up
        to a megabyte of it may have arrived, which nobody has accounted for.
        """
        async with self._incoming(wanted) as media:
            size = self._size(media)
            room = self._budget.share_for(size).reserve_at_once(size, wanted.caller.name)
            if room is not None:
                return await self._read(media, room)
        room = await self._turn(size, wanted)
        try:
            async with self._incoming(wanted) as media:
                self._check_room(media, size)
                return await self._read(media, room)
        except BaseException:
            room.close()
            raise

    async def _turn(self, size: int, wanted: MediaRequest) -> Reservation:
        self._waiting_for_room.add(wanted)
        try:
            return await self._budget.share_for(size).reserve(size, wanted.caller.name)
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
        """The media, from the first place that knows it."""
        query = f"?{wanted.query}" if wanted.query else ""
        *earlier, last = wanted.paths
        with_token = bool(wanted.caller.authorization)
        for path in earlier:
            async with self._connection.answer(method, path + query, wanted.caller) as response:
                if is_granted(method, response):
                    yield response
                    return
                refusal = await refusal_in(response)
            if not is_unknown_there(response.status, error_code(refusal)):
                raise problem(refusal, with_token=with_token)
        async with self._connection.answer(method, last + query, wanted.caller) as response:
            if not is_granted(method, response):
                raise problem(await refusal_in(response), with_token=with_token)
            yield response

    @asynccontextmanager
    async def _incoming(self, wanted: MediaRequest) -> AsyncIterator[_Incoming]:
        async with self._first_found("GET", wanted) as response:
            if not wanted.multipart:
                yield _plain(response)
                return
            part = await self._media_part(response)
            if part.location is None:
                yield self._part_of(response, part)
                return
        async with self._connection.elsewhere(part.location) as response:
            if response.status != 200:
                raise UpstreamFailed("the homeserver failed to hand out the media")
            yield replace(_plain(response), metadata=part.metadata)

    async def _media_part(self, response: aiohttp.ClientResponse) -> MultipartMedia:
        content_type(response)
        self._check_length(response.content_length, multipart.FRAMING)
        with _breaks_noticed(response), translated():
            async with asyncio.timeout(self._timers.idle):
                return await multipart.opened(response)

    def _part_of(self, response: aiohttp.ClientResponse, part: MultipartMedia) -> _Incoming:
        whole = response.content_length
        length = None if whole is None else min(whole, self._media_size)
        return _Incoming(response, part.content_type, part.disposition, part.read, length, part.metadata)

    # -- reading ---------------------------------------------------------------------------------

    def _size(self, media: _Incoming) -> int:
        """The most that there may be."""
        self._check_length(media.length)
        return self._media_size if media.length is None else media.length

    def _check_length(self, declared: int | None, besides: int = 0) -> None:
        if declared is not None and declared > self._media_size + besides:
            raise self._too_large()

    def _check_room(self, media: _Incoming, size: int) -> None:
        if self._size(media) > size:
            raise UpstreamFailed("the homeserver first announced a shorter body")

    async def _read(self, media: _Incoming, room: Reservation) -> Fetched:
        writer = BodyWriter(room)
        try:
            with _breaks_noticed(media.response):
                await self._read_in_time(writer, media)
            return Fetched(writer.seal(media.content_type, media.disposition), media.metadata)
        except BaseException:
            writer.discard()
            raise

    async def _read_in_time(self, writer: BodyWriter, media: _Incoming) -> None:
        now = asyncio.get_running_loop().time
        end = now() + self._timers.total
        with translated():
            async with asyncio.timeout(self._timers.idle) as limit:
                while piece := await media.read():
                    room = self._media_size - writer.size
                    if len(piece) > room:
                        writer.write(memoryview(piece)[: room + _OVERSHOOT])
                        raise self._too_large()
                    await writer.write_in_steps(piece)
                    limit.reschedule(min(now() + self._timers.idle, end))

    def _too_large(self) -> MediaTooLarge:
        return MediaTooLarge(f"the media is larger than {self._media_size} bytes")


def _plain(response: aiohttp.ClientResponse) -> _Incoming:
    return _Incoming(
        response,
        content_type(response),
        response.headers.get("Content-Disposition"),
        response.content.readany,
        response.content_length,
    )


@contextmanager
def _breaks_noticed(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Where framing breaks in the middle of a body, aiohttp hangs up and tells its reader nothing."""
    try:
        yield
    except UpstreamSilent:
        if response.connection is None or response.connection.transport is None:
            raise UpstreamFailed("the homeserver broke off or sent bad framing") from None
        raise
