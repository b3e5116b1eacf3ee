"""Uploads on their way to the homeserver: read whole, judged, and only then forwarded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scanner.admission import Share
from scanner.errors import InvalidMedia, MalformedRequest, UnsupportedEncoding
from scanner.events import Source
from scanner.media import MediaRef, Sample
from scanner.upstream.relay import Errand, Relay
from scanner.web.dialects import MATRIX
from scanner.web.inspection import Inspector
from scanner.web.paths import ref_in
from scanner.web.reception import receive
from scanner.web.request import Request
from scanner.web.wire import Answer, json_answer


class Uploads:
    """Handlers of the homeserver's upload routes. `media_size` is in bytes."""

    def __init__(self, *, relay: Relay, inspector: Inspector, share: Share, media_size: int) -> None:
        self._relay = relay
        self._inspector = inspector
        self._share = share
        self._media_size = media_size

    async def create(self, request: Request) -> Answer:
        """A media ID to upload to later."""
        errand = Errand("POST", "media/v1/create", request.caller, request.query)
        created = await self._relay.ask(errand, request.deadline)
        request.ref = _ref_in(created)
        return json_answer(created)

    async def upload(self, request: Request, version: str) -> Answer:
        """New media, under an ID of the homeserver's choice."""
        return await self._forward(
            request, Errand("POST", f"media/{version}/upload", request.caller, request.query)
        )

    async def put(self, request: Request) -> Answer:
        """The media that an ID was created for."""
        ref = request.ref = ref_in(request.segments)
        path = f"media/v3/upload/{ref.origin}/{ref.media_id}"
        return await self._forward(request, Errand("PUT", path, request.caller, request.query))

    async def _forward(self, request: Request, errand: Errand) -> Answer:
        content_type = _content_type(request)
        inquiry = self._inspector.inquiry(request, Source.UPLOAD, upload=True)
        body = await receive(request, self._share, await self._largest(errand, request.deadline))
        try:
            request.start_clock()  # a slow sender has used up his own time, not ours
            decision = await self._inspector.judge(inquiry, Sample(body, keyless=True))
            if not decision.deliver:
                return MATRIX.withheld(decision, request.language)
            stored = await self._relay.store(errand, body, content_type, request.deadline)
        finally:
            body.release()
        request.ref = request.ref or _ref_in(stored)
        return json_answer(stored)

    async def _largest(self, errand: Errand, deadline: float) -> int:
        """Bytes; asking the homeserver tells as well whether it knows the caller."""
        limit = await self._relay.upload_limit(errand.caller, deadline)
        return self._media_size if limit is None else min(limit, self._media_size)


def _content_type(request: Request) -> str | None:
    """As the homeserver is told. Raises UnsupportedEncoding or MalformedRequest."""
    headers = request.http.headers
    encodings = headers.getall("Content-Encoding", [])
    if any(encoding.strip().lower() != "identity" for encoding in encodings):
        raise UnsupportedEncoding("the upload must not have a Content-Encoding")
    declared = headers.get("Content-Type")  # aiohttp takes no second one
    if declared is not None and not (declared.isascii() and declared.isprintable()):
        raise MalformedRequest("the Content-Type has characters that cannot be forwarded")
    return declared


def _ref_in(answer: Mapping[str, Any]) -> MediaRef | None:
    """For the audit: which media the homeserver speaks of."""
    try:
        return MediaRef.from_mxc(str(answer.get("content_uri")))
    except InvalidMedia:
        return None
