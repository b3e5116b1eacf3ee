"""What unpacks to more than it seems costs bounded time and memory, and is unscannable."""

from __future__ import annotations

import lzma
import struct
import subprocess
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import py7zr
import pytest

from scanner.verdict import Outcome
from tests.archives import sevenzip_of, tar_of, zip_of
from tests.corpus.kept import bombs
from tests.judging import Judge, judging_bytes
from tests.process_tree import watching
from tests.real_clamd import EICAR, Clamd

_MIB, _GIB = 1 << 20, 1 << 30
# `archives.time`, clamd's own time at worst, and a machine that is busy.
_SECONDS = 30.0
# What one worker may take, and the members in memory of one file that is looked at alone.
_MEMORY = 256 * _MIB + 300 * _MIB + 64 * _MIB


def zeros_deflated(size: int) -> bytes:
    """A raw deflate stream of so many zeros, a multiple of 64 MiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = packer.compress(bytes(64 * _MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return once * (size // (64 * _MIB)) + packer.flush()


def crc_of_zeros(size: int) -> int:
    crc, piece = 0, bytes(16 * _MIB)
    for _ in range(size // len(piece)):
        crc = zlib.crc32(piece, crc)
    return crc


def zip_around(stream: bytes, size: int, crc: int, entries: int = 1) -> bytes:
    """A ZIP of one deflated member, which may be in the directory several times."""
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(stream), size, 1, 0)
    local = b"PK\3\4" + fields + b"a" + stream
    central = b"PK\1\2" + struct.pack("<H", 20) + fields + bytes(14) + b"a"
    directory = central * entries
    end = struct.pack("<HHHHIIH", 0, 0, entries, entries, len(directory), len(local), 0)
    return local + directory + b"PK\5\6" + end


def zip_of_zeros() -> bytes:
    return zip_around(zeros_deflated(_GIB), _GIB, crc_of_zeros(_GIB))


def zip_that_overlaps() -> bytes:
    size = 64 * _MIB
    return zip_around(zeros_deflated(size), size, crc_of_zeros(size), entries=5000)


def gzip_of_zeros() -> bytes:
    trailer = struct.pack("<II", crc_of_zeros(_GIB), _GIB % (1 << 32))
    return b"\x1f\x8b\x08\0\0\0\0\0\0\3" + zeros_deflated(_GIB) + trailer


def zeros_by(command: str) -> bytes:
    """A GiB of zeros through a program: 16 streams of 64 MiB, which readers take for one."""
    line = f"head -c {64 * _MIB} /dev/zero | {command}"
    return subprocess.run(["bash", "-c", line], check=True, capture_output=True).stdout * 16


def zst_with_a_window_of_2_gib() -> bytes:
    """Its one block is a run of 128 KiB of zeros."""
    exponent = 31 - 10
    header = b"\x28\xb5\x2f\xfd\0" + bytes([exponent << 3])
    return header + ((128 * 1024 << 3) | 0b011).to_bytes(3, "little") + b"\0"


def lzma_with_a_dictionary_of_4_gib() -> bytes:
    content = lzma.compress(bytes(_MIB), lzma.FORMAT_ALONE)
    return content[:1] + b"\xff" * 4 + content[5:]


def lzip_with_a_dictionary_of_512_mib() -> bytes:
    command = ["lzip", "-0", "-c"]
    content = subprocess.run(command, input=bytes(_MIB), check=True, capture_output=True).stdout
    return content[:5] + bytes([29]) + content[6:]


def ppmd_with_2_gib_of_memory() -> bytes:
    """Written with the default, then said to need more, in a header whose checksums are right."""
    content = bytearray(
        sevenzip_of({"a": bytes(_MIB)}, {"id": py7zr.FILTER_PPMD, "order": 6, "mem": 24}, packed_header=False)
    )
    place = content.rindex(b"\3\4\1\7\6") + 5
    content[place : place + 4] = (1 << 31).to_bytes(4, "little")
    offset, size = struct.unpack_from("<QQ", content, 12)
    content[28:32] = zlib.crc32(content[32 + offset : 32 + offset + size]).to_bytes(4, "little")
    content[8:12] = zlib.crc32(content[12:32]).to_bytes(4, "little")
    return bytes(content)


def zips_in_zips() -> bytes:
    """As 42.zip: 16 to the power of 5 members of 64 MiB."""
    size = 64 * _MIB
    content = zip_around(zeros_deflated(size), size, crc_of_zeros(size))
    for _ in range(5):
        content = zip_of({f"{number}.zip": content for number in range(16)})
    return content


def gzips_in_gzips() -> bytes:
    """A quine as far as anybody looks."""
    content = EICAR
    for _ in range(1000):
        content = zlib.compress(content, wbits=31)
    return content


def packed(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=content, check=True, capture_output=True).stdout


def a_million_empty_members() -> bytes:
    return packed(tar_of({"": b""})[:512] * 1_000_000 + bytes(1024))


def a_million_empty_members_of_cpio() -> bytes:
    header = b"070701" + b"%08x" % 0 * 11 + b"%08x" % 2 + b"%08x" % 0 + b"a\0"
    return packed((header + bytes(-len(header) % 4)) * 1_000_000)


def a_zip_of_as_many_members_as_it_can_have() -> bytes:
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, 0, 0, 0, 5, 0)
    records, directory = [], []
    for number in range(65_000):
        name = b"%05d" % number
        place = number * 35
        records.append(b"PK\3\4" + fields + name)
        directory.append(b"PK\1\2\x14\0" + fields + bytes(10) + place.to_bytes(4, "little") + name)
    central = b"".join(directory)
    end = struct.pack("<HHHHIIH", 0, 0, len(records), len(records), len(central), 35 * len(records), 0)
    return b"".join(records) + central + b"PK\5\6" + end


BOMBS: tuple[Callable[[], bytes], ...] = (
    zip_of_zeros,
    zip_that_overlaps,
    gzip_of_zeros,
    zst_with_a_window_of_2_gib,
    ppmd_with_2_gib_of_memory,
    zips_in_zips,
    gzips_in_gzips,
    a_million_empty_members,
    a_million_empty_members_of_cpio,
    a_zip_of_as_many_members_as_it_can_have,
)
ZEROS_BY = ("zstd -q -c", "lz4 -q -c", "xz -0 -c", "lzip -0 -c", "bzip2 -c")


@pytest.fixture
async def judge(clamd: Clamd, tmp_path: Path) -> AsyncIterator[Judge]:
    async with AsyncExitStack() as stack:
        judge = await stack.enter_async_context(judging_bytes(clamd, tmp_path))
        await judge(zip_of({"first": b"so that everything is running"}))
        yield judge


@pytest.mark.real
@pytest.mark.timeout(180)
@pytest.mark.parametrize("make", BOMBS, ids=lambda make: make.__name__)
async def test_a_bomb_is_unscannable_in_bounded_time_and_memory(
    clamd: Clamd, judge: Judge, make: Callable[[], bytes]
) -> None:
    await _hold(clamd, judge, make())


@pytest.mark.real
@pytest.mark.timeout(180)
@pytest.mark.parametrize("command", ZEROS_BY)
async def test_a_gib_of_zeros_by_a_program_is_unscannable(clamd: Clamd, judge: Judge, command: str) -> None:
    await _hold(clamd, judge, zeros_by(command))


@pytest.mark.real
@pytest.mark.parametrize("make", [lzma_with_a_dictionary_of_4_gib, lzip_with_a_dictionary_of_512_mib])
async def test_a_dictionary_that_nobody_needs_costs_no_memory(
    clamd: Clamd, judge: Judge, make: Callable[[], bytes]
) -> None:
    """What is in there is a MiB of zeros: to be clean is as right as to be refused."""
    with watching(but=clamd.pid) as peak:
        verdict = await judge(make())
    assert verdict.outcome in (Outcome.CLEAN, Outcome.UNSCANNABLE)
    assert peak.bytes < 64 * _MIB


@pytest.mark.real
@pytest.mark.timeout(180)
async def test_bombs_of_others_are_unscannable(clamd: Clamd, judge: Judge) -> None:
    assert {path.name for path in bombs()} == {"quine.zip", "4-gib-of-zeros.zip"}
    for path in bombs():
        await _hold(clamd, judge, path.read_bytes())


async def _hold(clamd: Clamd, judge: Judge, bomb: bytes) -> None:
    with watching(but=clamd.pid) as peak:
        began = time.monotonic()
        verdict = await judge(bomb)
        seconds = time.monotonic() - began
    reasons = [f"{report.engine} {report.reason}" for report in verdict.reports if report.reason]
    cost = f"{len(bomb)} bytes took {seconds:.1f} s and {peak.bytes // _MIB} MiB: {reasons}"
    assert verdict.outcome is Outcome.UNSCANNABLE, cost
    assert seconds < _SECONDS, cost
    assert peak.bytes < _MEMORY, cost
    print(cost)  # noqa: T201 - with pytest -rP
