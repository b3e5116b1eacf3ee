from __future__ import annotations

import shutil
import subprocess

import pytest
from backports import zstd

from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged

SKIPPED = b"\x50\x2a\x4d\x18\4\0\0\0skip"
# Stored blocks: 64 KiB at most each, no checksums; "first".
LZ4 = b"\x04\x22\x4d\x18\x60\x40\x82" + b"\5\0\0\x80first" + bytes(4)


def packed_by(program: str, content: bytes) -> bytes:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return subprocess.run([program, "-c"], input=content, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("archive", "content"),
    [
        (zstd.compress(TEXT), TEXT),
        (zstd.compress(b"first") + zstd.compress(b"second"), b"firstsecond"),
        (zstd.compress(b"first") + SKIPPED + zstd.compress(b"second"), b"firstsecond"),
        (zstd.compress(bytes(2_000_000)), bytes(2_000_000)),
        (LZ4 + LZ4, b"firstfirst"),
    ],
)
def test_whole_frames_are_sound(archive: bytes, content: bytes) -> None:
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [[content]]


@pytest.mark.parametrize("program", ["lz4", "zstd", "compress"])
def test_what_programs_write_is_sound(program: str) -> None:
    archive = packed_by(program, TEXT)
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [[TEXT]]


@pytest.mark.parametrize("frame", [zstd.compress(TEXT), LZ4])
def test_a_frame_that_breaks_off_is_damage_and_anything_behind_one_ambiguous(frame: bytes) -> None:
    assert judged(frame[:-1]) is Reason.DAMAGED
    assert judged(frame + b"more") is Reason.AMBIGUOUS


def test_nothing_but_what_is_skipped_is_ambiguous() -> None:
    assert judged(SKIPPED + SKIPPED) is Reason.AMBIGUOUS


def test_a_frame_that_needs_a_dictionary_is_ambiguous() -> None:
    assert judged(b"\x28\xb5\x2f\xfd\x21\7\1\x39\0\0content") is Reason.AMBIGUOUS
    assert judged(b"\x04\x22\x4d\x18\x61\x40\0" + bytes(8)) is Reason.AMBIGUOUS


def test_a_window_that_nobody_reads_unasked_is_a_limit() -> None:
    """17 bits more than 1 KiB are 128 MiB, and an eighth more is too much."""
    for window, answer in ((17 << 3, SOUND), ((17 << 3) + 1, Reason.LIMIT), (0xFF, Reason.LIMIT)):
        assert judged(b"\x28\xb5\x2f\xfd\0" + bytes([window]) + b"\1\0\0" + SKIPPED) == answer


def test_a_block_of_no_kind_is_damage() -> None:
    assert judged(b"\x28\xb5\x2f\xfd\0\x58\x07\0\0" + bytes(20)) is Reason.DAMAGED


def test_only_the_form_of_compress_itself_is_sound() -> None:
    assert judged(b"\x1f\x9d\x8c" + bytes(20)) is Reason.AMBIGUOUS
