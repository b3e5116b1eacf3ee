"""The HTTP edge: what every connection, every request and every answer have in common.

aiohttp's low-level server does the protocol; what it does by default and we do not want is listed in
facts/python.md and changed here: clients that vanish, half-sent heads, malformed requests that would
echo a token into the log, the Server header, decompression.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, cast

from aiohttp import StreamReader, web
from multidict import MultiMapping

from scanner.errors import (
    AccessDenied,
    DecryptionError,
    MalformedRequest,
    MediaTooLarge,
    RequestTooLarge,
    ScannerError,
    SealedBodyError,
    Unavailable,
)
from scanner.events import Answered, BadRequest, Crashed, DecryptFailed, Event, Publish, Rejected
from scanner.upstream.transport import Forwarded
from scanner.web import wire
from scanner.web.dialects import SCANNER, method_not_allowed, unrecognized
from scanner.web.request import Request
from scanner.web.routes import Route, Router, split_target
from scanner.web.texts import Language
from scanner.web.wire import Answer

Networks = Sequence[IPv4Network | IPv6Network]

_HEAD_TIMEOUT = 10.0
_KEEPALIVE = 75.0
_LARGE_BODIES = 16  # requests with a body larger than any client's that are read at once
_READ_BUFFER = 64 * 1024  # twice as much, and one read, is held of a body that nobody has made room for yet
UNKNOWN_ROUTE = "unknown"


class _Connection(web.RequestHandler):
    """One connection: a head must be complete within 10 s; what is no HTTP is answered without an echo."""

    __slots__ = ("_closes_later", "_head_timer", "_publish", "_site")

    def __init__(
        self, site: Site, publish: Publish, server: web.Server, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # the log is a sink of events
            auto_decompress=False,
            keepalive_timeout=_KEEPALIVE,
            lingering_time=0,  # `wire.discard`
            read_bufsize=_READ_BUFFER,
        )
        self._site = site
        self._publish = publish
        self._head_timer: asyncio.TimerHandle | None = None
        self._closes_later = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._head_timer = self._loop.call_later(_HEAD_TIMEOUT, self._head_overdue)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        body = self._unfinished_body()
        if body is not None and self._messages:
            # Nothing can follow half a body but bad framing, of which aiohttp tells its reader nothing.
            body.set_exception(web.RequestPayloadError("bad framing"))
        if body is None and self._closes_later:
            self.close()
        if self._waits_for_head():
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(_HEAD_TIMEOUT, self._head_overdue)
        else:
            self._stop_head_timer()

    def close(self) -> None:
        """An idle connection would stay open, and deaf, until the last request on another has ended.

        Deaf as it is from now on, it must have got the rest of an upload first.
        """
        if self._unfinished_body() is not None:
            self._closes_later = True
            return
        idle = self._waiter is not None and not self._waiter.done()
        super().close()
        if idle:
            self.force_close()

    def _unfinished_body(self) -> StreamReader | None:
        """Of the request that is being answered, while more of it may come."""
        request = self._current_request
        return None if request is None or request.content.is_eof() else request.content

    def _waits_for_head(self) -> bool:
        return not self._messages and self._current_request is None

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self._waits_for_head():
            self.force_close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """By default a traceback is logged, with the offending line and perhaps a token in it."""
        if isinstance(exc, ConnectionError) or request.writer.output_size:
            raise ConnectionError("the client is gone, or has half an answer")
        self._publish(BadRequest(type(exc).__name__ if exc is not None else "unknown"))
        response = wire.complete(SCANNER.malformed(self._site.language))
        response.force_close()
        return response


class _Server(web.Server):
    """Makes connections of our kind."""

    def __init__(self, site: Site, publish: Publish) -> None:
        super().__init__(site.respond, handler_cancellation=True)
        self._site = site
        self._publish = publish

    def __call__(self) -> _Connection:
        return _Connection(self._site, self._publish, self, self._loop)


class Site:
    """One listener: its routes, and what they have in common.

    `trusted_proxies` and `language` may change at any time; a request keeps those it began with.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        publish: Publish,
        request_timeout: float,
        reader_timeout: float,
        trusted_proxies: Networks,
        language: Language = "en",
        forwarded: Callable[[MultiMapping[str]], Forwarded] = lambda _: (),
    ) -> None:
        self._router = Router(routes)
        self._publish = publish
        self._request_timeout = request_timeout
        self._reader_timeout = reader_timeout
        self.trusted_proxies = trusted_proxies
        self.language = language
        self._forwarded = forwarded
        self._requests: set[asyncio.Task[Any]] = set()
        self._large_bodies = asyncio.Semaphore(_LARGE_BODIES)
        self._draining = False
        self._runner: web.ServerRunner | None = None

    @property
    def in_flight(self) -> int:
        """Requests that are being answered; a gauge."""
        return len(self._requests)

    async def listen(self, host: str, port: int) -> int:
        """Start to accept; returns the port. Raises OSError where the address is not to be had."""
        self._runner = web.ServerRunner(_Server(self, self._publish), shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=1024)
        await site.start()
        address: tuple[Any, ...] = self._runner.addresses[0]
        return int(address[1])

    async def drain(self, seconds: float) -> None:
        """Stop accepting, let requests finish for so long, answer the rest 503, and close."""
        if self._runner is None:
            return
        for site in list(self._runner.sites):
            await site.stop()
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()
        if self._requests:
            await asyncio.wait(self._requests, timeout=seconds)
        self._draining = True
        for request in self._requests:
            request.cancel()
        await self._runner.cleanup()

    async def respond(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._requests.add(task)
        began = time.monotonic()
        try:
            request, template, answer = await self._answer(http)
            try:
                response = await wire.send(http, answer, self._reader_timeout)
            finally:
                answer.release()
        finally:
            self._requests.discard(task)
        self._publish(
            Answered(
                template,
                http.method,
                answer.status,
                time.monotonic() - began,
                request.id if request is not None else "",
                answer.reason,
                request.ref if request is not None else None,
            )
        )
        await wire.discard(http)
        return response

    async def _answer(self, http: web.BaseRequest) -> tuple[Request | None, str, Answer]:
        path, query, token = split_target(http.raw_path)
        found = self._router.find(path)
        if found is None:
            return None, UNKNOWN_ROUTE, unrecognized(404, "no such route")
        answered = await self._answer_on(*found, http, query, token)
        answered[-1].headers.update(found[0].dialect.headers)
        return answered

    async def _answer_on(
        self, route: Route, segments: Mapping[str, str], http: web.BaseRequest, query: str, token: str | None
    ) -> tuple[Request | None, str, Answer]:
        if http.method == "OPTIONS":
            return None, route.template, wire.preflight()
        if not route.allows(http.method):
            return None, route.template, method_not_allowed(route.method)
        try:
            request = self._request(http, segments, query, token)
        except ScannerError as error:
            return None, route.template, route.dialect.refusal(error, self.language)
        return request, route.template, await self._handle(route, request)

    def _request(
        self, http: web.BaseRequest, segments: Mapping[str, str], query: str, token: str | None
    ) -> Request:
        return Request(
            http,
            segments,
            query,
            self._request_timeout,
            _authorization(http, token),
            self._client_ip(http),
            self._large_bodies,
            self._forwarded,
            self.language,
        )

    async def _handle(self, route: Route, request: Request) -> Answer:
        try:
            return await route.handler(request)
        except ScannerError as error:
            for event in _consequences(error):
                self._publish(event)
            return route.dialect.refusal(error, request.language)
        except asyncio.CancelledError:
            if not self._draining or request.http.transport is None:
                raise
            self._publish(Rejected("shutdown"))
            stopping = Unavailable("shutting down, try again", "shutdown")
            return route.dialect.refusal(stopping, request.language)
        except Exception as error:  # noqa: BLE001 - the outermost guard: a bug of ours is one failed request
            self._publish(Crashed(route.template, type(error).__name__, _where(error), request.id))
            return route.dialect.crashed(request.language)

    def _client_ip(self, http: web.BaseRequest) -> str | None:
        """The peer's address, or what a trusted proxy says of it; never a caller's own word."""
        peer = http.transport.get_extra_info("peername") if http.transport is not None else None
        address = str(peer[0]) if isinstance(peer, tuple) else None
        if "X-Forwarded-For" not in http.headers:
            return address
        hops = [hop.strip() for hop in ",".join(http.headers.getall("X-Forwarded-For")).split(",")]
        while address is not None and hops and self._is_trusted(address):
            hop = hops.pop()
            if not _is_address(hop):
                break
            address = hop
        return address

    def _is_trusted(self, address: str) -> bool:
        parsed = ip_address(address)
        return any(parsed in network for network in self.trusted_proxies)


def _authorization(http: web.BaseRequest, token: str | None) -> str | None:
    """The caller's own; a token in the query becomes a header, and counts only without one."""
    headers = http.headers.getall("Authorization", [])
    if len(headers) > 1:
        raise MalformedRequest("more than one Authorization header")
    credentials = headers[0] if headers else f"Bearer {token}" if token else ""
    if not (credentials.isascii() and credentials.isprintable()):
        raise AccessDenied("the access token has characters that no token can have", "M_UNKNOWN_TOKEN")
    return credentials or None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _consequences(error: ScannerError) -> list[Event]:
    if isinstance(error, DecryptionError):
        return [DecryptFailed(error.cause)]
    if isinstance(error, SealedBodyError):
        return [DecryptFailed("body")]
    if isinstance(error, Unavailable):
        return [Rejected(error.cause)]
    if isinstance(error, MediaTooLarge | RequestTooLarge):
        return [Rejected("too_large")]
    return []


def _where(error: Exception) -> str:
    """File and line, and no values: a traceback could show a key."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
