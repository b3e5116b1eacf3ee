"""The media repository as we see it: one homeserver, asked with the caller's own token.

The rules: headers are built, not relayed, in both directions; a token is never in a URL and never goes to
another host; requests for the same paths and query by the same caller share one fetch, and nobody else's; a
body is read only inside a share of the budget, and never past the limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

import aiohttp

from scanner.admission import Budget, Reservation
from scanner.errors import MediaNotFound, MediaTooLarge, Unavailable, UpstreamFailed, UpstreamSilent
from scanner.events import FlightJoined, Publish, StageTimed
from scanner.media import Body, BodyWriter, MediaRef
from scanner.single_flight import SingleFlight
from scanner.upstream.answers import (
    content_type,
    error_code,
    is_granted,
    is_unknown_there,
    problem,
    refusal_in,
)
from scanner.upstream.connection import Connection, translated
from scanner.upstream.transport import Caller

_STEP = 128 * 1024
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

    They stand behind `/_matrix/`, percent-encoded; `query` is as it came.
    """

    paths: tuple[str, ...]
    caller: Caller
    query: str = ""


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
        self._fetches: SingleFlight[MediaRequest, Body] = SingleFlight(
            dispose=Body.release, joined=lambda: publish(FlightJoined("local"))
        )
        self._waiting_for_room: set[MediaRequest] = set()
        self._head_distrusted_until = float("-inf")

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
            room = self._budget.share_for(size).reserve_at_once(size, wanted.caller.name)
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
        with translated():
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
