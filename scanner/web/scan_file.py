"""A verdict on a file that is not uploaded yet, so that a client can spare itself and others the upload.

As on every route of the scanner API: whatever is in the file stays in sealed memory, inside a share of the
budget, and no engine but ours and nobody but the caller hears of it. Nothing is forwarded to anybody.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial

from scanner.admission import Share
from scanner.errors import MediaTooLarge, UnsupportedEncoding
from scanner.events import Source
from scanner.media import Body, Sample
from scanner.upstream.relay import Relay
from scanner.web.dialects import SCANNER
from scanner.web.encryption_info import attachment_key, off_loop_if_large
from scanner.web.form import MOST_INFO, Form
from scanner.web.inspection import Inspector
from scanner.web.reception import arriving
from scanner.web.request import Request
from scanner.web.wire import Answer

# The encryption info, and what holds the form together.
_BESIDE_THE_FILE = MOST_INFO + 64 * 1024


class ScanFile:
    """Handler of `scan_file`. `media_size` is in bytes."""

    def __init__(self, *, relay: Relay, inspector: Inspector, share: Share, media_size: int) -> None:
        self._relay = relay
        self._inspector = inspector
        self._share = share
        self._media_size = media_size

    async def scan_file(self, request: Request) -> Answer:
        """The verdict on the file in a form, or on its plaintext, if the form tells how to decrypt it."""
        inquiry = self._inspector.inquiry(request, Source.SCAN)
        form = self._form(request)
        await self._relay.upload_limit(request.caller, request.deadline)  # only the homeserver's own users
        body, info = await self._receive(request, form)
        try:
            request.start_clock()  # a slow sender has used up his own time, not ours
            if info is not None:
                inquiry.key = await off_loop_if_large(info, partial(attachment_key, keys=inquiry.terms.keys))
            decision = await self._inspector.judge(inquiry, Sample(body, inquiry.key))
        finally:
            body.release()
        return SCANNER.scanned(decision, request.language)

    def _form(self, request: Request) -> Form:
        headers = request.http.headers
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnsupportedEncoding("the upload must not have a Content-Encoding")
        if (request.http.content_length or 0) > self._media_size + _BESIDE_THE_FILE:
            raise MediaTooLarge(f"the media is larger than {self._media_size} bytes")
        return Form(headers.get("Content-Type", ""), self._media_size)

    async def _receive(self, request: Request, form: Form) -> tuple[Body, bytes | None]:
        """The file, inside the share, and its encryption info."""
        declared = request.http.content_length
        size = self._media_size if declared is None else min(declared, self._media_size)
        room = await self._share.reserve(size, request.caller.name)
        try:
            async with aclosing(arriving(request, room, self._media_size + _BESIDE_THE_FILE)) as pieces:
                async for piece in pieces:
                    form.feed(piece)
            body, info = form.complete()
        except BaseException:
            form.discard()
            room.close()
            raise
        body.room = room
        room.shrink(body.size)
        return body, info
