"""A scanner elsewhere: what a running service makes of files of ours, asked over its inspection route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp

from scanner.crypto.pk import format_secret
from scanner.errors import ScannerError, Unavailable
from scanner.media import STEP, Body
from scanner.verdict import Detection, Outcome, Reason, Report, Verdict

_ROUTE = "/_media_scanner/v1/inspect"
_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=10)
_MAX_ANSWER = 64 * 1024


class RemoteScanner:
    """Asks the operations listener at `url`; an async context manager.

    A scanner that is busy is asked again for `patience` seconds.
    """

    def __init__(self, url: str, secret: bytes, patience: float = 60.0) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {format_secret(secret)}"}
        self._patience = patience

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def inspect(self, body: Body) -> Verdict:
        """The verdict on a file, sent only where its hash is unknown.

        Raises Unavailable where the scanner cannot judge now, ScannerError where it never will.
        """
        end = asyncio.get_running_loop().time() + self._patience
        while True:
            try:
                told = await self._ask(body, None)
                if told.get("known") is False:
                    told = await self._ask(body, _pieces(body))
                return _verdict(told)
            except Unavailable as problem:
                if asyncio.get_running_loop().time() + problem.retry_after > end:
                    raise
                await asyncio.sleep(problem.retry_after)

    async def _ask(self, body: Body, content: AsyncIterator[bytes] | None) -> dict[str, Any]:
        query = urlencode({"sha256": body.sha256.hex(), "size": body.size, "purpose": "file"})
        length = {"Content-Length": str(body.size if content is not None else 0)}
        try:
            async with self._session.post(
                f"{self._url}{_ROUTE}?{query}", data=content, headers=length, allow_redirects=False
            ) as answer:
                return _content(answer, await answer.content.read(_MAX_ANSWER), self._url)
        except (aiohttp.ClientError, TimeoutError) as problem:
            why = str(problem) or "timeout"
            raise ScannerError(f"no scanner answers at {self._url}: {why}") from None


async def _pieces(body: Body) -> AsyncIterator[bytes]:
    for offset in range(0, body.size, STEP):
        yield body.read(offset, STEP)


def _content(answer: aiohttp.ClientResponse, raw: bytes, url: str) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        content = {}
    if answer.status == 200 and content:
        return content
    error = str(content.get("error", f"answered {answer.status}"))
    if answer.status == 503:
        after = answer.headers.get("Retry-After", "")
        raise Unavailable(error, "overload", int(after) if after.isdecimal() else 5)
    if answer.status == 404:
        error = "no inspection route: is server.inspect_secret_file set, and this the operations listener?"
    raise ScannerError(f"{url}: {error}")


def _verdict(told: dict[str, Any]) -> Verdict:
    """As if one engine had said it."""
    try:
        outcome, reason = Outcome[str(told["outcome"]).upper()], told["reason"]
        found = _found(told)
        return Verdict((Report("remote", outcome, reason=reason and Reason(reason), detections=found),))
    except (KeyError, TypeError, ValueError):
        raise ScannerError("the scanner answers something else than a decision") from None


def _found(told: dict[str, Any]) -> tuple[Detection, ...]:
    """What is remembered there has its signatures alone."""
    found = told.get("found") or [{"signature": name, "path": ""} for name in told["signatures"]]
    return tuple(Detection(str(each["signature"]), str(each["path"])) for each in found)
