"""Taken for plain once, though programs go on behind what holds nothing, or mind a header less than we do.

Each is opened by what its test says (tried: Python 3.11 with liblzma 5.4.1, 7-Zip 26.02, libarchive 3.6.2,
GNU tar 1.34, GNU cpio 2.13, zstd 1.5.4, dpkg 1.21), and missed by clamd 1.4.6.
"""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import subprocess
import tarfile

import pytest

from tests.archive_records import packed
from tests.archives import extracted, judged, tar_of

LINE = b"The quick brown fox jumps over the lazy dog.\n"
EMPTY = b"\x5d\0\0\x80\0" + bytes(13)
# The line with lc=8, lp=0, pb=2, and nothing with the same: no encoder here writes them.
LINE_LC8 = bytes.fromhex(
    "6200008000ffffffffffffffff002a1a08a203a6329bbdb4c362897ee20dbb1e1b54e61c967419756d5c97940d219501"
    "9f28d5e4b9f284043f1b4254ed512c9e1bbaffffc4960000"
)
EMPTY_LC8 = bytes.fromhex("6200008000ffffffffffffffff0083fffbffffc0000000")


def _lzma(content: bytes = LINE, dictionary: int = 1 << 23, size: int | None = None) -> bytes:
    data = lzma.compress(content, lzma.FORMAT_ALONE)
    said = data[5:13] if size is None else size.to_bytes(8, "little")
    return data[:1] + dictionary.to_bytes(4, "little") + said + data[13:]


def _by_zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=False).stdout


@pytest.mark.parametrize("size", [None, len(LINE)])
def test_a_dictionary_of_no_bytes_is_one_for_python(size: int | None) -> None:
    data = _lzma(dictionary=0, size=size)
    assert lzma.decompress(data) == LINE
    assert judged(data) is not None


def test_a_tar_behind_a_dictionary_of_no_bytes_is_opened_by_tarfile() -> None:
    data = _lzma(tar_of({"a": LINE}), dictionary=0)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["a"]
    assert judged(data) is not None


@pytest.mark.parametrize("form", ["lzma", "lzip"])
@pytest.mark.parametrize("number", [1, 2, 57, 1000])
@pytest.mark.parametrize("first", [0, 1, 0x5D])
def test_zeros_are_empty_streams_for_python(first: int, number: int, form: str) -> None:
    data = (bytes([first]) + bytes(17)) * number + packed(LINE, form)
    assert lzma.decompress(data) == LINE
    assert judged(data) is not None


@pytest.mark.real
@pytest.mark.parametrize("dictionary", [5 << 20, 7 << 20, 63 << 20])
def test_libarchive_takes_whole_mebibytes_for_a_dictionary(dictionary: int) -> None:
    data = _lzma(tar_of({"a": LINE}), dictionary)
    assert extracted(data, LINE, 0) == "bsdtar"
    assert judged(data) is not None


@pytest.mark.real
@pytest.mark.parametrize("size", [None, len(LINE)])
@pytest.mark.parametrize("empty", [b"", EMPTY])
def test_zstd_takes_whole_mebibytes_for_a_dictionary(empty: bytes, size: int | None) -> None:
    data = empty + _lzma(dictionary=5 << 20, size=size)
    assert _by_zstd(data) == LINE
    assert judged(data) is not None


@pytest.mark.real
@pytest.mark.parametrize("skipped", [b"", b"\x50\x2a\x4d\x18" + bytes(4)])
def test_zstd_reads_lz4_behind_an_empty_lzma(skipped: bytes) -> None:
    data = EMPTY + skipped + packed(LINE, "lz4")
    assert _by_zstd(data) == LINE
    assert judged(data) is not None


@pytest.mark.real
def test_zstd_reads_gzip_of_any_level_behind_an_empty_lzma() -> None:
    packed_line = gzip.compress(LINE)
    data = EMPTY + packed_line[:8] + b"\1" + packed_line[9:]
    assert _by_zstd(data) == LINE
    assert judged(data) is not None


@pytest.mark.real
@pytest.mark.parametrize(
    "data",
    [
        LINE_LC8,
        b"\0" + LINE_LC8,
        EMPTY_LC8 + _lzma(),
        EMPTY + LINE_LC8,
        EMPTY * 2 + LINE_LC8,
    ],
    ids=["alone", "x86", "empty first", "behind an empty one", "behind two"],
)
def test_7zip_takes_more_literal_bits_than_liblzma(data: bytes) -> None:
    assert extracted(data, LINE, 0) == "7z"
    assert judged(data) is not None


@pytest.mark.real
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("form", [b"\0", b"\1"])
def test_7zip_reads_behind_an_empty_lzma_for_x86(form: bytes, number: int) -> None:
    data = (form + EMPTY) * number + form + _lzma()
    assert extracted(data, LINE, 0) == "7z"
    assert judged(data) is not None


def _tar(checksum: str, *, name: bytes = b"a", magic: bytes = bytes(8), signed: bool = False) -> bytes:
    """One old tar, or one with what no reader knows for a magic."""
    header = bytearray(tar_of({"a": LINE})[:512])
    header[:100] = name.ljust(100, b"\0")
    header[257:265] = magic
    header[148:156] = b" " * 8
    total = sum(byte - 256 * (signed and byte > 127) for byte in header)
    header[148:156] = (checksum % total).encode().ljust(8, b"\0")
    return bytes(header) + LINE.ljust(512, b"\0") + bytes(1024)


