"""What the homeserver hands out itself, judged on the way: for clients that know nothing of a scanner.

Ciphertext carries no key here. It skips no engine; what is opaque is the policy's to decide.
"""

from __future__ import annotations

from urllib.parse import unquote, unquote_plus

from scanner.events import Source
from scanner.media import Body, Sample
from scanner.upstream.fetch import Endpoint, MediaRequest, Upstream
from scanner.upstream.relay import Errand, Relay
from scanner.web import wire
from scanner.web.dialects import MATRIX
from scanner.web.inspection import Inspector
from scanner.web.paths import filename_in, ref_in
from scanner.web.request import Request
from scanner.web.wire import Answer, json_answer

# Where the homeserver looks at tokens: the frozen places hand out media to whatever token there is.
_CHECKED = "client/v1/media"
# Ours to wait for media that are not uploaded yet; clients may ask for any time.
_LONGEST_WAIT = 20_000
_LIMIT = "m.upload.size"
# As Synapse has it: the frozen places still hand out old media to everybody.
_NOT_FOR_CRAWLERS = {"X-Robots-Tag": "noindex, nofollow, noarchive, noimageindex"}


class HomeserverMedia:
    """Handlers of the homeserver's download routes; `prefix` is the one that was asked."""

    def __init__(self, *, upstream: Upstream, relay: Relay, inspector: Inspector, media_size: int) -> None:
        self._upstream = upstream
        self._relay = relay
        self._inspector = inspector
        self._media_size = media_size

    async def download(self, request: Request, prefix: str) -> Answer:
        """Media, if the policy delivers them."""
        return await self._media(request, prefix, Endpoint.DOWNLOAD, Source.DOWNLOAD)

    async def thumbnail(self, request: Request, prefix: str) -> Answer:
        """A thumbnail; it is judged by its own bytes."""
        return await self._media(request, prefix, Endpoint.THUMBNAIL, Source.THUMBNAIL)

    async def config(self, request: Request, prefix: str) -> Answer:
        """What the homeserver says of its limits, and at most ours."""
        config = await self._ask(request, f"{prefix}/config")
        limit = config.get(_LIMIT)
        smaller = min(limit, self._media_size) if isinstance(limit, int) else self._media_size
        return json_answer({**config, _LIMIT: smaller})

    async def preview_url(self, request: Request, prefix: str) -> Answer:
        """What the homeserver says of a web page; its pictures are media like any other."""
        return json_answer(await self._ask(request, f"{prefix}/preview_url"))

    async def _ask(self, request: Request, path: str) -> dict[str, object]:
        return await self._relay.ask(Errand("GET", path, request.caller, request.query), request.deadline)

    async def _media(self, request: Request, prefix: str, endpoint: Endpoint, source: Source) -> Answer:
        ref = request.ref = ref_in(request.segments)
        request.checked = prefix == _CHECKED
        filename = filename_in(request.segments)
        path = f"{prefix}/{endpoint}/{ref.origin}/{ref.media_id}" + (f"/{filename}" if filename else "")
        inquiry = self._inspector.inquiry(request, source)
        wanted = MediaRequest((path,), request.caller, _understood(request.query))
        async with self._upstream.fetch(wanted, request.deadline) as media:
            decision = await self._inspector.judge(inquiry, Sample(media.body, keyless=True))
            if not decision.deliver:
                return MATRIX.withheld(decision, request.language)
            return _delivered(request, media.body)


def _delivered(request: Request, body: Body) -> Answer:
    """The media, or that the caller has them already: If-None-Match is ours to answer, after the verdict."""
    etag = f'"{body.sha256.hex()[:32]}"'
    known = ",".join(request.http.headers.getall("If-None-Match", []))
    answer = wire.media(body)
    answer.headers.update({"ETag": etag, **_NOT_FOR_CRAWLERS})
    if etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return wire.not_modified(answer)
    return answer


def _understood(query: str) -> str:
    """The caller's query as we pass it on: we wait for so long, and follow redirects ourselves."""
    parameters = []
    for parameter in filter(None, query.split("&")):
        name, _, value = parameter.partition("=")
        if unquote(name) == "timeout_ms":
            parameters.append(f"{name}={_waited(value)}")
        elif unquote(name) != "allow_redirect":
            parameters.append(parameter)
    return "&".join(parameters)


def _waited(value: str) -> str:
    """As Synapse reads a number; what is none is the homeserver's to refuse."""
    try:
        return str(min(int(unquote_plus(value)), _LONGEST_WAIT))
    except ValueError:
        return value
