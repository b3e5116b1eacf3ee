"""What the homeserver's answers mean (facts/wire.md, the table of statuses and errcodes)."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import Any

import aiohttp

from scanner.errors import (
    AccessDenied,
    MediaNotFound,
    MediaTooLarge,
    NotYetUploaded,
    Refusal,
    Throttled,
    UpstreamError,
    UpstreamFailed,
)

_ERROR_BODY = 64 * 1024
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def is_granted(method: str, response: aiohttp.ClientResponse) -> bool:
    """To a HEAD, the homeserver's own redirect to the bytes says as well that the caller may have them."""
    return response.status == 200 or (method == "HEAD" and response.status in (307, 308))


def is_unknown_there(status: int, code: str) -> bool:
    """Whether another endpoint may have the media: this one does not, or does not exist."""
    return status == 404 or (status == 400 and code == "M_UNRECOGNIZED")


def content_type(response: aiohttp.ClientResponse) -> str:
    """As declared; raises UpstreamFailed where it is declared twice, or the body is encoded."""
    content_types = response.headers.getall("Content-Type", [])
    if len(content_types) > 1:
        raise UpstreamFailed("the homeserver sent two Content-Types")
    encodings = response.headers.getall("Content-Encoding", [])
    if any(encoding.strip().lower() != "identity" for encoding in encodings):
        raise UpstreamFailed("the homeserver sent an encoded body")
    return content_types[0] if content_types else "application/octet-stream"


def problem(refusal: Refusal, *, with_token: bool) -> UpstreamError:
    """What stands between the caller and what he asked for, by status and errcode."""
    error = _problem(refusal.status, error_code(refusal), refusal.retry_after, with_token)
    error.refusal = refusal
    return error


def _problem(status: int, code: str, retry_after: int | None, with_token: bool) -> UpstreamError:  # noqa: FBT001 - from `problem`
    if status == 401:
        unnamed = "M_UNKNOWN_TOKEN" if with_token else "M_MISSING_TOKEN"
        named = code if code in ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN") else unnamed
        return AccessDenied("the homeserver refuses the access token", named)
    if status in (400, 403, 404):
        return MediaNotFound("the homeserver has no such media for you")
    if status == 413:
        return MediaTooLarge("the homeserver finds the media too large")
    if status == 429:
        return Throttled("the homeserver asks you to slow down", retry_after)
    if status == 504 and code == "M_NOT_YET_UPLOADED":
        return NotYetUploaded("the media has not been uploaded yet")
    return UpstreamFailed("the homeserver failed to hand out the media")


def error_code(refusal: Refusal) -> str:
    """The errcode; none in the answer to a HEAD."""
    return str(refusal.content.get("errcode", ""))


async def refusal_in(response: aiohttp.ClientResponse) -> Refusal:
    """What a response says that is not the answer we asked for."""
    content: dict[str, Any] = {}
    with suppress(UpstreamFailed, aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(5):
            content = await json_in(response, _ERROR_BODY)
    code = content.get("errcode")
    named = isinstance(code, str) and _CODE.fullmatch(code)
    return Refusal(response.status, content if named else {}, _retry_after(response))


async def json_in(response: aiohttp.ClientResponse, most: int) -> dict[str, Any]:
    """The JSON object of at most `most` bytes that a response is. Raises UpstreamFailed."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > most:
            raise UpstreamFailed("the homeserver's answer is too long")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UpstreamFailed("the homeserver's answer is no JSON object")
    return content


def _retry_after(response: aiohttp.ClientResponse) -> int | None:
    value = response.headers.get("Retry-After", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 9 else None
