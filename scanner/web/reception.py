"""Media that come to us: into sealed memory, inside a share of the budget, at a decent pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import StreamReader, web

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
    the slowest sender may be cut. `share` must be able to hold `most` bytes.
    """
    declared = request.http.content_length
    if declared is not None and declared > most:
        raise too_large(most)
    room = await share.reserve(most if declared is None else declared, request.caller.name)
    writer = BodyWriter(room)
    try:
        async with aclosing(arriving(request, room, most)) as pieces:
            async for piece in pieces:
                await writer.write_in_steps(piece)
        return writer.seal(request.http.headers.get("Content-Type", "application/octet-stream"))
    except BaseException:
        writer.discard()
        raise


async def arriving(request: Request, room: Reservation, most: int) -> AsyncGenerator[bytes, None]:
    """The pieces of the request's body as they come, `most` bytes together. Raises as `receive`.

    Close it (`aclosing`) where it may not be read to its end.
    """
    await request.invite_body()
    sender = _Sender(request.http.content)
    with room.lend(sender.cut) as progress:
        while piece := await sender.piece():
            progress.taken += len(piece)
            if progress.taken > most:
                raise too_large(most)
            yield piece


def too_large(most: int) -> RequestTooLarge:
    """What may be at most `most` bytes is larger."""
    return RequestTooLarge(f"the media is larger than {most} bytes")


class _Sender:
    """A client that sends a body: waited for as long as it is neither silent nor too slow, nor `cut`.

    The timeout is never open while a piece is in use: it would cancel whoever uses it.
    """

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._overdue = self._loop.time() + SILENCE  # when more must have come; each piece puts it off
        self._waiting: asyncio.Timeout | None = None

    async def piece(self) -> bytes:
        """The next one; nothing at the end."""
        try:
            async with asyncio.timeout_at(min(self._overdue, self._loop.time() + SILENCE)) as self._waiting:
                piece = await self._content.readany()
        except TimeoutError:
            raise RequestTooSlow("the request body came too slowly, try again") from None
        except web.RequestPayloadError:
            raise MalformedRequest("the request body broke off or is badly framed") from None
        finally:
            self._waiting = None
        self._overdue += len(piece) / LOWEST_RATE
        return piece

    def cut(self) -> None:
        """Wait no longer."""
        self._overdue = self._loop.time()
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self._overdue)
