"""What goes back over the wire: answers, the headers that they have, and how they are sent.

Headers on media are built, never relayed (facts/security.md, section 5). What errors look like is in
`dialects.py`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import sys
import termios
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from typing import Any
from urllib.parse import quote

from aiohttp import hdrs, web
from aiohttp.multipart import content_disposition_filename, parse_content_disposition

from scanner.media import Body, Progress


@dataclass(slots=True)
class Answer:
    """A response that has not been sent; holds a reference on `body` until `release`."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    payload: bytes = b""
    body: Body | None = None
    reason: str | None = None

    @property
    def size(self) -> int:
        """Bytes of the response's body."""
        return len(self.payload) if self.body is None else self.body.size

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes of it."""
        return self.payload[offset : offset + length] if self.body is None else self.body.read(offset, length)

    def release(self) -> None:
        """Sent, or never will be."""
        if self.body is not None:
            self.body.release()
            self.body = None


COMMON_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Origin, X-Requested-With, Content-Type, Accept, Authorization",
    "X-Content-Type-Options": "nosniff",
}
_JSON_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}
_MEDIA_HEADERS = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf;"
        " style-src 'unsafe-inline'; object-src 'self';"
    ),
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, max-age=3600",
}

RETRY_AFTER = 5  # seconds

# Content types that a homeserver may serve inline: client-server API, "Serving inline content".
_INLINE_TYPES = frozenset(
    f"{kind}/{name}"
    for kind, names in {
        "text": "css plain csv",
        "application": "json ld+json",
        "image": "jpeg gif png apng webp avif",
        "video": "mp4 webm ogg quicktime",
        "audio": "mp4 webm aac mpeg ogg wave wav x-wav x-pn-wav flac x-flac",
    }.items()
    for name in names.split()
)
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,127}"
_PARAMETER = rf'[ \t]*;[ \t]*({_TOKEN})=("[^"\\]*"|{_TOKEN})'
_CONTENT_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})((?:{_PARAMETER})*)[ \t]*")
_OCTET_STREAM = "application/octet-stream"
_MAX_FILENAME = 255


def json_answer(content: Mapping[str, Any], status: int = 200, reason: str | None = None) -> Answer:
    """A JSON object."""
    return Answer(status, dict(_JSON_HEADERS), json.dumps(content).encode(), reason=reason)


def preflight() -> Answer:
    """OPTIONS."""
    return Answer(204, {"Access-Control-Max-Age": "86400"})


def media(body: Body) -> Answer:
    """The media itself, under headers of our own."""
    content_type = _content_type(body.content_type)
    return Answer(
        200,
        {
            "Content-Type": content_type,
            "Content-Disposition": _content_disposition(body.disposition, content_type),
            **_MEDIA_HEADERS,
        },
        body=body.retain(),
    )


def not_modified(media: Answer) -> Answer:
    """What the caller has already, under the same headers."""
    kept = ("Cache-Control", "Content-Security-Policy", "Cross-Origin-Resource-Policy", "ETag")
    headers = {name: media.headers[name] for name in kept}
    media.release()
    return Answer(304, headers)


@lru_cache(maxsize=1024)
def _content_type(declared: str) -> str:
    """Of the parameters, the charset alone is kept."""
    match = _CONTENT_TYPE.fullmatch(declared)
    if match is None:
        return _OCTET_STREAM
    parameters = re.findall(_PARAMETER, match[2])
    charsets = [value.strip('"') for name, value in parameters if name.lower() == "charset"]
    if not charsets:
        return match[1].lower()
    well_formed = len(charsets) == 1 and re.fullmatch(_TOKEN, charsets[0])
    return f"{match[1].lower()}; charset={charsets[0]}" if well_formed else _OCTET_STREAM


def _content_disposition(declared: str | None, content_type: str) -> str:
    kind, name = _parse_disposition(declared) if declared else ("inline", None)
    inline = kind == "inline" and content_type.partition(";")[0] in _INLINE_TYPES
    disposition = "inline" if inline else "attachment"
    if not name:
        return disposition
    printable = "".join(c for c in name if c.isprintable()).encode(errors="replace")
    shortened = printable[:_MAX_FILENAME].decode(errors="ignore")
    return f"{disposition}; filename*=UTF-8''{quote(shortened, safe='')}"


@lru_cache(maxsize=1024)  # most files have one of few: `attachment`, or a phone's name for pictures
def _parse_disposition(declared: str) -> tuple[str | None, str | None]:
    """Kind and file name; a malformed header has neither."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a malformed header is the homeserver's affair: we build our own
        try:
            kind, parameters = parse_content_disposition(declared)
            return kind, content_disposition_filename(parameters)
        except ValueError:  # a codec of the homeserver's choice that is no charset, or a lone quote
            return None, None


