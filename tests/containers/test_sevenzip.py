from __future__ import annotations

import struct
import time
import zlib
from typing import Any

import py7zr
import pytest

from scanner.containers.inspection import Part
from scanner.containers.opening import Opening, inspect
from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged, sevenzip_of, zip_of

LZMA, LZMA2, COPY, BCJ = (
    {"id": getattr(py7zr, f"FILTER_{name}")} for name in ("LZMA", "LZMA2", "COPY", "X86")
)


def with_header(archive: bytes, old: bytes, new: bytes) -> bytes:
    """Another plain header, with the checksums that are right for it."""
    end = 32 + int.from_bytes(archive[12:20], "little")
    header = archive[end:].replace(old, new, 1)
    assert header != archive[end:]
    start = archive[12:20] + len(header).to_bytes(8, "little") + zlib.crc32(header).to_bytes(4, "little")
    return archive[:8] + zlib.crc32(start).to_bytes(4, "little") + start + archive[32:end] + header


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("filters", [[LZMA], [LZMA2], [COPY], [BCJ, LZMA2]])
def test_methods_that_clamd_knows_are_plain(filters: list[dict[str, Any]], packed: bool) -> None:
    assert judged(sevenzip_of({"first": b"content", "text": TEXT}, *filters, packed_header=packed)) is None


@pytest.mark.parametrize("name", ["BZIP2", "DEFLATE", "PPMD"])
def test_other_methods_are_sound(name: str) -> None:
    filters: list[dict[str, Any]] = [{"id": getattr(py7zr, f"FILTER_{name}")}]
    if name == "PPMD":
        filters[0] |= {"order": 6, "mem": 24}
    archive = sevenzip_of({"first": b"content", "text": TEXT}, *filters)
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [[b"content", TEXT]]


def test_a_password_makes_it_an_encrypted_archive() -> None:
    aes = {"id": py7zr.FILTER_CRYPTO_AES256_SHA256}
    assert (
        judged(sevenzip_of({"first": b"content", "text": TEXT}, LZMA2, aes, password="secret"))
        is Reason.ENCRYPTED_ARCHIVE
    )


def two_folders(*coders: bytes) -> bytes:
    """A 7z of two files, each of 4 bytes in a folder of its own."""
    packed = b"\6\0\2\x09\4\4\0"
    folders = b"\7\x0b\2\0" + b"".join(b"\1" + coder for coder in coders) + b"\x0c\4\4\0"
    names = b"\0" + "a\0b\0".encode("utf-16-le")
    header = b"\1\4" + packed + folders + b"\0\5\2\x11" + bytes([len(names)]) + names + b"\0\0"
    start = struct.pack("<QQL", 8, len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<L", zlib.crc32(start)) + start + b"onetwoso" + header


def test_what_needs_no_password_is_opened_where_it_comes_first() -> None:
    """As 7-Zip writes it: libarchive gets no further than the first that does."""
    copy, aes = b"\1\0", b"\x24\6\xf1\7\1\2\x13\0"
    told = frozenset({Reason.ENCRYPTED_ARCHIVE})
    assert inspect(Part.of(two_folders(copy, copy)), 1.0) == Opening("sevenzip")
    assert inspect(Part.of(two_folders(copy, aes)), 1.0) == Opening("sevenzip", SOUND, told)
    assert inspect(Part.of(two_folders(aes, aes)), 1.0) == Opening("sevenzip", (), told)
    assert inspect(Part.of(two_folders(aes, copy)), 1.0) is Reason.AMBIGUOUS


def test_members_are_looked_into() -> None:
    assert judged(sevenzip_of({"first": zip_of({"a": TEXT}), "text": TEXT}, LZMA2)) is None
    assert judged(sevenzip_of({"first": zip_of({"a": TEXT}, method=14), "text": TEXT}, LZMA2)) == SOUND
    assert judged(sevenzip_of({"first": zip_of({"a": TEXT})[:-1], "text": TEXT}, LZMA2)) is Reason.DAMAGED


def test_bytes_behind_and_missing_ones_are_not_plain() -> None:
    archive = sevenzip_of({"first": b"content", "text": TEXT}, LZMA2)
    assert judged(archive + b"more") is Reason.AMBIGUOUS
    assert judged(archive[:-1]) is Reason.AMBIGUOUS


def test_a_start_header_with_a_wrong_checksum_is_damage() -> None:
    archive = sevenzip_of({"first": b"content", "text": TEXT}, LZMA2)
    assert judged(archive[:8] + bytes(4) + archive[12:]) is Reason.DAMAGED


def test_a_member_with_a_wrong_checksum_is_damage() -> None:
    """Clamd leaves it out, others extract it with a warning."""
    archive = sevenzip_of({"first": b"content", "text": TEXT}, LZMA2, packed_header=False)
    crc = zlib.crc32(b"content").to_bytes(4, "little")
    assert judged(with_header(archive, crc, b"oops")) is Reason.DAMAGED


def test_names_outside_of_the_header_are_ambiguous() -> None:
    archive = sevenzip_of({"first": b"content", "text": TEXT}, LZMA2, packed_header=False)
    assert judged(with_header(archive, b"\0f\0i\0", b"\1f\0i\0")) is Reason.AMBIGUOUS


def test_a_header_that_counts_to_millions_costs_no_more_than_its_size() -> None:
    """Which of the files are empty is a bit for each; 3,000,000 once took a minute and a half."""
    archive = sevenzip_of({"first": b"content"}, LZMA2, packed_header=False)
    bits = b"\xff" * 375_000
    files = b"\x05\xf0" + (3_000_000).to_bytes(4, "little")
    empty = b"\x0e\xf0" + len(bits).to_bytes(4, "little")
    end = 32 + int.from_bytes(archive[12:20], "little")
    crowded = with_header(archive, archive[end + 1 :], files + empty + bits + bytes(3_000_000))
    began = time.process_time()
    assert judged(crowded) is Reason.AMBIGUOUS
    assert time.process_time() - began < 5


def test_an_empty_archive_is_plain() -> None:
    start = bytes(20)
    assert judged(b"7z\xbc\xaf\x27\x1c\0\4" + zlib.crc32(start).to_bytes(4, "little") + start) is None
