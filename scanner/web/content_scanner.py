"""The scanner API of matrix-content-scanner: the same routes, the same answers (facts/wire.md).

Every handler is the same short line: what is asked, by whom -> known? -> fetched with the caller's own
token -> inspected -> decided -> answered. Whatever is known of a media, the homeserver authorises every
caller: by the fetch, or by `Upstream.authorise`.
"""

from __future__ import annotations

from functools import partial

from scanner.events import Source
from scanner.media import Body, MediaRef, Sample
from scanner.upstream.fetch import Endpoint, MediaRequest, Upstream, paths_to
from scanner.verdict import Decision, Verdict
from scanner.web import wire
from scanner.web.dialects import SCANNER
from scanner.web.encryption_info import located_attachment, off_loop_if_large
from scanner.web.inspection import Inquiry, Inspector
from scanner.web.paths import filename_in, ref_in
from scanner.web.request import Request
from scanner.web.wire import Answer


class ContentScanner:
    """Handlers of the scanner API."""

    def __init__(self, *, upstream: Upstream, inspector: Inspector) -> None:
        self._upstream = upstream
        self._inspector = inspector

    async def public_key(self, request: Request) -> Answer:
        """The key that clients seal request bodies to: cheap, and always up."""
        return wire.json_answer({"public_key": self._inspector.terms.keys.public_key})

    async def scan(self, request: Request) -> Answer:
        """The verdict on plain media."""
        return await self._plain(request, Endpoint.DOWNLOAD, Source.SCAN)

    async def download(self, request: Request) -> Answer:
        """Plain media, if the policy delivers them."""
        return await self._plain(request, Endpoint.DOWNLOAD, Source.DOWNLOAD)

    async def thumbnail(self, request: Request) -> Answer:
        """A thumbnail of plain media; it is judged by its own bytes."""
        return await self._plain(request, Endpoint.THUMBNAIL, Source.THUMBNAIL)

    async def scan_encrypted(self, request: Request) -> Answer:
        """The verdict on the plaintext of an encrypted attachment."""
        return await self._encrypted(request, Source.SCAN)

    async def download_encrypted(self, request: Request) -> Answer:
        """The ciphertext, if the policy delivers what it decrypts to."""
        return await self._encrypted(request, Source.DOWNLOAD)

    async def _plain(self, request: Request, endpoint: Endpoint, source: Source) -> Answer:
        request.ref = ref_in(request.segments)
        inquiry = self._inspector.inquiry(request, source)
        wanted = _wanted(request, endpoint, request.ref)
        async with self._upstream.fetch(wanted, request.deadline) as media:
            return _answer(inquiry, await self._inspector.judge(inquiry, Sample(media.body)), media.body)

    async def _encrypted(self, request: Request, source: Source) -> Answer:
        inquiry = self._inspector.inquiry(request, source)
        terms = inquiry.terms
        raw = await request.body()
        ref, key = await off_loop_if_large(raw, partial(located_attachment, keys=terms.keys))
        request.ref, inquiry.key = ref, key
        wanted = _wanted(request, Endpoint.DOWNLOAD, ref)
        known = await terms.pipeline.recall(ref, key.secret_material())
        if known is not None and self._needs_no_bytes(inquiry, known):
            await self._upstream.authorise(wanted, request.deadline)
            return _answer(inquiry, await self._inspector.settle(inquiry, known, None), None)
        async with self._upstream.fetch(wanted, request.deadline) as media:
            return _answer(inquiry, await self._inspector.judge(inquiry, Sample(media.body, key)), media.body)

    def _needs_no_bytes(self, inquiry: Inquiry, known: Verdict) -> bool:
        return inquiry.source is Source.SCAN or not self._inspector.decide(inquiry, known).deliver


def _answer(inquiry: Inquiry, decision: Decision, body: Body | None) -> Answer:
    """What was known without fetching has no `body` with it."""
    language = inquiry.request.language
    if inquiry.source is Source.SCAN:
        return SCANNER.scanned(decision, language)
    if decision.deliver and body is not None:
        return wire.media(body)
    return SCANNER.withheld(decision, language)


def _wanted(request: Request, endpoint: Endpoint, ref: MediaRef) -> MediaRequest:
    caller = request.caller
    filename = filename_in(request.segments)
    paths = paths_to(endpoint, ref, filename, authenticated=bool(caller.authorization))
    return MediaRequest(paths, caller, request.query)
