from __future__ import annotations

import tarfile

import pytest

from scanner.verdict import Reason
from tests.archives import TEXT, judged, tar_of

FILES = {"first": b"first file", "text": TEXT}
TYPE, MAGIC = 156, 257


def with_field(archive: bytes, place: int, value: bytes) -> bytes:
    """The first header with another value and a checksum that is right for it."""
    header = bytearray(archive[:512])
    header[place : place + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + archive[512:]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_is_plain(form: int) -> None:
    assert judged(tar_of(FILES, form)) is None


def test_long_and_foreign_names_are_plain() -> None:
    files = {"directory/" * 20 + "\u00e9t\u00e9": b"content", "\u0434\u043e\u043c": b"content"}
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert judged(tar_of(files, form)) is None


@pytest.mark.parametrize("kind", [b"S", b"M", b"V", b"N", b"Z"])
def test_unknown_types_and_sparse_files_are_ambiguous(kind: bytes) -> None:
    assert judged(with_field(tar_of(FILES), TYPE, kind)) is Reason.AMBIGUOUS


def test_a_link_with_data_is_ambiguous() -> None:
    """Some readers skip the data, others take it for headers."""
    assert judged(with_field(tar_of(FILES), TYPE, b"1")) is Reason.AMBIGUOUS


def test_a_size_in_binary_is_ambiguous() -> None:
    assert judged(with_field(tar_of(FILES), 124, b"\x80" + bytes(10) + b"\x0a")) is Reason.AMBIGUOUS


@pytest.mark.parametrize("name", [b"ID3", b"MZ", b"GIF89a", b"From: ", b"begin 644"])
def test_a_first_name_that_clamd_takes_for_another_type_is_ambiguous(name: bytes) -> None:
    assert judged(with_field(tar_of(FILES), 0, name + b"\0")) is Reason.AMBIGUOUS


def test_a_header_of_another_dialect_in_the_middle_is_ambiguous() -> None:
    archive = tar_of(FILES)
    other = with_field(archive[1024:], MAGIC, b"5star")
    assert judged(archive[:1024] + other) is Reason.AMBIGUOUS


def test_pax_keys_that_move_data_are_ambiguous() -> None:
    for key in (b"size", b"GNU.sparse.realsize"):
        record = key + b"=5\n"
        record = b"%d " % (len(record) + 3) + record
        extended = with_field(tar_of({"x": record}), TYPE, b"x")
        assert judged(extended) is Reason.AMBIGUOUS


def test_a_wrong_checksum_is_damage() -> None:
    archive = tar_of(FILES)
    assert judged(b"F" + archive[1:]) is Reason.DAMAGED


def test_a_missing_end_is_damage() -> None:
    assert judged(tar_of(FILES)[:3584]) is Reason.DAMAGED


def test_anything_behind_the_end_is_ambiguous() -> None:
    assert judged(tar_of({"a": b"one"}) + tar_of({"b": b"two"})) is Reason.AMBIGUOUS


def test_a_tar_behind_other_blocks_is_ambiguous() -> None:
    """GNU tar skips to the first header that it finds."""
    old = with_field(tar_of(FILES, tarfile.USTAR_FORMAT), MAGIC, bytes(8))
    assert judged(b"x" * 1024 + old) is Reason.AMBIGUOUS
