from __future__ import annotations

import asyncio
import json
import os
import threading

import pytest

from scanner.crypto.attachment import AttachmentKey
from scanner.crypto.pk import ServerKeys
from scanner.errors import MalformedRequest, SealedBodyError
from scanner.media import MediaRef
from scanner.web.encryption_info import attachment_key, located_attachment, off_loop_if_large
from tests.web.service import Attachment, seal

KEYS = ServerKeys(os.urandom(32))
ATTACHMENT = Attachment.of(b"hello")
BARE = json.dumps(ATTACHMENT.file).encode()
UNLOCATED = ATTACHMENT.without("url")


def sealed(content: bytes) -> bytes:
    return seal(content, KEYS.public_key)


def sealed_part(content: bytes) -> bytes:
    """What stands in `encrypted_body`, for itself."""
    return json.dumps(json.loads(sealed(content))["encrypted_body"]).encode()


def same(key: AttachmentKey) -> bool:
    return key.secret_material() == AttachmentKey.parse(ATTACHMENT.file).secret_material()


@pytest.mark.parametrize("raw", [ATTACHMENT.json, sealed(ATTACHMENT.json)])
def test_an_attachment_is_located_by_its_url(raw: bytes) -> None:
    ref, key = located_attachment(raw, KEYS)
    assert ref == MediaRef("example.org", "abc")
    assert same(key)


@pytest.mark.parametrize("raw", [BARE, UNLOCATED, sealed(UNLOCATED), sealed_part(ATTACHMENT.json)])
def test_an_attachment_on_a_homeserver_needs_its_place_and_its_frame(raw: bytes) -> None:
    with pytest.raises(MalformedRequest):
        located_attachment(raw, KEYS)


@pytest.mark.parametrize(
    "raw",
    [
        ATTACHMENT.json,
        UNLOCATED,
        BARE,
        sealed(ATTACHMENT.json),
        sealed(UNLOCATED),
        sealed(BARE),
        sealed_part(ATTACHMENT.json),
        sealed_part(BARE),
    ],
)
def test_a_key_alone_needs_neither(raw: bytes) -> None:
    assert same(attachment_key(raw, KEYS))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"file": null}', b'{"file": {}}', b"NaN", b"\xff", b"[" * 100_000]
)
def test_what_is_no_encryption_info_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedRequest):
        attachment_key(raw, KEYS)


def test_what_is_sealed_for_another_is_refused() -> None:
    with pytest.raises(SealedBodyError):
        attachment_key(sealed(ATTACHMENT.json), ServerKeys(os.urandom(32)))


@pytest.mark.parametrize(("size", "here"), [(64 * 1024, True), (64 * 1024 + 1, False)])
async def test_what_is_large_is_parsed_in_a_thread(size: int, here: bool) -> None:
    thread = await off_loop_if_large(bytes(size), lambda _: threading.current_thread())
    assert (thread is threading.current_thread()) is here
    await asyncio.sleep(0)
