from __future__ import annotations

import gzip
import struct
import zlib

import pytest

from scanner.containers.inspection import Part
from scanner.containers.recognise import by_ends
from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, judged, tar_of, zip_of

MAGICS = {
    "zstd": b"\x28\xb5\x2f\xfd",
    "lz4": b"\x04\x22\x4d\x18",
    "lzip": b"LZIP\1",
    "compress": b"\x1f\x9d\x90",
    "ar": b"!<arch>\n",
    "cpio": b"070701",
    "rpm": b"\xed\xab\xee\xdb",
    "cab": b"MSCF\0\0\0\0",
    "rar": b"Rar!\x1a\x07",
    "sevenzip": b"7z\xbc\xaf\x27\x1c",
    "gzip": b"\x1f\x8b\x08",
    "zip": b"PK\5\6",
    "ole2": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
}


@pytest.mark.parametrize("kind", MAGICS)
def test_a_container_is_known_by_its_magic(kind: str) -> None:
    found = by_ends(Part.of(MAGICS[kind] + bytes(64)))
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize(
    "start",
    [
        b"\x25\xb5\x2f\xfd",
        b"\x02\x21\x4c\x18",
        b"\x1f\x9e\x08",
        b"\x1f\x1e\0\0\0\x10\x05",
        b"!<thin>\n",
        b"\xc7\x71",
        b"xar!",
        b"WARC/1.0",
        b"#mtree",
        b"MSWIM\0\0\0",
        b"ITSF",
        b"..-lh5-",
        b"\x60\xea",
        b"hsqs",
        b"vhdxfile",
        b"begin 644 x\n",
        bytes(32769) + b"BEA01",
        b"x" * 100 + b"koly" + bytes(508),
        b"\xeb\x52\x90NTFS    ",
        b"\xeb\x58\x90mkfs.fat" + b"\1" * 43 + b"FAT12   ",
        bytes(512) + b"EFI PART",
        bytes(1024) + bytes(56) + b"\x53\xef\1\0" + bytes(40),
    ],
)
def test_containers_that_nobody_opens_for_certain_are_ambiguous(start: bytes) -> None:
    assert judged(start + (b"" if b"koly" in start else bytes(64))) is Reason.AMBIGUOUS


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"hello",
        b"plain text\n" * 20,
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"\0\0\0\x18ftypmp42" + bytes(99),
        b"OggS" + bytes(99),
        b"{\\rtf1 }" + b" " * 20,
        b"<html></html>" + b" " * 20,
        bytes(5000),
        b"\x1f\x8b\x07" + bytes(20),
        b"\x1f\x1e\0\0\0\x10\x1a" + bytes(20),
        b"\x60\xea\0\x0b" + bytes(20),
    ],
)
def test_what_is_no_container_is_plain(content: bytes) -> None:
    assert judged(content) is None


def with_extra_field(packed: bytes, content: bytes) -> bytes:
    """A gzip file with something in its header."""
    field = struct.pack("<2sH", b"AA", len(content)) + content
    return packed[:3] + b"\4" + packed[4:10] + struct.pack("<H", len(field)) + field + packed[10:]


def test_a_zip_that_is_hidden_in_another_container_is_ambiguous() -> None:
    """Python and unzip look for its end, and do not mind what comes first."""
    hidden = zip_of({"a": b"content"})
    assert judged(with_extra_field(gzip.compress(TEXT), b"harmless")) is None
    assert judged(with_extra_field(gzip.compress(TEXT), hidden)) is Reason.AMBIGUOUS
    archive = tar_of({"a": b"content"})
    assert judged(archive[:520] + hidden + archive[520 + len(hidden) :]) is Reason.AMBIGUOUS


def test_a_zip_that_is_a_member_ends_where_the_member_does() -> None:
    inner = zip_of({"a": TEXT})
    assert judged(tar_of({"first": TEXT, "second.zip": inner})) is None
    assert judged(tar_of({"first.zip": inner, "second": TEXT})) is None
    assert judged(tar_of({"first.zip": zip_of({"a": TEXT}, method=14)})) == SOUND


def test_a_zip_that_a_compressor_stored_is_the_same_zip() -> None:
    assert judged(gzip.compress(zip_of({"a": TEXT}), 0)) is None
    assert judged(gzip.compress(b"x" + zip_of({"a": TEXT}), 0)) is not None


def test_a_zip_that_begins_as_a_tar_is_ambiguous() -> None:
    """Bsdtar takes it for a tar: the header's checksum lies in the name of the ZIP's first member."""
    content = b"content" + bytes(1529)
    sizes = (zlib.crc32(content), len(content), len(content), 482)
    header = bytearray(tar_of({"a": b"content"})[:512])
    header[:30] = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, *sizes, 0)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, *sizes, 0, 0, 0, 0, 0, 0) + header[30:]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), 512 + len(content), 0)
    assert judged(bytes(header) + content + entry + end) is Reason.AMBIGUOUS
