from __future__ import annotations

import random
import struct
import zlib

import pytest

from scanner.containers.inspection import Part
from scanner.containers.opening import Opening, inspect
from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged, rar4_of, rar5_of, tar_of, zip_of

FILES = {"first": b"content", "text": TEXT}


@pytest.mark.parametrize("make", [rar4_of, rar5_of])
def test_headers_that_lead_to_each_other_are_sound(make: object) -> None:
    assert callable(make)
    archive = make(FILES)
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [list(FILES.values())]


@pytest.mark.parametrize("make", [rar4_of, rar5_of])
def test_anything_behind_or_missing_is_not_sound(make: object) -> None:
    assert callable(make)
    archive = make(FILES)
    assert judged(archive + b"more") is Reason.AMBIGUOUS
    assert judged(archive[:-1]) is Reason.DAMAGED
    assert judged(archive.replace(b"text", b"tExt")) is Reason.DAMAGED


def test_a_missing_end_is_older_than_version_5() -> None:
    assert judged(rar4_of(FILES)[:-7]) == SOUND
    assert judged(rar5_of(FILES)[:-8]) is Reason.DAMAGED


def test_what_is_encrypted_is_told() -> None:
    assert judged(rar4_of(FILES, main=0x80)) is Reason.ENCRYPTED_ARCHIVE
    assert judged(rar4_of(FILES, flags=0x04)) is Reason.ENCRYPTED_ARCHIVE
    assert judged(rar5_of(FILES, extra=b"\5\1abcd")) is Reason.ENCRYPTED_ARCHIVE
    body = b"\2\4\0"
    assert (
        judged(b"Rar!\x1a\x07\1\0" + struct.pack("<L", zlib.crc32(body)) + body) is Reason.ENCRYPTED_ARCHIVE
    )


@pytest.mark.parametrize("kind", ["tar", "zip", "rar"])
def test_what_is_behind_encrypted_headers_is_nothing_else(kind: str) -> None:
    """With a wrong password 7-Zip opened the tar."""
    body = b"\2\4\0"
    headers = b"Rar!\x1a\x07\1\0" + struct.pack("<L", zlib.crc32(body)) + body
    noise = random.Random(1).randbytes(900)
    hidden = {"tar": tar_of({"a": TEXT}), "zip": zip_of({"a": TEXT}) + bytes(70_000), "rar": rar5_of(FILES)}
    for begin in (headers, rar4_of(FILES, main=0x80)[:20]):
        assert judged(begin + noise) is Reason.ENCRYPTED_ARCHIVE
        assert judged(begin + hidden[kind]) is Reason.AMBIGUOUS
        assert judged(begin + noise + hidden[kind]) is Reason.AMBIGUOUS


@pytest.mark.parametrize(
    ("readable", "encrypted"),
    [
        (rar4_of({"a": TEXT}), rar4_of({"b": TEXT}, flags=0x04)),
        (rar5_of({"a": TEXT}), rar5_of({"b": TEXT}, extra=b"\5\1abcd")),
    ],
)
def test_what_needs_no_password_is_opened_beside_what_does(readable: bytes, encrypted: bytes) -> None:
    """Before it or behind it; where nothing else is there, nothing is opened."""
    told = frozenset({Reason.ENCRYPTED_ARCHIVE})
    assert inspect(Part.of(encrypted), 1.0) == Opening("rar", (), told)
    for archive in (mixed(readable, encrypted), mixed(encrypted, readable)):
        assert inspect(Part.of(archive), 1.0) == Opening("rar", SOUND, told)


def mixed(one: bytes, other: bytes) -> bytes:
    """The members of both, in this order."""
    begin, end = (20, 7) if one.startswith(b"Rar!\x1a\x07\0") else (16, 8)
    assert one[:begin] == other[:begin]
    assert one[-end:] == other[-end:]
    return one[:-end] + other[begin:]


def test_parts_of_something_larger_are_ambiguous() -> None:
    assert judged(rar4_of(FILES, main=0x01)) is Reason.AMBIGUOUS
    assert judged(rar5_of(FILES, main=0x01)) is Reason.AMBIGUOUS
    assert judged(rar4_of(FILES, flags=0x02)) is Reason.AMBIGUOUS


def test_a_directory_with_content_is_ambiguous() -> None:
    assert judged(rar4_of(FILES, flags=0xE0)) is Reason.AMBIGUOUS
    assert judged(rar5_of(FILES, flags=0x01)) is Reason.AMBIGUOUS


def test_a_zip_at_the_end_is_a_member() -> None:
    for make in (rar4_of, rar5_of):
        assert judged(make({"a.zip": zip_of({"a": TEXT})})) == SOUND


def test_endless_headers_end() -> None:
    assert judged(b"Rar!\x1a\x07\1\0" + b"\xff" * 5000) is Reason.DAMAGED
