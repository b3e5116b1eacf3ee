from __future__ import annotations

import binascii
import bz2
import gzip
import lzma
import random
import struct
import time
from contextlib import suppress
from itertools import pairwise

import pytest

from scanner.containers.embedded import search_for_container
from scanner.containers.inspection import SEARCHED, STEP, Part, Unsure
from scanner.verdict import Reason
from tests.archives import TEXT, judged, rar4_of, rar5_of, tar_of, zip_of

PICTURE = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + random.Random(1).randbytes(2000)
# Four letters of deflate, then a repetition of what stood 38 bytes before; what follows is letters again.
TOO_FAR_BACK = bytes.fromhex("7374747404aaf270f5f1f1d775740b710dd275d4757274")
INSIDE = {
    "zip": zip_of({"a": TEXT}) + bytes(70_000),
    "gzip": gzip.compress(TEXT),
    "bzip2": bz2.compress(TEXT),
    "xz": lzma.compress(TEXT),
    "tar": tar_of({"a": TEXT}),
    "cpio": b"070701" + b"0" * 104,
    "zst": b"\x28\xb5\x2f\xfd\x24\x44\x21\x02\x00" + b"x" * 68,
    "xar": b"xar!\0\x1c\0\x01" + bytes(99),
    "rar 4": rar4_of({"a": TEXT}),
    "rar 5": rar5_of({"a": TEXT}),
    "wim": b"MSWIM\0\0\0\xd0" + bytes(99),
    "cab": b"MSCF\0\0\0\0" + bytes(99),
    "iso": b"\1CD001\1\0" + bytes(99),
    "udf": b"\0BEA01\1\0" + bytes(99),
    "old cpio": struct.pack("<13H", 0o70707, 0, 1, 0o100644, 0, 0, 1, 0, 0, 0, 2, 0, 5) + b"a\0hello",
    "old cpio, big-endian": struct.pack(">13H", 0o70707, 0, 1, 0o100644, 0, 0, 1, 0, 0, 0, 2, 0, 5) + b"a\0",
    "squashfs": b"hsqs" + bytes(8) + (2**17).to_bytes(4, "little") + bytes(12) + b"\4\0" + bytes(99),
}


@pytest.mark.parametrize("kind", INSIDE)
def test_what_7zip_opens_behind_a_picture_is_ambiguous(kind: str) -> None:
    assert judged(PICTURE + INSIDE[kind]) is Reason.AMBIGUOUS


@pytest.mark.parametrize("before", [STEP - 3, STEP, 3 * STEP - 9])
def test_a_signature_across_two_steps_is_found(before: int) -> None:
    assert judged(b"\xff" * before + INSIDE["xz"]) is Reason.AMBIGUOUS
    assert judged(b"x" * before + INSIDE["bzip2"]) is Reason.AMBIGUOUS


def test_a_cpio_in_text_is_found_where_its_first_zero_lies_in_the_next_step() -> None:
    """7-Zip opened it."""
    header = b"070701" + b"%08x" * 13 % (1, 0o100644, 0, 0, 1, 0, 4, 0, 0, 0, 0, 600, 0)
    for early in (20, 60, 110, 700):
        text = b"text\n" * STEP
        archive = text[: STEP - early] + header + b"a" * 599 + b"\0data"
        assert judged(archive) is Reason.AMBIGUOUS
        assert judged(archive[:-5] + b"text") is None


@pytest.mark.parametrize("magic", [b"ustar 00", b"ustar000", b"ustar  \0"])
@pytest.mark.parametrize("before", [b"text\n" * 99, b"\xff\0" * 99])
def test_a_tar_without_zeros_is_found_wherever_it_begins(magic: bytes, before: bytes) -> None:
    """7-Zip wants no checksum, and no more of the magic than its letters."""
    header = bytearray(
        b"a" * 100 + b"0000644 0001750 0001750 00000000104 14000000000 " + b" " * 9 + b"a" * 355
    )
    header[257:265] = magic
    header[148:155] = b"%06o " % sum(header[:512])
    assert len(header) == 512
    assert judged(before + header + b"data".ljust(512)) is Reason.AMBIGUOUS


def test_what_lies_beyond_the_reach_of_7zip_is_not_searched() -> None:
    assert judged(b"\xff" * SEARCHED + INSIDE["xz"]) is None


@pytest.mark.parametrize(
    "chance",
    [
        b"PK\3\4" + b"\xff" * 40,
        b"\x1f\x8b\x08" + b"\xff" * 40,
        b"\x1f\x8b\x08\0\0\0\0\0\0\3\7" + b"\xff" * 40,
        b"\x1f\x8b\x08\0\0\0\0\0\0\3" + TOO_FAR_BACK + b"\xff" * 40,
        b"\xfd7zXZ\0" + b"\xff" * 40,
        b"\x28\xb5\x2f\xfd" + b"\xff" * 40,
        b"\x28\xb5\x2f\xfd\x21\7" + INSIDE["zst"][5:],
        b"hsqs" + b"\xff" * 40,
        b"Rar!\x1a\x07\0" + b"\xff" * 40,
        b"Rar!\x1a\x07\1\0" + b"\xff" * 40,
        b"MSWIM\0\0\0InternetShortcut",
        struct.pack("<13H", 0o70707, 0, 1, 0o100644, 0, 0, 1, 0, 0, 0, 9, 0, 5) + b"a\0hello",
        b"7z\xbc\xaf\x27\x1c" + b"\xff" * 40,
        b"ustar  \0",
        b"20070701123456789 is a date",
    ],
)
def test_a_signature_by_chance_is_nothing(chance: bytes) -> None:
    assert judged(PICTURE + chance) is None


