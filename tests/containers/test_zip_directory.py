from __future__ import annotations

import struct
import zipfile
import zlib

import pytest

from scanner.containers.inspection import Part
from scanner.containers.zip_directory import last_end
from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged, zip64_of, zip_of

FILES = {"first": b"first file", "text": TEXT}


def patched(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


def test_the_last_end_that_fits_counts() -> None:
    archive = zip_of(FILES)
    end = last_end(Part.of(archive + b"PK\5\6" + b"\x7f" * 18))
    assert end is not None
    assert (end.position, end.entries, end.behind) == (len(archive) - 22, 2, len(archive))
    assert end.directory == archive.find(b"PK\1\2")


def test_a_text_with_the_signature_has_no_end() -> None:
    assert last_end(Part.of(b"PK\5\6" * 20)) is None


def with_zip64_end(archive: bytes, place: int | None = None) -> bytes:
    """With the record and the locator that large archives have."""
    end = archive.rfind(b"PK\5\6")
    entries, size, offset = struct.unpack("<H2L", archive[end + 10 : end + 20])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end if place is None else place, 1)
    return archive[:end] + record + locator + archive[end : end + 8] + b"\xff" * 12 + archive[end + 20 :]


def test_zip64_is_sound() -> None:
    archive = with_zip64_end(zip_of(FILES))
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [list(FILES.values())]


def test_a_zip64_record_elsewhere_is_ambiguous() -> None:
    assert judged(with_zip64_end(zip_of(FILES), 0)) is Reason.AMBIGUOUS


def test_two_ends_that_differ_are_ambiguous() -> None:
    archive = with_zip64_end(zip_of(FILES))
    end = archive.rfind(b"PK\5\6")
    assert judged(patched(archive, end + 10, b"\1\0")) is Reason.AMBIGUOUS
    assert judged(patched(archive, end + 12, b"\1\0\0\0")) is not None


def test_sizes_in_a_zip64_field_alone_are_sound() -> None:
    """So writes `zip` what it reads from a pipe."""
    archive = zip64_of({"a": b"content"})
    for place in (18, 22):
        archive = patched(archive, place, b"\xff" * 4)
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [[b"content"]]


def test_two_fields_for_sizes_are_ambiguous() -> None:
    archive = zip_of({"a": b"content"}, zipfile.ZIP_STORED)
    field = struct.pack("<2H2Q", 1, 16, 7, 7)
    padded = patched(archive[:31] + field * 2 + archive[31:], 28, struct.pack("<H", 40))
    end = padded.rfind(b"PK\5\6")
    (offset,) = struct.unpack_from("<L", padded, end + 16)
    assert judged(patched(padded, end + 16, struct.pack("<L", offset + 40))) is Reason.AMBIGUOUS


def test_a_tail_full_of_ends_is_none_that_can_be_opened() -> None:
    """Each one takes time on the event loop."""
    assert judged(b"x" * 9_999 + b"PK\5\6" * 16_000) is Reason.AMBIGUOUS
    assert judged(b"x" * 9_999 + b"PK\5\6" * 99) is None


def with_extra(field: bytes, *, local: bool, central: bool, name: bytes = b"a") -> bytes:
    """A ZIP64 file, which clamd does not open, with a field of ours."""
    wide = struct.pack("<HHQQ", 1, 16, len(TEXT), len(TEXT))
    ours = (wide + field * local, wide + field * central)
    sizes = (zlib.crc32(TEXT), 0xFFFFFFFF, 0xFFFFFFFF, len(name))
    record = (
        struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 33, *sizes, len(ours[0])) + name + ours[0] + TEXT
    )
    listed = struct.pack("<4s6H3L2H", b"PK\1\2", 45, 45, 0, 0, 0, 33, *sizes, len(ours[1]))
    listed += bytes(14) + name + ours[1]
    return record + listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(listed), len(record), 0)


def unicode_path(name: bytes, path: bytes) -> bytes:
    content = struct.pack("<BL", 1, zlib.crc32(name)) + path
    return struct.pack("<HH", 0x7075, len(content)) + content


STREAMED = struct.pack("<HHBHL", 0x6C78, 7, 5, 3 << 8 | 20, 0o40755 << 16)


@pytest.mark.parametrize("field", [unicode_path(b"a", b"a/"), unicode_path(b"a", b"a/\0"), STREAMED])
@pytest.mark.parametrize(("local", "central"), [(True, True), (True, False), (False, True)])
def test_what_makes_a_file_a_directory_to_libarchive_alone_is_ambiguous(
    field: bytes, *, local: bool, central: bool
) -> None:
    """It gives no data of one, and to everybody else it is a file."""
    assert judged(with_extra(field, local=local, central=central)) is Reason.AMBIGUOUS


def test_a_name_that_ends_before_its_end_is_ambiguous() -> None:
    assert judged(with_extra(b"", local=True, central=True, name=b"a/\0b")) is Reason.AMBIGUOUS


def test_a_name_in_unicode_is_sound() -> None:
    archive = with_extra(unicode_path(b"a", "ä".encode()), local=True, central=True)
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [[TEXT]]