@pytest.mark.real
@pytest.mark.parametrize("packing", [bytes, gzip.compress], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("magic", [bytes(8), b"junkjunk"])
def test_a_checksum_of_signed_bytes_is_one_for_all_readers(magic: bytes, packing: type) -> None:
    data = packing(_tar("%06o\0 ", name=b"\xe9\xe9\xe9", magic=magic, signed=True))
    assert extracted(data, LINE) is not None
    assert judged(data) is not None


@pytest.mark.real
@pytest.mark.parametrize("magic", [bytes(8), b"junkjunk"])
@pytest.mark.parametrize(
    "checksum",
    ["\t%06o\0", "\n%06o\0", "%06o\t", "\0%06o ", "+%06o\0", "0o%06o", "0_%05o\0", "\x1c%06o\0"],
)
def test_a_checksum_is_a_number_as_gnu_tar_and_python_read_it(checksum: str, magic: bytes) -> None:
    """Clamd, too, reads some of those with blanks, but none behind 512 other bytes."""
    files = _tar(checksum, magic=magic), b"x" * 512 + _tar(checksum, magic=magic)
    opened = [data for data in files if extracted(data, LINE, 0)]
    assert opened
    assert None not in map(judged, opened)


@pytest.mark.real
@pytest.mark.parametrize("magic", [bytes(8), b"junkjunk"])
def test_a_tar_of_a_file_without_a_name_is_opened(magic: bytes) -> None:
    data = _tar("%06o\0 ", name=b"", magic=magic)
    assert extracted(data, LINE, 0) == "tarfile"
    assert judged(data) is not None


def _newc(width: str) -> bytes:
    members = b""
    for name, mode, content in ((b"a\0", 0o100644, LINE), (b"TRAILER!!!\0", 0, b"")):
        fields = (1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + "".join(format(field, width) for field in fields).encode() + name
        members += header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)
    return members


def _binary_cpio(order: str, links: int) -> bytes:
    members = b""
    for name, mode, content in ((b"a\0", 0o100644, LINE), (b"TRAILER!!!\0", 0, b"")):
        fields = (0o070707, 1, 1, mode, 0, 0, links, 0, 0, 0, len(name), 0, len(content))
        padded = (name + bytes(len(name) % 2), content + bytes(len(content) % 2))
        members += struct.pack(f"{order}13H", *fields) + b"".join(padded)
    return members


@pytest.mark.real
@pytest.mark.parametrize(
    "archive",
    [_newc("8X"), *(_binary_cpio(order, links) for order in "<>" for links in (0, 2000))],
    ids=["blanks", "little 0", "little 2000", "big 0", "big 2000"],
)
def test_cpio_goes_on_to_the_first_header_of_any_kind(archive: bytes) -> None:
    data = b"text" + b"x" + archive
    done = subprocess.run(["cpio", "-i", "--to-stdout"], input=data, capture_output=True, check=False)
    assert done.stdout == LINE
    assert judged(data) is not None


@pytest.mark.real
def test_dpkg_opens_an_old_package() -> None:
    """Its own gzip minds no level in the header, as 7-Zip does."""
    control = {"control": b"Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m\nDescription: d\n"}
    parts = [gzip.compress(tar_of(files)) for files in (control, {"a": LINE})]
    first, second = (part[:8] + b"\1" + part[9:] for part in parts)
    data = b"0.939000\n%d\n" % len(first) + first + second
    assert judged(data) is not None


def _lha() -> bytes:
    crc = 0
    for byte in LINE:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 * (crc & 1)
    fields = b"-lh0-" + struct.pack("<3I", len(LINE), len(LINE), 0) + b"\x20\0\1a" + struct.pack("<H", crc)
    return bytes([len(fields), sum(fields) & 0xFF]) + fields + LINE + b"\0"


@pytest.mark.real
@pytest.mark.parametrize("before", [b"junk" * 4, b"MZ" + bytes(4096)])
def test_an_lha_behind_something_is_opened(before: bytes) -> None:
    """By 7-Zip behind whatever, by libarchive in a program."""
    assert extracted(before + _lha(), LINE, 0) is not None
    assert judged(before + _lha()) is not None


def _intel_hex() -> bytes:
    lines = []
    for place in range(0, len(LINE), 16):
        piece = LINE[place : place + 16]
        record = bytes([len(piece), place >> 8, place & 0xFF, 0]) + piece
        lines.append(f":{(record + bytes([-sum(record) & 0xFF])).hex().upper()}\r\n")
    return "".join([*lines, ":00000001FF\r\n"]).encode()


def _sparse_image() -> bytes:
    header = struct.pack("<I4H4I", 0xED26FF3A, 1, 0, 28, 12, 4096, 1, 1, 0)
    return header + struct.pack("<2H2I", 0xCAC1, 0, 1, 12 + 4096) + LINE.ljust(4096, b"\0")


@pytest.mark.real
@pytest.mark.parametrize("data", [_intel_hex(), _sparse_image()], ids=["Intel hex", "Android's images"])
def test_7zip_opens_what_has_another_signature(data: bytes) -> None:
    assert extracted(data, LINE, 0) == "7z"
    assert judged(data) is not None
