from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib

import pytest

from scanner.containers.inspection import STEP
from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged, tar_of, zip_of

COMPRESSORS = (gzip.compress, bz2.compress, lzma.compress)


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_one_stream_is_plain(compress: object) -> None:
    assert callable(compress)
    assert judged(compress(TEXT)) is None
    assert judged(compress(tar_of({"text": TEXT}))) is None


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_anything_behind_the_stream_is_ambiguous(compress: object) -> None:
    assert callable(compress)
    assert judged(compress(TEXT) + b"more") is Reason.AMBIGUOUS


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_a_truncated_stream_is_damaged(compress: object) -> None:
    assert callable(compress)
    assert judged(compress(TEXT)[:-3]) is Reason.DAMAGED


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_what_is_inside_is_looked_into(compress: object) -> None:
    assert callable(compress)
    assert judged(compress(zip_of({"a": TEXT}, method=14))) == SOUND
    assert judged(compress(zip_of({"a": TEXT})[:-1])) is Reason.DAMAGED


@pytest.mark.parametrize(
    ("compress", "answer"), [(gzip.compress, None), *((c, SOUND) for c in COMPRESSORS[1:])]
)
def test_of_two_streams_clamd_sees_only_those_of_gzip(compress: object, answer: object) -> None:
    assert callable(compress)
    twice = compress(b"first") + compress(b"second")
    assert judged(twice) == answer
    assert delivered(twice, *SOUND) == [[b"firstsecond"]]
    assert judged(twice + b"more") is Reason.AMBIGUOUS
    assert judged(twice[:-3]) is Reason.DAMAGED


def test_bare_lzma_is_sound_if_it_is_one_stream() -> None:
    packed = lzma.compress(TEXT, lzma.FORMAT_ALONE)
    assert judged(packed) == SOUND
    assert delivered(packed, *SOUND) == [[TEXT]]
    assert judged(packed + b"more") is Reason.AMBIGUOUS
    assert judged(packed[:-3]) is Reason.DAMAGED


LZMA1 = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}


def lzip(content: bytes) -> bytes:
    """One member, as lzip writes it."""
    packed = lzma.compress(content, lzma.FORMAT_RAW, filters=[LZMA1])
    size = 6 + len(packed) + 20
    return b"LZIP\1\x10" + packed + struct.pack("<LQQ", zlib.crc32(content), len(content), size)


def test_whole_members_of_lzip_are_sound() -> None:
    twice = lzip(b"first") + lzip(b"second")
    assert judged(twice) == SOUND
    assert delivered(twice, *SOUND) == [[b"firstsecond"]]


@pytest.mark.parametrize("place", [-1, -9, -17])
def test_a_trailer_of_lzip_that_is_wrong_is_damage(place: int) -> None:
    """Libarchive may then give nothing, and others all of it."""
    packed = bytearray(lzip(TEXT))
    packed[place] ^= 1
    assert judged(bytes(packed)) is Reason.DAMAGED


def test_a_dictionary_of_gigabytes_is_a_limit() -> None:
    assert judged(lzip(TEXT).replace(b"LZIP\1\x10", b"LZIP\1\x1d")) is Reason.LIMIT


def test_a_wrong_checksum_is_damage() -> None:
    packed = gzip.compress(TEXT)
    assert judged(packed[:-8] + b"\0\0\0\0" + packed[-4:]) is Reason.DAMAGED


def test_all_checks_of_xz_are_plain() -> None:
    for check in (lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256):
        assert judged(lzma.compress(TEXT, check=check)) is None


def test_the_largest_preset_of_xz_is_plain() -> None:
    packed = lzma.LZMACompressor(filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 64 * 1024 * 1024}])
    assert judged(packed.compress(TEXT) + packed.flush()) is None


@pytest.mark.parametrize("compress", COMPRESSORS)
def test_long_runs_of_one_byte_that_end_where_a_step_does_are_plain(compress: object) -> None:
    """The last of them comes out when all of the input is in."""
    assert callable(compress)
    for more in range(-300, 300, 37):
        assert judged(compress(bytes(4 * STEP + more))) is None
