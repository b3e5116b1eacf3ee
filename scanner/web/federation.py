"""The homeserver's media for other homeservers, judged on the way: we serve no malware to others.

The signature covers method, path and query, so that these go on byte for byte as they came.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from urllib.parse import unquote

from scanner.errors import InvalidMedia
from scanner.events import Source
from scanner.media import Body, MediaRef, Sample
from scanner.upstream.fetch import Endpoint, Fetched, MediaRequest, Upstream
from scanner.upstream.signature import addressed_server
from scanner.web import wire
from scanner.web.dialects import FEDERATION
from scanner.web.inspection import Inspector
from scanner.web.request import Request
from scanner.web.wire import Answer


class Federation:
    """Handlers of the federation's media routes."""

    def __init__(self, *, upstream: Upstream, inspector: Inspector) -> None:
        self._upstream = upstream
        self._inspector = inspector

    async def download(self, request: Request) -> Answer:
        """Media, if the policy delivers them."""
        return await self._media(request, Endpoint.DOWNLOAD)

    async def thumbnail(self, request: Request) -> Answer:
        """A thumbnail; it is judged by its own bytes."""
        return await self._media(request, Endpoint.THUMBNAIL)

    async def _media(self, request: Request, endpoint: Endpoint) -> Answer:
        segment = request.segments["media"]
        request.ref = _ref(unquote(segment), request.authorization)
        inquiry = self._inspector.inquiry(request, Source.FEDERATION)
        path = f"federation/v1/media/{endpoint}/{segment}"
        # What is not signed will be refused; then a token in its query stays out of our URL.
        query = request.raw_query if "Authorization" in request.http.headers else request.query
        wanted = MediaRequest((path,), request.caller, query, multipart=True)
        async with self._upstream.fetch(wanted, request.deadline) as media:
            decision = await self._inspector.judge(inquiry, Sample(media.body, keyless=True))
            if not decision.deliver:
                return FEDERATION.withheld(decision, request.language)
            return _multipart(media)


def _ref(media_id: str, authorization: str | None) -> MediaRef | None:
    """For the audit, under the name by which the homeserver was addressed. Raises InvalidMedia."""
    MediaRef("origin.invalid", media_id)
    try:
        return MediaRef(addressed_server(authorization) or "", media_id)
    except InvalidMedia:
        return None


@dataclass(slots=True)
class _Framed(Answer):
    """A body with something before and behind it."""

    before: bytes = b""
    behind: bytes = b""

    @property
    def size(self) -> int:
        return len(self.before) + self._media.size + len(self.behind)

    def read(self, offset: int, length: int) -> bytes:
        """As `Answer.read`."""
        before = self.before[offset : offset + length]
        start, left = offset + len(before) - len(self.before), length - len(before)
        media = self._media.read(start, left) if left else b""
        start, left = start + len(media) - self._media.size, left - len(media)
        return before + media + self.behind[start : start + left]

    @property
    def _media(self) -> Body:
        assert self.body is not None, "it is released"
        return self.body


def _multipart(media: Fetched) -> Answer:
    """The object and the media as parts of a body of ours, the media under headers of ours.

    Synapse takes what stands behind `boundary=` as it is, and wants no other header in the first part.
    """
    boundary = secrets.token_hex(16).encode()
    part = wire.media(media.body)
    kept = "".join(f"{name}: {part.headers[name]}\r\n" for name in ("Content-Type", "Content-Disposition"))
    before = (
        b"--%b\r\nContent-Type: application/json\r\n\r\n%b\r\n" % (boundary, media.metadata),
        b"--%b\r\n%b\r\n" % (boundary, kept.encode()),
    )
    headers = {
        "Content-Type": f"multipart/mixed; boundary={boundary.decode()}",
        "Cache-Control": "no-store",
    }
    return _Framed(200, headers, body=part.body, before=b"".join(before), behind=b"\r\n--%b--\r\n" % boundary)