class _Response(web.StreamResponse):
    """Without aiohttp's Server header, and with the head in one piece with the first of the body."""

    _send_headers_immediately = False

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self._headers.popall(hdrs.SERVER, None)


class _CompleteResponse(_Response, web.Response):
    """With all of its body; without aiohttp's Server header."""


def complete(answer: Answer) -> web.Response:
    """For where aiohttp sends: a malformed request never reaches `send`."""
    headers = {**COMMON_HEADERS, **answer.headers}
    return _CompleteResponse(status=answer.status, headers=headers, body=answer.payload)


_PIECE = 128 * 1024
_LOOK = 0.5  # seconds between two looks at how a reader gets on
# Bytes and seconds.
_DISCARDED = 64 * 1024 * 1024
_DISCARDING = 5.0


async def send(request: web.BaseRequest, answer: Answer, stall: float) -> web.StreamResponse:
    """Write `answer`; a reader that takes nothing for `stall` seconds is cut off."""
    response = _Response(status=answer.status, headers={**COMMON_HEADERS, **answer.headers})
    if answer.status not in (204, 304):
        response.content_length = answer.size
    if "Expect" in request.headers and not request.content.is_eof():
        response.force_close()  # who was not told to go on might send a request where we expect a body
    writer = await response.prepare(request)
    with _watched(request, answer, stall) as reader:
        # A body after a HEAD would be taken for the next response (facts/python.md).
        if request.method != "HEAD":
            for offset in range(0, answer.size, _PIECE):
                if offset:
                    await asyncio.sleep(0)  # a client that takes everything at once leaves no pause
                piece = answer.read(offset, _PIECE)
                reader.given += len(piece)
                await response.write(piece)
        await response.write_eof()
        if writer is not None:
            await writer.drain()  # what waits here counts, too, or a client could pile up answers
    return response


async def discard(request: web.BaseRequest) -> None:
    """Read what is left of a refused body, up to a point: else its sender sees a reset and no answer."""
    if request.content.at_eof():
        return
    left = _DISCARDED
    with suppress(TimeoutError, web.RequestPayloadError):
        async with asyncio.timeout(_DISCARDING):
            while left > 0 and (piece := await request.content.readany()):
                left -= len(piece)


@contextmanager
def _watched(request: web.BaseRequest, answer: Answer, stall: float) -> Iterator[_Reader]:
    room = answer.body.room if answer.body is not None else None
    with nullcontext() if room is None else room.lend(lambda: _cut(request)) as progress:
        reader = _Reader(request, progress, stall)
        try:
            yield reader
        finally:
            reader.leave()


class _Reader:
    """Looks how much a client has taken of what it was `given`; cuts it off after `stall` idle seconds.

    What the kernel still holds for the client counts as not taken: that can be megabytes, and would
    hide for a minute that nobody reads.
    """

    def __init__(self, request: web.BaseRequest, progress: Progress | None, stall: float) -> None:
        self._request = request
        self._progress = progress
        self._stall = stall
        self._loop = asyncio.get_running_loop()
        self._taken = -inf  # earlier answers may still be on their way
        self._moved = self._loop.time()
        self._timer = self._loop.call_later(self._interval, self._look)
        self.given = 0

    @property
    def _interval(self) -> float:
        return min(_LOOK, self._stall / 4)

    def leave(self) -> None:
        """All is written, or the client is gone."""
        self._timer.cancel()

    def _look(self) -> None:
        transport = self._request.transport
        if transport is None:
            return
        taken = self.given - transport.get_write_buffer_size() - _unacknowledged(transport)
        if self._progress is not None:
            self._progress.taken = max(taken, 0)
        if taken > self._taken:
            self._taken, self._moved = taken, self._loop.time()
        elif self._loop.time() - self._moved >= self._stall:
            transport.abort()
            return
        self._timer = self._loop.call_later(self._interval, self._look)


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the kernel has from us and the client's not yet: SIOCOUTQ of tcp(7)."""
    queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(queued, sys.byteorder)


def _cut(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
