from __future__ import annotations

import tarfile

import pytest

from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged, tar_of, zip_of

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


@pytest.mark.parametrize("kind", [b"M", b"V", b"N", b"Z"])
def test_unknown_types_are_ambiguous(kind: bytes) -> None:
    assert judged(with_field(tar_of(FILES), TYPE, kind)) is Reason.AMBIGUOUS


def test_a_link_with_data_is_ambiguous() -> None:
    """Some readers skip the data, others take it for headers."""
    assert judged(with_field(tar_of(FILES), TYPE, b"1")) is Reason.AMBIGUOUS


def test_a_size_in_binary_is_sound() -> None:
    archive = with_field(tar_of(FILES), 124, b"\x80" + bytes(10) + b"\x0a")
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [list(FILES.values())]


def sparse(*pieces: tuple[int, bytes], size: int) -> bytes:
    """A file with holes as old GNU tar writes it."""
    content = b"".join(piece for _, piece in pieces)
    archive = with_field(tar_of({"sparse": content}), TYPE, b"S")
    places = b"".join(b"%011o\0%011o\0" % (place, len(piece)) for place, piece in pieces)
    return with_field(archive, 386, places.ljust(97, b"\0") + b"%011o\0" % size)


def test_a_file_with_holes_is_sound() -> None:
    archive = sparse((0, b"x" * 512), (4096, b"y" * 100), size=5000)
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [[b"x" * 512 + bytes(3584) + b"y" * 100 + bytes(804)]]


@pytest.mark.parametrize(
    "archive",
    [
        sparse((4096, b"x" * 512), (0, b"y" * 512), size=5000),
        sparse((0, b"x" * 512), (256, b"y" * 512), size=5000),
        sparse((0, b"x" * 512), size=100),
        with_field(sparse((0, b"x" * 512), size=512), 124, b"%011o\0" % 100),
    ],
)
def test_holes_that_make_no_sense_are_ambiguous(archive: bytes) -> None:
    assert judged(archive) is Reason.AMBIGUOUS


def in_pax(content: bytes, *records: bytes) -> bytes:
    """A file with records in a header of its own."""
    text = b"".join(b"%d %s\n" % (len(record) + 4, record) for record in records)
    extended = with_field(tar_of({"x": text}), TYPE, b"x")
    return extended[:1024] + tar_of({"file": content})


def test_a_file_with_holes_in_pax_is_judged_in_two_ways() -> None:
    """Clamd and 7-Zip see what is stored, and must see all in it; the others what is meant."""
    records = b"GNU.sparse.size=9", b"GNU.sparse.numblocks=1", b"GNU.sparse.map=4,5"
    assert judged(in_pax(b"hello", *records)) == SOUND
    assert delivered(in_pax(b"hello", *records), *SOUND) == [[bytes(4) + b"hello"]]
    assert judged(in_pax(zip_of({"a": TEXT}, method=14), *records)) is Reason.AMBIGUOUS
    assert judged(with_field(in_pax(b"hello", *records), 0, b"ID3")) is Reason.AMBIGUOUS


def test_what_two_headers_say_of_the_holes_in_one_file_is_ambiguous() -> None:
    """Python goes by the first one's map, and gives less of the data than others."""
    records = [b"GNU.sparse.size=9", b"GNU.sparse.numblocks=2"]
    pieces = [
        b"GNU.sparse.offset=0",
        b"GNU.sparse.numbytes=2",
        b"GNU.sparse.offset=6",
        b"GNU.sparse.numbytes=3",
    ]
    assert judged(in_pax(b"hello", *records, *pieces)) == SOUND
    in_two = in_pax(b"", *records, *pieces[:2])[:1024] + in_pax(b"hello", *pieces[2:])
    assert judged(in_two) is Reason.AMBIGUOUS


@pytest.mark.parametrize("name", [b"ID3", b"MZ", b"GIF89a", b"From: "])
def test_a_first_name_that_clamd_takes_for_another_type_is_sound(name: bytes) -> None:
    archive = with_field(tar_of(FILES), 0, name + b"\0")
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [list(FILES.values())]


def test_another_dialect_in_the_middle_is_sound() -> None:
    archive = tar_of(FILES, tarfile.GNU_FORMAT)
    archive = archive[:1024] + tar_of({"text": TEXT}, tarfile.USTAR_FORMAT)
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [list(FILES.values())]


def test_what_is_a_directory_by_its_name_has_no_data_for_libarchive() -> None:
    directory = with_field(tar_of(FILES), 0, b"d/\0")
    assert judged(directory) is None
    assert judged(with_field(directory, 0, b"ID3/\0")) is Reason.AMBIGUOUS


def test_a_header_of_no_dialect_in_the_middle_is_ambiguous() -> None:
    archive = tar_of(FILES)
    other = with_field(archive[1024:], MAGIC, b"5star")
    assert judged(archive[:1024] + other) is Reason.AMBIGUOUS


def test_pax_keys_that_move_data_are_ambiguous() -> None:
    for key in (b"size", b"hdrcharset"):
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
