"""Federated media: multipart/mixed of a JSON object and the media, or of where they are (facts/wire.md).

What is not exactly that is refused: two readers of a doubtful body could see different media in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import BodyPartReader, MultipartReader
from aiohttp.http import HttpProcessingError

from scanner.errors import UpstreamFailed

# Bytes of such a body that may be other than media: far more than any homeserver's.
FRAMING = 128 * 1024

_MOST_METADATA = 64 * 1024
_MOST_HEADERS = 16
_LONGEST_HEADER = 4 * 1024
_STEP = 64 * 1024
_ENCODINGS = ("Content-Encoding", "Content-Transfer-Encoding", "Transfer-Encoding")


class MultipartMedia:
    """The media part, of which nothing has been read yet; valid as long as its response.

    `metadata` is the JSON object before it, as it came.
    """

    def __init__(self, metadata: bytes, parts: MultipartReader, part: BodyPartReader) -> None:
        self.metadata = metadata
        self._parts = parts
        self._part = part
        self.content_type = self._header("Content-Type") or "application/octet-stream"
        self.disposition = self._header("Content-Disposition")
        self.location = self._header("Location")

    async def read(self) -> bytes:
        """The next piece; empty at the end, behind which nothing may follow. Raises UpstreamFailed."""
        with _understood():
            while not self._part.at_eof():
                if piece := await self._part.read_chunk(_STEP):
                    return piece
            if await self._parts.next() is not None:
                raise _not_understood()
        return b""

    def _header(self, name: str) -> str | None:
        values = self._part.headers.getall(name, [])
        if len(values) > 1:
            raise _not_understood()
        return values[0] if values else None


async def opened(response: aiohttp.ClientResponse) -> MultipartMedia:
    """Read a response up to its media. Raises UpstreamFailed."""
    if response.content_type != "multipart/mixed":
        raise _not_understood()
    with _understood():
        parts = MultipartReader(
            response.headers, response.content, max_field_size=_LONGEST_HEADER, max_headers=_MOST_HEADERS
        )
        metadata = await _metadata_in(await _next_part(parts))
        return MultipartMedia(metadata, parts, await _next_part(parts))


async def _next_part(parts: MultipartReader) -> BodyPartReader:
    part = await parts.next()
    if not isinstance(part, BodyPartReader):  # there is none, or it is multipart itself
        raise _not_understood()
    if any(name in part.headers for name in _ENCODINGS):
        raise UpstreamFailed("the homeserver sent an encoded body")
    return part


async def _metadata_in(part: BodyPartReader) -> bytes:
    if part.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        raise _not_understood()
    content = bytearray()
    while not part.at_eof():
        content += await part.read_chunk(_STEP)
        if len(content) > _MOST_METADATA:
            raise UpstreamFailed("the homeserver's answer is too long")
    if not isinstance(json.loads(content.decode()), dict):
        raise UpstreamFailed("the homeserver's answer is no JSON object")
    return bytes(content)


@contextmanager
def _understood() -> Iterator[None]:
    """What aiohttp's reader raises, in our words; breaks in the connection are not its affair."""
    try:
        yield
    except (ValueError, RecursionError, HttpProcessingError):
        raise _not_understood() from None


def _not_understood() -> UpstreamFailed:
    return UpstreamFailed("the homeserver sent media in a form that it must not have")
