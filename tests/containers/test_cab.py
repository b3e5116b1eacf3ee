from __future__ import annotations

import struct
import zlib

import pytest

from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged

STORED, MSZIP, QUANTUM = 0, 1, 2
FILES = {b"first": b"content", b"text": TEXT}


def block(content: bytes, method: int, reserved: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    packed = b"CK" + packer.compress(content) + packer.flush() if method == MSZIP else content
    return struct.pack("<L2H", 0, len(packed), len(content)) + reserved + packed


def cab(files: dict[bytes, bytes], method: int = STORED, *, reserved: bool = False, begin: int = 0) -> bytes:
    """One folder with all files in one block; `begin` is where the first file lies in it."""
    extra = struct.pack("<H2B", 4, 2, 1) + b"RESV" if reserved else b""
    at, entries = begin, b""
    for name, content in files.items():
        entries += struct.pack("<2L4H", len(content), at, 0, 33, 0, 32) + name + b"\0"
        at += len(content)
    offset = 36 + len(extra) + 8 + 2 * reserved
    data = block(b"".join(files.values()), method, b"d" * reserved)
    folder = struct.pack("<L2H", offset + len(entries), 1, method) + b"ff" * reserved
    size = offset + len(entries) + len(data)
    numbers = (0, size, 0, offset, 0, 3, 1, 1, len(files), 4 * reserved, 0, 0)
    return struct.pack("<4s5L2B5H", b"MSCF", *numbers) + extra + folder + entries + data


@pytest.mark.parametrize("method", [STORED, MSZIP])
@pytest.mark.parametrize("reserved", [True, False])
def test_one_whole_cabinet_is_sound(method: int, reserved: bool) -> None:
    archive = cab(FILES, method, reserved=reserved)
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [list(FILES.values())]


def test_a_method_that_libarchive_does_not_know_is_ambiguous() -> None:
    assert judged(cab(FILES, QUANTUM)) is Reason.AMBIGUOUS


def test_files_that_do_not_lie_side_by_side_are_ambiguous() -> None:
    assert judged(cab(FILES, begin=1)) is Reason.AMBIGUOUS


def test_one_of_several_cabinets_is_ambiguous() -> None:
    archive = cab(FILES)
    assert judged(archive[:30] + b"\2" + archive[31:]) is Reason.AMBIGUOUS


def test_bytes_behind_and_missing_ones_are_ambiguous() -> None:
    archive = cab(FILES)
    assert judged(archive + b"more") is Reason.AMBIGUOUS
    assert judged(archive[:-1]) is Reason.AMBIGUOUS
    assert judged(archive[:30]) is Reason.DAMAGED
