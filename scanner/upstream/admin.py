"""Synapse's admin API: media that nobody shall have, and that everybody may have again.

Synapse goes by the hash of what it stores: with one media ID every copy of the same bytes is quarantined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from scanner.errors import AccessDenied, UpstreamFailed
from scanner.media import MediaRef
from scanner.upstream.answers import error_code, json_in, refusal_in
from scanner.upstream.connection import Connection, translated
from scanner.upstream.transport import Caller

_ROOT = "_synapse/admin/v1"
_LARGEST = 64 * 1024


class Fate(StrEnum):
    """What became of a media ID; a metric label.

    `protected`: a moderator said that it must not be quarantined. `gone`: the homeserver does not have it.
    """

    QUARANTINED = "quarantined"
    PROTECTED = "protected"
    GONE = "gone"
    RELEASED = "released"


class Admin:
    """`token` is asked before each request, so that a file with a new one needs no restart.

    It may raise ConfigError.
    """

    def __init__(self, connection: Connection, token: Callable[[], str]) -> None:
        self._connection = connection
        self._token = token

    async def quarantine(self, ref: MediaRef) -> Fate:
        """Quarantine a media; Synapse says yes to all, so that it is looked at afterwards.

        Raises UpstreamError or ConfigError.
        """
        await self._ask("POST", f"media/quarantine/{ref.origin}/{ref.media_id}")
        found = await self._ask("GET", f"media/{ref.origin}/{ref.media_id}", unknown="M_NOT_FOUND")
        info = found.get("media_info") if found is not None else None
        if found is None:
            return Fate.GONE
        if not isinstance(info, dict) or info.get("quarantined_by"):
            return Fate.QUARANTINED
        if info.get("safe_from_quarantine"):
            return Fate.PROTECTED
        raise UpstreamFailed("the homeserver did not quarantine the media")

    async def release(self, ref: MediaRef) -> Fate:
        """Let everybody have it again. Raises UpstreamError or ConfigError."""
        await self._ask("POST", f"media/unquarantine/{ref.origin}/{ref.media_id}")
        return Fate.RELEASED

    async def _ask(self, method: str, path: str, unknown: str = "") -> dict[str, Any] | None:
        """None where the homeserver says so, with the errcode `unknown`; {} from one too old to tell."""
        caller = Caller(f"Bearer {await asyncio.to_thread(self._token)}")
        payload = b"" if method == "POST" else None
        async with self._connection.answer(method, path, caller, payload=payload, root=_ROOT) as response:
            if response.status == 200:
                with translated():
                    async with asyncio.timeout(self._connection.timers.total):
                        return await json_in(response, _LARGEST)
            code = error_code(await refusal_in(response))
        if response.status in (401, 403):
            raise AccessDenied("the homeserver refuses the token in homeserver.admin_token_file", code)
        if unknown and response.status == 404:
            return None if code == unknown else {}
        raise UpstreamFailed(f"the homeserver's admin API answered {response.status}")
