"""What the homeserver's answers mean (facts/wire.md, the table of statuses and errcodes)."""

from __future__ import annotations

import asyncio
import json
import re

import aiohttp

from scanner.errors import (
    AccessDenied,
    MediaNotFound,
    MediaTooLarge,
    NotYetUploaded,
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


def problem(response: aiohttp.ClientResponse, code: str, *, with_token: bool) -> UpstreamError:
    """What stands between the caller and the media, by status and errcode."""
    status = response.status
    if status == 401:
        unnamed = "M_UNKNOWN_TOKEN" if with_token else "M_MISSING_TOKEN"
        named = code if code in ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN") else unnamed
        return AccessDenied("the homeserver refuses the access token", named)
    if status in (400, 403, 404):
        return MediaNotFound("the homeserver has no such media for you")
    if status == 413:
        return MediaTooLarge("the homeserver finds the media too large")
    if status == 429:
        return Throttled("the homeserver asks you to slow down", _retry_after(response))
    if status == 504 and code == "M_NOT_YET_UPLOADED":
        return NotYetUploaded("the media has not been uploaded yet")
    return UpstreamFailed("the homeserver failed to hand out the media")


async def error_code(response: aiohttp.ClientResponse) -> str:
    """The errcode in a refusal; none in the answer to a HEAD."""
    body = bytearray()
    try:
        async with asyncio.timeout(5):
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > _ERROR_BODY:
                    return ""
        code = json.loads(body)["errcode"]
    except (ValueError, KeyError, TypeError, RecursionError, aiohttp.ClientError, TimeoutError):
        return ""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _retry_after(response: aiohttp.ClientResponse) -> int | None:
    value = response.headers.get("Retry-After", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 9 else None
