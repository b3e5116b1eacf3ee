"""What else the homeserver is asked for its clients: small JSON answers, and to store what was judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from scanner.errors import AccessDenied, Refusal, Throttled, UpstreamError, UpstreamFailed, UpstreamSilent
from scanner.media import Body
from scanner.upstream.answers import error_code, is_unknown_there, json_in, problem, refusal_in
from scanner.upstream.connection import Connection, translated
from scanner.upstream.transport import Caller

_MOST = 1024 * 1024
_PIECE = 128 * 1024
_LIMIT = "m.upload.size"
# Of a media repository with authentication, then of one without: both know the caller's token.
_CONFIG = ("client/v1/media/config", "media/v3/config")


@dataclass(frozen=True, slots=True)
class Errand:
    """A request in a caller's name.

    `path` stands behind `/_matrix/`, percent-encoded; `query` is as it came.
    """

    method: str
    path: str
    caller: Caller
    query: str = ""


class Relay:
    """Asks the homeserver in a caller's name, for JSON objects of at most 1 MiB."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ask(self, errand: Errand, deadline: float) -> dict[str, Any]:
        """The homeserver's answer. Raises UpstreamError, with its own words where it refuses."""
        return await self._send(errand, deadline)

    async def store(
        self, errand: Errand, body: Body, content_type: str | None, deadline: float
    ) -> dict[str, Any]:
        """Hand over an upload, whole and with its length: Synapse takes no other. Raises UpstreamError."""
        headers = {"Content-Length": str(body.size)}
        if content_type is not None:
            headers["Content-Type"] = content_type
        return await self._send(errand, deadline, headers, _Pieces(body) if body.size else b"")

    async def upload_limit(self, caller: Caller, deadline: float) -> int | None:
        """The largest upload that the homeserver takes, in bytes, if it says so.

        Raises AccessDenied where it does not know the caller: the cheapest question that only its users may
        ask (facts/wire.md).
        """
        if caller.authorization is None:
            raise AccessDenied("an access token is needed", "M_MISSING_TOKEN")
        limit = (await self._config(caller, deadline)).get(_LIMIT)
        return limit if isinstance(limit, int) else None

    async def _config(self, caller: Caller, deadline: float) -> dict[str, Any]:
        authenticated, frozen = (Errand("GET", path, caller) for path in _CONFIG)
        try:
            return await self.ask(authenticated, deadline)
        except UpstreamError as error:
            refusal = error.refusal
            if refusal is None or not is_unknown_there(refusal.status, error_code(refusal)):
                raise
        return await self.ask(frozen, deadline)

    async def _send(
        self,
        errand: Errand,
        deadline: float,
        headers: Mapping[str, str] | None = None,
        payload: _Pieces | bytes | None = None,
    ) -> dict[str, Any]:
        path = f"{errand.path}?{errand.query}" if errand.query else errand.path
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._connection.answer(
                    errand.method, path, errand.caller, headers=headers, payload=payload
                ) as response,
            ):
                if response.status != 200:
                    raise _refused(errand, await refusal_in(response))
                with translated():
                    async with asyncio.timeout(self._connection.timers.idle):  # it is short, and was ready
                        return await json_in(response, _MOST)
        except TimeoutError:
            raise UpstreamSilent("the homeserver did not answer in time") from None


def _refused(errand: Errand, refusal: Refusal) -> UpstreamError:
    """What no word of Matrix explains is not about media: a proxy before the homeserver may have said it."""
    error = problem(refusal, with_token=errand.caller.authorization is not None)
    if not refusal.content and not isinstance(error, AccessDenied | Throttled):
        error = UpstreamFailed("the homeserver refused the request or failed")
        error.refusal = refusal
    return error


class _Pieces:
    """A body for the socket; can be read again where a connection turns out to be stale."""

    def __init__(self, body: Body) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for offset in range(0, self._body.size, _PIECE):
            if offset:
                await asyncio.sleep(0)  # a homeserver that takes everything at once leaves no pause
            yield self._body.read(offset, _PIECE)
