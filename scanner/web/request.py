"""One request as our handlers see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from aiohttp import HttpVersion11, web

from scanner.errors import MalformedRequest, RequestTooLarge
from scanner.media import MediaRef

_MAX_BODY = 1024 * 1024


@dataclass(slots=True)
class Request:
    """A matched request. `deadline` is in the event loop's time, `segments` are still percent-encoded."""

    http: web.BaseRequest
    segments: Mapping[str, str]
    query: str
    deadline: float
    authorization: str | None = field(repr=False)
    client_ip: str | None
    began: float = field(default_factory=time.monotonic)
    id: str = field(default_factory=lambda: uuid4().hex)
    ref: MediaRef | None = None

    async def body(self) -> bytes:
        """The request's body, at most 1 MiB, within the deadline."""
        too_large = RequestTooLarge("the request body is over 1 MiB")
        if (self.http.content_length or 0) > _MAX_BODY:
            raise too_large
        await self._invite_body()
        pieces = bytearray()
        try:
            async with asyncio.timeout_at(self.deadline):
                async for piece in self.http.content.iter_any():
                    pieces += piece
                    if len(pieces) > _MAX_BODY:
                        raise too_large
        except TimeoutError:
            raise MalformedRequest("the request body did not arrive in time") from None
        except web.RequestPayloadError:
            raise MalformedRequest("the request body broke off or is badly framed") from None
        return bytes(pieces)

    async def _invite_body(self) -> None:
        """Only now, after all that the head tells: aiohttp would answer before any handler runs."""
        waits = self.http.headers.get("Expect", "").lower() == "100-continue"
        if waits and self.http.version >= HttpVersion11 and self.http.transport is not None:
            self.http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
