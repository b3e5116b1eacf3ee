"""The scanner API of matrix-content-scanner: the same routes, the same answers (facts/wire.md).

Every handler is the same short line: what is asked, by whom -> known? -> fetched with the caller's own
token -> inspected -> decided -> answered. Whatever is known of a media, the homeserver authorises every
caller: by the fetch, or by `Upstream.authorise`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote, unquote

from scanner.crypto.attachment import AttachmentKey
from scanner.crypto.pk import ServerKeys
from scanner.errors import InvalidMedia, MalformedRequest, Unavailable
from scanner.events import Detected, Observed, Occasion, Publish, Source, StageTimed
from scanner.media import Body, MediaRef, Sample
from scanner.pipeline import Pipeline
from scanner.upstream import Endpoint, MediaRequest, Upstream
from scanner.verdict import Decision, Outcome, Policy, Verdict
from scanner.web import wire
from scanner.web.request import Request
from scanner.web.wire import Answer

# Opening and parsing more than this would hold the event loop for milliseconds.
_INLINE_BODY = 64 * 1024
# The parser holds the interpreter, in a thread as well: 25 ms for a megabyte of commas. No client sends 50.
_MAX_COMMAS = 10_000


@dataclass(frozen=True, slots=True)
class Terms:
    """What a reload of the configuration replaces, all at once."""

    policy: Policy
    keys: ServerKeys
    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class _Inquiry:
    """One request for one media, under the terms that it began with."""

    request: Request
    occasion: Occasion
    terms: Terms
    key: AttachmentKey | None = None


class ContentScanner:
    """Handlers of the scanner API. `terms` may change at any time; requests under way keep theirs."""

    def __init__(self, *, upstream: Upstream, terms: Terms, publish: Publish) -> None:
        self.terms = terms
        self._upstream = upstream
        self._publish = publish

    async def public_key(self, request: Request) -> Answer:
        """The key that clients seal request bodies to: cheap, and always up."""
        return wire.json_answer({"public_key": self.terms.keys.public_key})

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
        request.ref = _ref_in_path(request.segments)
        occasion = Occasion(request.ref, source, encrypted=False, request_id=request.id)
        inquiry = _Inquiry(request, occasion, self.terms)
        wanted = self._wanted(request, endpoint, request.ref)
        async with self._upstream.fetch(wanted, request.deadline) as body:
            return await self._inspect(inquiry, Sample(body))

    async def _encrypted(self, request: Request, source: Source) -> Answer:
        terms = self.terms
        raw = await request.body()
        ref, key = await _off_loop_if_large(raw, partial(_parse, keys=terms.keys))
        request.ref = ref
        occasion = Occasion(ref, source, encrypted=True, request_id=request.id)
        inquiry = _Inquiry(request, occasion, terms, key)
        wanted = self._wanted(request, Endpoint.DOWNLOAD, ref)
        known = await terms.pipeline.recall(ref, key.secret_material())
        if known is not None and (source is Source.SCAN or not terms.policy.decide(known).deliver):
            await self._upstream.authorise(wanted, request.deadline)
            return self._settle(inquiry, known, None)
        async with self._upstream.fetch(wanted, request.deadline) as body:
            return await self._inspect(inquiry, Sample(body, key))

    def _wanted(self, request: Request, endpoint: Endpoint, ref: MediaRef) -> MediaRequest:
        return MediaRequest(
            endpoint,
            ref,
            query=request.query,
            filename=_filename(request.segments.get("filename")),
            authorization=request.authorization,
            client_ip=request.client_ip,
            forwarded=self._upstream.transport.forwarded(request.http.headers),
        )

    async def _inspect(self, inquiry: _Inquiry, sample: Sample) -> Answer:
        key = inquiry.key
        attachment = key.secret_material() if key is not None else None
        try:
            verdict = await inquiry.terms.pipeline.inspect(
                inquiry.occasion, sample, inquiry.request.deadline, attachment
            )
        except Unavailable as problem:
            return self._unjudged(inquiry, sample.body, problem)
        return self._settle(inquiry, verdict, sample.body)

    def _unjudged(self, inquiry: _Inquiry, body: Body, problem: Unavailable) -> Answer:
        """No verdict could be had, but the bytes are here: a policy that observes hands them over."""
        occasion = inquiry.occasion
        if occasion.source is Source.SCAN or not inquiry.terms.policy.decide(Verdict(())).deliver:
            raise problem
        self._publish(Observed(occasion, Outcome.FAILED, problem.cause))
        return wire.media(body)

    def _settle(self, inquiry: _Inquiry, verdict: Verdict, body: Body | None) -> Answer:
        """Decide, tell what happened, and answer; a verdict that was known has no `body` with it."""
        decision = inquiry.terms.policy.decide(verdict)
        self._tell(inquiry, verdict, decision, body)
        language = inquiry.request.language
        if inquiry.occasion.source is Source.SCAN:
            return wire.scanned(decision, language)
        if decision.deliver and body is not None:
            return wire.media(body)
        return wire.withheld(decision, language)

    def _tell(self, inquiry: _Inquiry, verdict: Verdict, decision: Decision, body: Body | None) -> None:
        occasion, key = inquiry.occasion, inquiry.key
        seconds = time.monotonic() - inquiry.request.began
        self._publish(StageTimed("total", seconds))
        if decision.observed:
            self._publish(Observed(occasion, decision.outcome, decision.reason))
        if decision.outcome is Outcome.INFECTED:
            size = body.size if body is not None else None
            ciphertext_sha256 = key.ciphertext_sha256.hex() if key is not None else None
            self._publish(Detected(occasion, verdict, decision, size, ciphertext_sha256, seconds))


def _parse(raw: bytes, keys: ServerKeys) -> tuple[MediaRef, AttachmentKey]:
    content = _json_object(raw)
    if content.get("encrypted_body") is not None:
        content = _json_object(keys.open(content["encrypted_body"]))
    file = content.get("file")
    key = AttachmentKey.parse(file)
    url = file.get("url") if isinstance(file, dict) else None
    if not isinstance(url, str):
        raise MalformedRequest("file.url must be a string")
    try:
        return MediaRef.from_mxc(url), key
    except InvalidMedia:
        raise MalformedRequest("file.url must be a valid mxc:// URI") from None


def _ref_in_path(segments: Mapping[str, str]) -> MediaRef:
    try:
        return MediaRef(*(unquote(segments[name], errors="strict") for name in ("server", "media")))
    except UnicodeDecodeError:
        raise InvalidMedia("not a valid media ID") from None


def _filename(segment: str | None) -> str | None:
    """Decoded once and encoded anew; a dot segment would make it another path."""
    if not segment:
        return None
    filename = unquote(segment)
    if filename in (".", ".."):
        raise InvalidMedia("not a valid file name")
    return quote(filename, safe="")


async def _off_loop_if_large(
    raw: bytes, parse: Callable[[bytes], tuple[MediaRef, AttachmentKey]]
) -> tuple[MediaRef, AttachmentKey]:
    return parse(raw) if len(raw) <= _INLINE_BODY else await asyncio.to_thread(parse, raw)


def _json_object(raw: bytes) -> dict[str, object]:
    """Strict JSON in UTF-8; `from None` because the library's errors quote what they could not read."""
    if raw.count(b",") > _MAX_COMMAS:
        raise MalformedRequest("the request body has too many members")
    try:
        content = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise MalformedRequest("the request body is not JSON") from None
    if not isinstance(content, dict):
        raise MalformedRequest("the request body is not a JSON object")
    return content


def _refuse_constant(name: str) -> object:
    raise ValueError(name)
