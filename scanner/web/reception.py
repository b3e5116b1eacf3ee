"""Media that come to us: into sealed memory, inside a share of the budget, at a decent pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from scanner.admission import Reservation, Share
from scanner.errors import MalformedRequest, RequestTooLarge, RequestTooSlow
from scanner.media import Body, BodyWriter
from scanner.web.request import Request

# Seconds without a byte, and bytes per second on average, below which we no longer wait for a sender.
SILENCE = 60.0
LOWEST_RATE = 4 * 1024


async def receive(request: Request, share: Share, most: int) -> Body:
    """The request's body, of at most `most` bytes; room for it is reserved before it is read.

    Raises RequestTooLarge, RequestTooSlow, MalformedRequest or Unavailable. While others wait for the share,
    the slowest sender may be cut.
    """
    declared = request.http.content_length
    if declared is not None and declared > most:
        raise too_large(most)
    room = await share.reserve(most if declared is None else declared, request.caller.name)
    writer = BodyWriter(room)
    try:
        async for piece in arriving(request, room, most):
            writer.write(piece)
        return writer.seal(request.http.headers.get("Content-Type", "application/octet-stream"))
    except BaseException:
        writer.discard()
        raise


async def arriving(request: Request, room: Reservation, most: int) -> AsyncIterator[bytes]:
    """The pieces of the request's body as they come, `most` bytes together. Raises as `receive`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await request.invite_body()
    try:
        async with asyncio.timeout(SILENCE) as limit:
            with room.lend(lambda: limit.reschedule(loop.time())) as progress:
                async for piece in request.http.content.iter_any():
                    progress.taken += len(piece)
                    if progress.taken > most:
                        raise too_large(most)
                    slowest = began + SILENCE + progress.taken / LOWEST_RATE
                    limit.reschedule(min(loop.time() + SILENCE, slowest))
                    yield piece
    except TimeoutError:
        raise RequestTooSlow("the request body came too slowly, try again") from None
    except web.RequestPayloadError:
        raise MalformedRequest("the request body broke off or is badly framed") from None


def too_large(most: int) -> RequestTooLarge:
    """What may be at most `most` bytes is larger."""
    return RequestTooLarge(f"the media is larger than {most} bytes")
