"""What zipfile says of a ZIP that is not quite right; its errors have one of four reasons."""

from __future__ import annotations

import struct
import zipfile
import zlib
from itertools import islice

import pytest

from scanner.unpacking.allowance import Unreadable
from scanner.unpacking.by_zipfile import entries
from scanner.verdict import Reason
from tests.archives import zip_of

STORED = zip_of({"name": b"some content"}, zipfile.ZIP_STORED)


def read(data: bytes) -> list[tuple[bytes, bytes]]:
    return [(path, b"".join(map(bytes, pieces))) for path, pieces in entries(memoryview(bytearray(data)))]


def reason(data: bytes) -> Reason:
    with pytest.raises(Unreadable) as caught:
        read(data)
    return caught.value.reason


def changed(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """With `value` at `offset` of the last record of this signature."""
    at = data.rindex(signature) + offset
    return data[:at] + value + data[at + len(value) :]


def in_both(data: bytes, local: int, central: int, value: bytes) -> bytes:
    return changed(changed(data, b"PK\1\2", central, value), b"PK\3\4", local, value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_one_of_several_members_of_one_name_is_seen() -> None:
    buffer = bytearray()
    one, two = zip_of({"x": b"one"}), zip_of({"x": b"two"})
    locals_ = one[: one.index(b"PK\1\2")], two[: two.index(b"PK\1\2")]
    records = (
        one[one.index(b"PK\1\2") : one.index(b"PK\5\6")],
        two[two.index(b"PK\1\2") : two.index(b"PK\5\6")],
    )
    second = changed(records[1], b"PK\1\2", 42, struct.pack("<I", len(locals_[0])))
    buffer += b"".join((*locals_, records[0], second))
    end = one[one.index(b"PK\5\6") :]
    size, offset = len(records[0] + second), len(b"".join(locals_))
    buffer += end[:8] + struct.pack("<HHII", 2, 2, size, offset) + b"\0\0"
    assert read(bytes(buffer)) == [(b"x", b"one"), (b"x", b"two")]


def test_a_folder_with_content_is_handed_over() -> None:
    assert read(zip_of({"folder/": b"content"})) == [(b"folder/", b"content")]


def test_what_stands_before_is_left_out() -> None:
    assert read(b"#!/bin/sh\n" + STORED) == [(b"name", b"some content")]


def test_paths_of_any_bytes_come_out() -> None:
    assert read(in_both(STORED, 30, 46, b"\xff\xfe")) == [
        ("\xa0\N{BLACK SQUARE}me".encode(), b"some content")
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"no zip", Reason.DAMAGED),
        (STORED[:-1], Reason.DAMAGED),
        (changed(STORED, b"PK\1\2", 16, b"\0"), Reason.DAMAGED),  # CRC
        (changed(STORED, b"PK\3\4", 30, b"other"), Reason.DAMAGED),  # names differ
        (changed(STORED, b"PK\1\2", 24, b"\xff"), Reason.DAMAGED),  # size
        (in_both(STORED, 6, 8, b"\1"), Reason.ENCRYPTED_ARCHIVE),
        (in_both(STORED, 6, 8, b"\x41"), Reason.ENCRYPTED_ARCHIVE),
        (in_both(STORED, 6, 8, b"\x20"), Reason.AMBIGUOUS),  # patch data
        (in_both(STORED, 8, 10, b"\x5f"), Reason.AMBIGUOUS),  # xz
        (in_both(STORED, 8, 10, b"\x0c"), Reason.DAMAGED),  # bzip2, which it is not
        (in_both(STORED, 8, 10, b"\x0e"), Reason.DAMAGED),  # LZMA
        (in_both(STORED, 8, 10, b"\x08"), Reason.DAMAGED),  # deflate
        (in_both(STORED, 7, 9, b"\x08").replace(b"name", b"\xff\xfe\xff\xfe"), Reason.DAMAGED),  # no UTF-8
    ],
)
def test_what_is_not_right_has_a_reason(data: bytes, expected: Reason) -> None:
    assert reason(data) is expected


def test_a_member_that_says_it_is_shorter_than_it_is_ends_there() -> None:
    """So that it differs from what another reader sees."""
    crc = struct.pack("<I", zlib.crc32(b"some"))
    shorter = in_both(in_both(STORED, 22, 24, b"\4"), 14, 16, crc)
    assert read(shorter) == [(b"name", b"some")]


def test_what_is_behind_a_password_is_left_out_and_told_at_the_end() -> None:
    """Whatever comes behind it is read."""
    archive = bytearray(zip_of({"locked": b"x" * 20, "plain": b"plain content"}, zipfile.ZIP_STORED))
    for signature, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        archive[archive.index(signature) + flags] |= 1
    members = entries(memoryview(archive))
    found = [(path, b"".join(map(bytes, pieces))) for path, pieces in islice(members, 2)]
    assert found == [(b"locked", b""), (b"plain", b"plain content")]
    with pytest.raises(Unreadable) as caught:
        next(members)
    assert caught.value.reason is Reason.ENCRYPTED_ARCHIVE
