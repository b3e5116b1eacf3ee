from __future__ import annotations

import gzip
import random
import zipfile

import pytest

from scanner.containers.inspection import MAX_DEPTH, MAX_MEMBERS, SEARCHED, STEP, Part, Unsure
from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, judged, tar_of, zip_of

MIB = 1024 * 1024


def nested(depth: int) -> bytes:
    archive = zip_of({"text": TEXT})
    for _ in range(depth):
        archive = zip_of({"inner.zip": archive})
    return archive


def test_a_part_gives_nothing_outside_of_itself() -> None:
    part = Part.of(b"0123456789").slice(2, 5)
    assert part.read(0, 99) == b"23456"
    assert part.read(-1, 3) == part.read(5, 3) == part.read(2, -1) == b""
    assert part.tail(2) == (3, b"56")
    with pytest.raises(Unsure):
        part.slice(3, 3)


def test_steps_overlap_as_asked() -> None:
    data = bytes(range(256)) * 2000
    pieces = list(Part.of(data).steps(overlap=7))
    assert data.startswith(pieces[0][1])
    assert pieces[0][1][-7:] == pieces[1][1][:7]


def test_containers_may_be_nested_eight_deep_and_no_deeper() -> None:
    assert judged(nested(MAX_DEPTH)) is None
    assert judged(nested(MAX_DEPTH + 1)) is Reason.LIMIT


@pytest.mark.slow
def test_too_many_members_are_a_limit() -> None:
    assert judged(zip_of({str(i): b"" for i in range(MAX_MEMBERS)}, zipfile.ZIP_STORED)) is None
    assert judged(zip_of({str(i): b"" for i in range(MAX_MEMBERS + 1)}, zipfile.ZIP_STORED)) is Reason.LIMIT


@pytest.mark.slow
def test_a_tight_member_is_a_limit_only_above_100_mib() -> None:
    assert judged(zip_of({"zeros": bytes(99 * MIB)})) is None
    assert judged(zip_of({"zeros": bytes(101 * MIB)})) is Reason.LIMIT
    assert judged(gzip.compress(bytes(101 * MIB))) is Reason.LIMIT


@pytest.mark.slow
def test_a_large_container_inside_another_is_a_limit() -> None:
    """It would have to be held whole."""
    large = tar_of({str(i): b"%d" % i * (3 * MIB) for i in range(100, 108)})
    assert len(large) > 64 * MIB
    assert judged(gzip.compress(large, 1)) is Reason.LIMIT


def test_a_large_member_that_ends_as_a_zip_is_ambiguous() -> None:
    noise = random.Random(1).randbytes(9 * MIB)
    assert judged(zip_of({"noise": noise})) is None
    assert judged(zip_of({"noise": noise + zip_of({"text": TEXT})})) is Reason.AMBIGUOUS


def test_the_deadline_is_a_limit_of_time() -> None:
    assert judged(zip_of({"text": TEXT}), timeout=-1) is Reason.TIME_LIMIT


def test_a_pdf_is_looked_at_to_its_end_which_says_whether_it_is_encrypted() -> None:
    noise = random.Random(1).randbytes(9 * MIB).replace(b"/", b".")
    assert judged(zip_of({"a": b"%PDF-1.7\n" + noise})) is None
    hostile = b"%PDF-1.7\n" + noise + b"trailer << /Root 1 0 R /#45ncrypt 5 0 R >>"
    assert judged(zip_of({"a": hostile})) is Reason.ENCRYPTED_DOCUMENT


@pytest.mark.slow
def test_a_pdf_that_is_too_large_to_be_held_is_unpacked() -> None:
    assert judged(zip_of({"a": b"%PDF-1.7\n" + random.Random(1).randbytes(65 * MIB)})) == SOUND


@pytest.mark.parametrize("behind", [0, 3, 60_000])
@pytest.mark.parametrize("size", [SEARCHED - 30, SEARCHED - 2, SEARCHED + 30, SEARCHED + STEP, 40 * STEP + 7])
def test_the_end_of_a_zip_is_seen_behind_what_is_held(size: int, behind: int) -> None:
    """Wherever it lies between pieces, and where what is held ends."""
    member = b"\xff" * size + b"PK\5\6" + bytes(18 + behind)
    assert judged(zip_of({"a": member})) is not None
    assert judged(zip_of({"a": member.replace(b"PK", b"KP")})) is None
