"""One request, its whole answer, and in words why there is none."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

TIMEOUT = 6.0  # seconds
_MAX_BODY = 256 * 1024


class NoAnswer(Exception):
    """`found` is what stands in the way, `advice` what to do about it; `refused`: nobody listens there."""

    def __init__(self, found: str, advice: str, *, refused: bool = False) -> None:
        super().__init__(found)
        self.found = found
        self.advice = advice
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `content` is its JSON object, empty where there is none; `asked_at` is Unix time."""

    status: int
    headers: Mapping[str, str]
    content: dict[str, Any]
    asked_at: float
    seconds: float


class Client:
    """Asks one server. `key` is the configuration key that says where it is."""

    def __init__(self, session: aiohttp.ClientSession, base: str, key: str, proxy: str | None = None) -> None:
        self._session = session
        self._base = base
        self._key = key
        self._proxy = proxy

    async def get(self, path: str, token: str | None = None) -> Reply:
        """Follows no redirect. Raises NoAnswer."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._get(path, {"Authorization": f"Bearer {token}"} if token else {})
        except TimeoutError:
            advice = f"look at its log; is {self._key} the right address?"
            raise NoAnswer(f"no answer within {TIMEOUT:.0f} s", advice) from None
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise self._explained(problem) from None

    async def _get(self, path: str, headers: dict[str, str]) -> Reply:
        asked_at, began = time.time(), time.monotonic()
        async with self._session.get(
            self._base + path, headers=headers, proxy=self._proxy, allow_redirects=False
        ) as response:
            seconds = time.monotonic() - began
            body = b""
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > _MAX_BODY:
                    break
            return Reply(response.status, response.headers, _object(body), asked_at, seconds)

    def _explained(self, problem: Exception) -> NoAnswer:
        if isinstance(problem, aiohttp.ClientConnectorCertificateError):
            return _distrusted(problem.certificate_error, self._key)
        if isinstance(problem, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
            return NoAnswer("the proxy does not let us through", "correct homeserver.proxy, or the proxy")
        if isinstance(problem, aiohttp.ClientConnectorSSLError):
            return NoAnswer("speaks no TLS that we understand", f"check http or https in {self._key}")
        if isinstance(problem, aiohttp.ClientConnectorDNSError):
            return NoAnswer("there is no host of that name", f"correct {self._key}")
        if isinstance(problem, aiohttp.ClientConnectorError):
            return _unreached(problem.os_error, self._key)
        return NoAnswer("breaks off, or speaks no HTTP", f"check address and http or https in {self._key}")


@asynccontextmanager
async def session(
    trust: ssl.SSLContext | None = None, headers: Mapping[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """`trust` says whose certificates are believed, None: the system's."""
    connector = aiohttp.TCPConnector(ssl=trust or True)
    async with aiohttp.ClientSession(
        connector=connector, headers={"User-Agent": "matrix-media-scanner", **(headers or {})}
    ) as opened:
        yield opened


def _unreached(problem: OSError, key: str) -> NoAnswer:
    number = problem.errno
    found = f"cannot be reached: {os.strerror(number) if number else 'no connection'}"
    return NoAnswer(found, f"start it, or correct {key}", refused=number == errno.ECONNREFUSED)


def _distrusted(problem: Exception, key: str) -> NoAnswer:
    reason = getattr(problem, "verify_message", None) or "unknown reason"
    if "hostname" in reason.lower() or "ip address mismatch" in reason.lower():
        return NoAnswer(f"its certificate is for another name: {reason}", f"use that name in {key}")
    return NoAnswer(f"its certificate is not believed: {reason}", "name its authority in homeserver.ca_file")


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
