from __future__ import annotations

import bz2
import gzip
import lzma

import pytest

from scanner.verdict import Reason
from tests.archives import TEXT, judged, tar_of, zip_of

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
    assert judged(compress(zip_of({"a": TEXT}, method=14))) is Reason.AMBIGUOUS


def test_of_two_streams_clamd_sees_only_those_of_gzip() -> None:
    assert judged(gzip.compress(TEXT) + gzip.compress(TEXT)) is None
    assert judged(bz2.compress(TEXT) + bz2.compress(TEXT)) is Reason.AMBIGUOUS


def test_a_wrong_checksum_is_damage() -> None:
    packed = gzip.compress(TEXT)
    assert judged(packed[:-8] + b"\0\0\0\0" + packed[-4:]) is Reason.DAMAGED


def test_all_checks_of_xz_are_plain() -> None:
    for check in (lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256):
        assert judged(lzma.compress(TEXT, check=check)) is None


def test_the_largest_preset_of_xz_is_plain() -> None:
    packed = lzma.LZMACompressor(filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 64 * 1024 * 1024}])
    assert judged(packed.compress(TEXT) + packed.flush()) is None
