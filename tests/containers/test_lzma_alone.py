from __future__ import annotations

import lzma

import pytest

from scanner.containers.inspection import Part
from scanner.containers.lzma_alone import begins_lzma
from scanner.verdict import Reason
from tests.archive_records import packed
from tests.archives import TEXT, judged

MIB = 1024 * 1024


def test_a_list_of_types_of_kotlin_is_no_lzma() -> None:
    kotlin = bytes.fromhex("000000030000000100000000000000070abb070a066b6f746c696e0a0b636f6c6c656374696f6e73")
    assert not begins_lzma(Part.of(kotlin), for_x86=True)
    assert not begins_lzma(Part.of(kotlin))
    assert judged(kotlin + bytes(99)) is None


def test_bare_lzma_that_breaks_off_is_recognised() -> None:
    """What came out before is there all the same."""
    packed = lzma.compress(TEXT, lzma.FORMAT_ALONE)
    assert begins_lzma(Part.of(packed[:40]))
    assert begins_lzma(Part.of(packed[:40] + b"\xff" * 99))


@pytest.mark.parametrize("number", [1, 3, 100])
@pytest.mark.parametrize("size", ["unknown", "zero"])
@pytest.mark.parametrize("form", ["lzma", "xz", "lzip"])
def test_a_stream_behind_empty_ones_is_no_plain_file(form: str, size: str, number: int) -> None:
    """Fuzzed, seeds 20261122 and 20261123, numbers 21164 and 4605: Python reads on."""
    empty = lzma.compress(b"", lzma.FORMAT_ALONE)
    if size == "zero":
        empty = empty[:5] + bytes(13)
    data = empty * number + packed(TEXT, form)
    assert lzma.decompress(data) == TEXT
    assert judged(data) is Reason.AMBIGUOUS


@pytest.mark.parametrize("content", [b"", b"a", bytes(15)])
def test_a_bare_lzma_of_few_bytes_is_recognised(content: bytes) -> None:
    packed = lzma.compress(content, lzma.FORMAT_ALONE)
    assert begins_lzma(Part.of(packed))
    assert begins_lzma(Part.of(packed + lzma.compress(TEXT, lzma.FORMAT_ALONE)))


def test_bare_lzma_is_recognised_and_pictures_are_not() -> None:
    assert begins_lzma(Part.of(lzma.compress(TEXT, lzma.FORMAT_ALONE)[:64]))
    assert begins_lzma(Part.of(b"\0" + lzma.compress(TEXT, lzma.FORMAT_ALONE)[:64]), for_x86=True)
    icon = bytes.fromhex("000001000100101000000100200068040000160000002800000010000000")
    for other in (
        b"\0\0\0\x20ftypisom\0\0\2\0isomiso2",
        bytes(64),
        icon,
        b"]\0\0\0\1" + bytes(40),
        b"\1\0\0\2" + bytes(16),  # \1Ole
        b"P6 4 4 255\n" + bytes(48),
    ):
        assert not begins_lzma(Part.of(other))


@pytest.mark.parametrize("size", [100, 1000, 300_000, 20 * MIB])
def test_zeros_alone_and_what_follows_them_are_no_lzma(size: int) -> None:
    for behind in (b"", b"text", b"\x89PNG\r\n", bytes(7) + packed(TEXT, "lzma")):
        assert not begins_lzma(Part.of(bytes(size // 18 * 18) + behind))
        assert not begins_lzma(Part.of(b"1" + bytes(size // 18 * 18 - 1) + behind))


def test_what_stands_for_nothing_over_and_over_is_not_searched_to_its_end() -> None:
    assert begins_lzma(Part.of((b"\1" + bytes(17)) * 100_000))
    empty = lzma.compress(b"", lzma.FORMAT_ALONE)[:5] + bytes(13)
    assert begins_lzma(Part.of(empty * 1000))
