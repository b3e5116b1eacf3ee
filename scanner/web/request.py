"""One request as our handlers see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex

from aiohttp import HttpVersion11, web
from multidict import MultiMapping

from scanner.errors import MalformedRequest, RequestTooLarge, Unavailable
from scanner.media import MediaRef
from scanner.upstream.transport import Caller, Forwarded
from scanner.web.texts import Language

_MAX_BODY = 1024 * 1024
# Ten times what clients send; of larger ones only so many are held at once (`Site`).
_ORDINARY_BODY = 16 * 1024


@dataclass(slots=True)
class Request:
    """A matched request. `deadline` is in the event loop's time, `segments` are still percent-encoded."""

    http: web.BaseRequest
    segments: Mapping[str, str]
    query: str
    timeout: float
    authorization: str | None = field(repr=False)
    client_ip: str | None
    large_bodies: asyncio.Semaphore
    forwarded: Callable[[MultiMapping[str]], Forwarded] = field(repr=False)
    language: Language = "en"
    deadline: float = field(init=False)
    began: float = field(init=False)
    id: str = field(default_factory=lambda: token_hex(16))
    ref: MediaRef | None = None
    checked: bool = True  # as in `Caller`
    _caller: Caller | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        self.start_clock()

    def start_clock(self) -> None:
        """From now on there is as much time as a request may take."""
        self.began = time.monotonic()
        self.deadline = asyncio.get_running_loop().time() + self.timeout

    @property
    def raw_query(self) -> str:
        """Byte for byte: `query` has no token, and that may be enough to break a signature."""
        return self.http.raw_path.partition("?")[2]

    @property
    def caller(self) -> Caller:
        """As the homeserver is told of him. Raises MalformedRequest."""
        if self._caller is None or self._caller.checked != self.checked:
            forwarded = self.forwarded(self.http.headers)
            self._caller = Caller(self.authorization, self.client_ip, forwarded, self.checked)
        return self._caller

    async def body(self) -> bytes:
        """The request's body, at most 1 MiB, within the deadline. Raises ClientError or Unavailable."""
        too_large = RequestTooLarge("the request body is over 1 MiB")
        if (self.http.content_length or 0) > _MAX_BODY:
            raise too_large
        await self.invite_body()
        pieces = bytearray()
        try:
            async with asyncio.timeout_at(self.deadline):
                if await self._reads_over(_ORDINARY_BODY, pieces):
                    if self.large_bodies.locked():  # waiting would hold what has come
                        raise Unavailable("too many large requests under way, try again", "overload")
                    async with self.large_bodies:
                        if await self._reads_over(_MAX_BODY, pieces):
                            raise too_large
        except TimeoutError:
            raise MalformedRequest("the request body did not arrive in time") from None
        except web.RequestPayloadError:
            raise MalformedRequest("the request body broke off or is badly framed") from None
        return bytes(pieces)

    async def _reads_over(self, size: int, pieces: bytearray) -> bool:
        """Whether the body is larger than `size`; if not, `pieces` has all of it."""
        while len(pieces) <= size:
            piece = await self.http.content.readany()
            if not piece:
                return False
            pieces += piece
        return True

    async def invite_body(self) -> None:
        """Only now, after all that the head tells: aiohttp would answer before any handler runs."""
        waits = self.http.headers.get("Expect", "").lower() == "100-continue"
        if waits and self.http.version >= HttpVersion11 and self.http.transport is not None:
            self.http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
