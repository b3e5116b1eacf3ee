"""What callers tell of an encrypted attachment: JSON, in the clear or sealed to a key of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from scanner.crypto.attachment import AttachmentKey
from scanner.crypto.pk import ServerKeys
from scanner.errors import InvalidMedia, MalformedRequest
from scanner.media import MediaRef

# Opening and parsing more than this would hold the event loop for milliseconds.
_INLINE_BODY = 64 * 1024
# The parser holds the interpreter, in a thread as well: 25 ms for a megabyte of commas. No client sends 50.
_MAX_COMMAS = 10_000

_T = TypeVar("_T")


def located_attachment(raw: bytes, keys: ServerKeys) -> tuple[MediaRef, AttachmentKey]:
    """An attachment on a homeserver: `{"file": ...}` or `{"encrypted_body": ...}`. Raises ClientError."""
    content = _json_object(raw)
    file = _opened(content, content.get("encrypted_body"), keys).get("file")
    key = AttachmentKey.parse(file)
    url = file.get("url") if isinstance(file, dict) else None
    if not isinstance(url, str):
        raise MalformedRequest("file.url must be a string")
    try:
        return MediaRef.from_mxc(url), key
    except InvalidMedia:
        raise MalformedRequest("file.url must be a valid mxc:// URI") from None


def attachment_key(raw: bytes, keys: ServerKeys) -> AttachmentKey:
    """The key of an attachment that is nowhere yet. Raises ClientError.

    An `EncryptedFile`, or what is sealed, may stand for itself, as in the reference's proposal.
    """
    content = _json_object(raw)
    sealed = content if "ciphertext" in content else content.get("encrypted_body")
    content = _opened(content, sealed, keys)
    return AttachmentKey.parse(content.get("file", content))


async def off_loop_if_large(raw: bytes, parse: Callable[[bytes], _T]) -> _T:
    """`parse(raw)`, where it does not hold the event loop."""
    return parse(raw) if len(raw) <= _INLINE_BODY else await asyncio.to_thread(parse, raw)


def _opened(content: Mapping[str, object], sealed: object, keys: ServerKeys) -> Mapping[str, object]:
    return content if sealed is None else _json_object(keys.open(sealed))


def _json_object(raw: bytes) -> Mapping[str, object]:
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
