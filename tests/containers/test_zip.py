from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile

import pytest

from scanner.containers.readers import Reader
from scanner.verdict import Reason
from tests.archives import (
    CROOKED,
    SOUND,
    TEXT,
    delivered,
    judged,
    streamed_zip_of,
    tar_of,
    zip64_of,
    zip_of,
)

FILES = {"first": b"first file", "text": TEXT}
LOCAL_METHOD, LOCAL_CRC, LOCAL_SIZE, LOCAL_EXTRA_SIZE = 8, 14, 22, 28
END_COMMENT_SIZE = 20


def patched(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("make", [zip_of, streamed_zip_of])
def test_records_that_tile_the_file_are_plain(make: object, method: int) -> None:
    assert callable(make)
    assert judged(make(FILES, method)) is None


def test_an_empty_zip_is_plain() -> None:
    assert judged(zip_of({})) is None


def test_zip64_fields_in_the_records_alone_are_plain() -> None:
    """So writes Python where it does not know the size; clamd goes by the directory."""
    assert judged(zip64_of(FILES)) is None


def test_duplicate_names_are_plain() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("same", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("same", b"two")
    assert judged(buffer.getvalue()) is None


def test_a_directory_with_two_bytes_of_deflated_nothing_is_plain() -> None:
    """So writes `jar`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("META-INF/"), b"", zipfile.ZIP_DEFLATED)
        archive.writestr("META-INF/MANIFEST.MF", b"Manifest-Version: 1.0\r\n")
    assert judged(buffer.getvalue()) is None


def test_extra_fields_padded_with_zeros_are_plain() -> None:
    """So writes `zipalign` for Android."""
    archive = zip_of({"a": b"content"}, zipfile.ZIP_STORED)
    padded = patched(archive, LOCAL_EXTRA_SIZE, struct.pack("<H", 3))
    padded = padded[:31] + bytes(3) + padded[31:]
    end = padded.rfind(b"PK\5\6")
    offset = struct.unpack_from("<L", padded, end + 16)[0]
    assert judged(patched(padded, end + 16, struct.pack("<L", offset + 3))) is None


def with_prefix_inside(archive: bytes, gap: bytes) -> bytes:
    """The archive behind `gap`, with offsets that count from the first byte."""
    entry, end = archive.find(b"PK\1\2"), archive.rfind(b"PK\5\6")
    moved = patched(archive, entry + 42, struct.pack("<L", len(gap)))
    return gap + patched(moved, end + 16, struct.pack("<L", entry + len(gap)))


def test_nameless_records_of_zeros_between_members_are_plain() -> None:
    """So fills Android's packager its gaps."""
    for time in (bytes(4), b"\x21\x08\x21\x02"):
        gap = struct.pack("<4s6x4s14xH", b"PK\3\4", time, 5) + bytes(5)
        assert judged(with_prefix_inside(zip_of({"a": b"content"}), gap)) is None


def test_an_unlisted_record_is_ambiguous() -> None:
    unlisted = zip_of({"evil": b"unlisted"}, zipfile.ZIP_STORED)
    gap = unlisted[: unlisted.find(b"PK\1\2")]
    assert judged(with_prefix_inside(zip_of({"a": b"content"}), gap)) is Reason.AMBIGUOUS


def signed(archive: bytes, content: bytes) -> bytes:
    """With a block of signatures before the directory, as in an APK."""
    size = struct.pack("<Q", len(content) + 24)
    block = size + content + size + b"APK Sig Block 42"
    entry, end = archive.find(b"PK\1\2"), archive.rfind(b"PK\5\6")
    return (
        archive[:entry]
        + block
        + patched(archive[entry:], end - entry + 16, struct.pack("<L", entry + len(block)))
    )


def test_an_android_signing_block_is_plain() -> None:
    assert judged(signed(zip_of({"a": b"content"}), b"signatures")) is None


def test_a_record_inside_an_android_signing_block_is_ambiguous() -> None:
    assert judged(signed(zip_of({"a": b"content"}), b"PK\3\4" + bytes(40))) is Reason.AMBIGUOUS


def test_zeros_behind_the_end_are_plain_and_other_bytes_are_crooked() -> None:
    assert judged(zip_of(FILES) + bytes(9000)) is None
    assert judged(zip_of(FILES) + b"more") == CROOKED


def test_a_comment_is_plain_unless_it_holds_another_end() -> None:
    archive = zip_of(FILES)
    place = len(archive) - 2
    assert judged(patched(archive, place, b"\5\0") + b"hello") is None
    assert judged(patched(archive, place, b"\x16\0") + b"PK\5\6" + bytes(18)) is not None


@pytest.mark.parametrize("prefix", [b"#!/usr/bin/env python3\n", b"MZ" + bytes(510), b"\x7fELF" + bytes(60)])
def test_a_zip_behind_an_executable_is_plain(prefix: bytes) -> None:
    assert judged(prefix + zip_of(FILES)) is None
    assert judged(with_prefix_inside(zip_of({"a": b"content"}), prefix)) is None


@pytest.mark.parametrize("prefix", [b"OggS", b"ID3\4", b"GIF89a", b"<html>", b"x"])
def test_a_zip_behind_anything_else_is_crooked(prefix: bytes) -> None:
    """Clamd takes the whole for what it begins as; both readers see the ZIP."""
    archive = prefix + zip_of(FILES)
    assert judged(archive) == CROOKED
    assert delivered(archive, *CROOKED) == [list(FILES.values())] * 2


def test_a_streamed_zip_behind_an_executable_is_crooked() -> None:
    """Clamd does not use the directory there, and the records do not tell their sizes."""
    archive = b"#!/bin/sh\n" + streamed_zip_of(FILES)
    assert judged(archive) == CROOKED
    assert delivered(archive, *CROOKED) == [list(FILES.values())] * 2


@pytest.mark.parametrize(
    "junk",
    [b"PK\3\4" + bytes(40), b"PK\5\6" + bytes(18), gzip.compress(TEXT, mtime=0), tar_of(FILES), b"%PDF-1.7"],
)
def test_what_a_reader_may_take_for_something_is_no_junk(junk: bytes) -> None:
    archive = zip_of(FILES)
    assert judged(junk + archive) in (Reason.AMBIGUOUS, Reason.DAMAGED)
    assert judged(archive + junk) in (Reason.AMBIGUOUS, Reason.DAMAGED)


def test_junk_between_members_is_crooked() -> None:
    one = zip_of({"a": b"content"}, zipfile.ZIP_STORED)
    assert judged(with_gap(one, b"junk")) == CROOKED
    assert judged(with_gap(one, b"PK\1\2")) is Reason.AMBIGUOUS


def with_gap(archive: bytes, gap: bytes) -> bytes:
    """The archive with something before its directory."""
    entry, end = archive.find(b"PK\1\2"), archive.rfind(b"PK\5\6")
    moved = patched(archive, end + 16, struct.pack("<L", entry + len(gap)))
    return moved[:entry] + gap + moved[entry:]


def test_the_record_that_krita_forgets_is_crooked() -> None:
    """Of its type alone, in letters where sizes should be; with any other content it is ambiguous."""
    for content, answer in ((b"application/x-krita", CROOKED), (b"evil (content)", Reason.AMBIGUOUS)):
        stray = struct.pack("<4s5H", b"PK\3\4", 20, 0, 0, 0, 0) + b"CRCqCSIZUSIZ" + b"\x08\0\0\0mimetype"
        assert judged(with_prefix_inside(zip_of({"a": b"content"}), stray + content)) == answer


def test_text_with_the_signature_of_an_end_is_no_zip() -> None:
    assert judged(b"const END = 'PK\5\6'; // the end of a central directory\n" * 10) is None


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_are_sound(method: int) -> None:
    assert judged(zip_of(FILES, method)) == SOUND
    assert delivered(zip_of(FILES, method), *SOUND) == [list(FILES.values())]


@pytest.mark.parametrize("method", [1, 6, 9, 97, 99])
def test_methods_that_libarchive_does_not_know_are_ambiguous(method: int) -> None:
    archive = zip_of({"a": b"content"}, zipfile.ZIP_STORED)
    entry, code = archive.find(b"PK\1\2"), struct.pack("<H", method)
    assert judged(patched(patched(archive, LOCAL_METHOD, code), entry + 10, code)) is Reason.AMBIGUOUS


LINK, PIPE, FILE = (0o120777 << 16, 3), (0o010600 << 16, 3), (0o100644 << 16, 3)
DIRECTORY_IN_DOS = (0x10, 0)


def special_zip_of(name: str, attributes: tuple[int, int], other: int) -> bytes:
    """With something in it that may be no file, and a file by another method."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.create_system = attributes
        archive.writestr(info, b"special content")
        archive.writestr("text", TEXT, other)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "attributes"), [("d/", FILE), ("link", LINK), ("pipe", PIPE), ("d", DIRECTORY_IN_DOS)]
)
def test_what_libarchive_takes_for_no_file_is_read_by_zipfile(name: str, attributes: tuple[int, int]) -> None:
    archive = special_zip_of(name, attributes, zipfile.ZIP_LZMA)
    assert judged(archive) == (Reader.ZIPFILE,)
    assert delivered(archive, Reader.ZIPFILE) == [[b"special content", TEXT]]
    assert judged(special_zip_of(name, attributes, zipfile.ZIP_DEFLATED)) is None


def test_what_is_no_file_beside_a_method_that_zipfile_does_not_know_is_ambiguous() -> None:
    archive = special_zip_of("link", LINK, zipfile.ZIP_LZMA)
    place = archive.find(b"PK\3\4", 4)
    entry = archive.find(b"PK\1\2", archive.find(b"PK\1\2") + 4)
    zstd = b"\x5d\0"
    changed = patched(patched(archive, place + LOCAL_METHOD, zstd), entry + 10, zstd)
    assert judged(changed) is Reason.AMBIGUOUS


def test_two_descriptions_that_differ_are_ambiguous() -> None:
    assert judged(patched(zip_of(FILES), LOCAL_SIZE, b"\1\0\0\0")) is Reason.AMBIGUOUS
    assert judged(patched(zip_of(FILES), 30, b"F")) is Reason.AMBIGUOUS


def test_a_wrong_checksum_is_damage() -> None:
    archive = zip_of({"a": b"content"}, zipfile.ZIP_STORED)
    assert judged(archive.replace(b"content", b"c0ntent")) is Reason.DAMAGED


def test_two_joined_archives_are_ambiguous() -> None:
    assert judged(zip_of({"a": b"one"}) + zip_of({"a": b"two"})) is Reason.AMBIGUOUS


def test_a_truncated_archive_is_damaged() -> None:
    assert judged(zip_of(FILES)[:-30]) is Reason.DAMAGED


def test_a_zip_inside_a_zip_is_judged_by_the_same_rules() -> None:
    evil = zip_of({"a": b"content"}, zipfile.ZIP_LZMA)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert judged(zip_of({"sheet.xlsx": zip_of(FILES)}, method)) is None
        assert judged(zip_of({"sheet.xlsx": evil}, method)) == SOUND
        assert judged(zip_of({"sheet.xlsx": evil[:-1]}, method)) is Reason.DAMAGED


def test_an_opendocument_with_encrypted_files_is_an_encrypted_document() -> None:
    manifest = '<m:file-entry m:full-path="content.xml"><m:encryption-data m:checksum="x"/></m:file-entry>'
    for text in (manifest.encode(), manifest.encode("utf-16")):
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            document = zip_of(
                {"content.xml": random.Random(1).randbytes(99), "META-INF/manifest.xml": text}, method
            )
            assert judged(document) is Reason.ENCRYPTED_DOCUMENT


def test_a_tar_inside_a_zip_is_looked_into() -> None:
    assert judged(zip_of({"a.tar": tar_of(FILES)})) is None
    assert judged(zip_of({"a.tar": tar_of(FILES) + b"x" * 512})) is Reason.AMBIGUOUS