@pytest.mark.parametrize("before", [b"\x28\xb5\x2f", b"\x1f\x8b", b"BZh91AY&S", b"07070", b"\xc7"])
def test_the_beginning_of_another_signature_hides_none(before: bytes) -> None:
    """The first shares a byte with xz: 7-Zip opened what stood behind it."""
    for kind in ("xz", "old cpio, big-endian", "zip"):
        assert judged(PICTURE + before + INSIDE[kind]) is Reason.AMBIGUOUS


@pytest.mark.parametrize(
    ("signature", "most"),
    [(b"PK\3\4", 8100), (b"\x28\xb5\x2f\xfd\xff", 8100), (b"\x1f\x8b\x08", 256), (b"Rar!\x1a\x07", 32)],
)
def test_more_signatures_than_can_be_looked_at_are_over_the_limit(signature: bytes, most: int) -> None:
    """Of the files on a Debian of 55,000 none had more than 36 that led nowhere."""
    assert judged(PICTURE + signature * most) is None
    assert judged(PICTURE + signature * (most + 100)) is Reason.LIMIT


@pytest.mark.alone
@pytest.mark.usefixtures("freshly_started")
@pytest.mark.parametrize(
    "content",
    [
        *(
            b"\xc7\x71",
            b"PK\3\4",
            b"\x1f\x8b\x08",
            b"hsqs",
            b"Rar!\x1a\x07\0\0\0\x73\0\0\xff\xff",
            b" 0000000",
        ),
        b"PK\3\4\x14\0\0\0\x08\0" + bytes(16) + b"\xff\xff\0\0" + b"a" * 900,
        b"\x1f\x8b\x08\0\0\0\0\0\0\3" + TOO_FAR_BACK,
        struct.pack(">13H", 0o70707, 0, 1, 0o100644, 0, 0, 1, 0, 0, 0, 9, 0, 5),
    ],
)
def test_no_bit_of_the_search_takes_long_nor_does_all_of_it(content: bytes) -> None:
    """Eight MiB of gzip signatures took four seconds."""
    part = Part.of(PICTURE + content * (SEARCHED // len(content)))
    bits = min((_times_of_bits(part) for _ in range(3)), key=max)
    assert max(bits) < 0.01
    assert sum(bits) < 0.6


def _times_of_bits(part: Part) -> list[float]:
    """Seconds of processor time."""
    times = [time.thread_time()]
    with suppress(Unsure):
        for _ in search_for_container(part):
            times.append(time.thread_time())  # noqa: PERF401 - it may raise
    return [later - earlier for earlier, later in pairwise(times)]


UUENCODED = b"begin 644 a.zip\n" + binascii.b2a_uu(b"PK") + b"`\nend\n"


@pytest.mark.parametrize("before", [b"", b"Dear all,\n\n", b"Dear all,\r\n", b"begin 644 of it\n"])
def test_what_is_encoded_in_a_text_is_ambiguous(before: bytes) -> None:
    """Bsdtar opens it."""
    assert judged(before + UUENCODED) is Reason.AMBIGUOUS
    assert judged(before + b"begin-base64 644 a\nUEsDBA==\n====\n") is Reason.AMBIGUOUS


@pytest.mark.parametrize("before", [b"\xff\n", b"\0\n", b"not ", b"text\n" * 30_000])
def test_what_is_encoded_elsewhere_is_nothing(before: bytes) -> None:
    assert judged(before + UUENCODED) is None


def test_a_text_that_tells_how_to_begin_is_nothing() -> None:
    assert judged(b"Write\nbegin 644 name\nand then the data,\n") is None


@pytest.mark.slow
def test_noise_is_nothing() -> None:
    chance = random.Random(2)
    assert [judged(b"\xff" + chance.randbytes(8 << 20)) for _ in range(8)] == [None] * 8


def test_a_tar_without_a_magic_is_found_wherever_gnu_tar_would_go_on() -> None:
    archive = bytearray(tar_of({"a": TEXT}))
    archive[257:265] = bytes(8)
    archive[148:156] = b" " * 8
    archive[148:156] = b"%06o\0 " % sum(archive[:512])
    for blocks in (1, 20, 3000):
        assert judged(b"\xff" * 512 * blocks + archive) is Reason.AMBIGUOUS
        assert judged(b"\xff" * 511 * blocks + archive) is None


@pytest.mark.parametrize(
    "content",
    [
        b"x" + b"begin 644 " * 13_000,
        b"x" + b"\nbegin 644 " * 12_000,
        b"begin-base64 644 " * 7_000,
        b"\xff" + (b"Rar!\x1a\x07\0\0\0\x73\0\0\xff\xff") * 100_000,
        b"\xff" + (b"Rar!\x1a\x07\1\0\0\0\0\0\xff\xff\x02") * 100_000,
    ],
)
def test_what_looks_like_many_beginnings_takes_no_longer_for_it(content: bytes) -> None:
    """The first took twelve seconds, in which the event loop stood still."""
    began = time.process_time()
    judged(content)
    assert time.process_time() - began < 0.5


def test_text_in_one_line_before_what_is_encoded_hides_nothing() -> None:
    encoded = b"begin 644 a\n" + binascii.b2a_uu(b"secret") + b"`\nend\n"
    assert judged(b"a begin 644 b begin 644 c\n" + encoded) is Reason.AMBIGUOUS
    assert judged(b"a " + encoded) is None
