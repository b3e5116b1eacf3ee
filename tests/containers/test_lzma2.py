from __future__ import annotations

import lzma
import random

import pytest

from scanner.containers.inspection import Part, Unsure
from scanner.containers.lzma2 import check_lzma, check_lzma2
from scanner.verdict import Reason
from tests.archives import TEXT, judged

FILTERS = [{"id": lzma.FILTER_LZMA2, "dict_size": 65536}]
CHUNK_HEADER = 6


def test_chunks_of_all_kinds_lead_to_the_end_marker() -> None:
    content = TEXT * 50 + random.Random(1).randbytes(200_000) + TEXT * 50
    packed = lzma.compress(content, lzma.FORMAT_RAW, filters=FILTERS)
    assert check_lzma2(Part.of(packed + b"behind")) == len(packed)


def test_a_first_byte_that_only_liblzma_forgives_is_ambiguous() -> None:
    packed = bytearray(lzma.compress(TEXT, lzma.FORMAT_RAW, filters=FILTERS))
    assert packed[CHUNK_HEADER] == 0
    packed[CHUNK_HEADER] = 1
    for check in (check_lzma2, lambda part: check_lzma(part.slice(CHUNK_HEADER, 9))):
        with pytest.raises(Unsure):
            check(Part.of(bytes(packed)))


def test_the_same_holds_inside_an_xz_file() -> None:
    packed = bytearray(lzma.compress(TEXT))
    packed[packed.index(b"\xe0") + CHUNK_HEADER] ^= 1
    assert judged(bytes(packed)) is Reason.AMBIGUOUS


def test_chunks_without_an_end_are_damaged() -> None:
    with pytest.raises(Unsure) as raised:
        check_lzma2(Part.of(b"\1\0\2abc"))
    assert raised.value.reason is Reason.DAMAGED
