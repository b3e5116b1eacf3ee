"""pax headers are read in one way, or not at all."""

from __future__ import annotations

import pytest

from scanner.containers.inspection import Part, Unsure
from scanner.containers.pax import check_holes, sparse_records


def record(key: bytes, value: bytes, blank: bytes = b" ", end: bytes = b"\n") -> bytes:
    rest = blank + key + b"=" + value + end
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def test_what_moves_nothing_is_no_reason_to_be_unsure() -> None:
    text = record(b"path", b"a\n13 size=99999\n") + record(b"SCHILY.xattr.user.x", b"\0\xff") * 9
    assert sparse_records(text + record(b"GNU.sparse.name", b"x")) == [(b"name", b"x")]


@pytest.mark.parametrize(
    "text",
    [
        *(record(key, b"5") for key in (b"size", b"hdrcharset", b"SCHILY.realsize", b"SUN.holesdata")),
        record(b"size", b"5", blank=b"  "),
        record(b"size", b"5", blank=b"\t"),
        record(b"comment", b"x", end=b"Z") + record(b"size", b"5"),
        b"0" + record(b"path", b"x"),
        record(b"path", b"x") + b"\n",
        record(b"path", b"x") + bytes(2),
        b"99 path=x\n",
        b"3 path=x\n",
        b"9 path\n",
    ],
)
def test_what_readers_read_in_two_ways_is_ambiguous(text: bytes) -> None:
    with pytest.raises(Unsure):
        sparse_records(text)


def holes(data: bytes, *records: tuple[bytes, bytes]) -> None:
    check_holes(list(records), Part.of(data))


MAPPED = (b"size", b"9"), (b"numblocks", b"1")
PIECES = (b"offset", b"1"), (b"numbytes", b"2"), (b"offset", b"4"), (b"numbytes", b"3")
STORED = (b"major", b"1"), (b"minor", b"0"), (b"realsize", b"9"), (b"name", b"x")


def test_a_map_that_says_where_all_data_go_is_sound() -> None:
    holes(b"hello", *MAPPED, (b"map", b"4,5"))
    holes(b"hello", *MAPPED, (b"offset", b"4"), (b"numbytes", b"5"))
    holes(b"hello", MAPPED[0], (b"numblocks", b"2"), *PIECES)
    holes(b"2\n0\n1\n4\n5\n".ljust(512, b"\0") + b"-hello", *STORED)
    holes(b"0\n".ljust(512, b"\0"), *STORED)


@pytest.mark.parametrize("places", [b"4,6", b"4,4", b"5,5", b"4", b"4,5,9,0", b"+4,5", b"", b"4,2,0,3"])
def test_another_map_is_not(places: bytes) -> None:
    with pytest.raises(Unsure):
        holes(b"hello", *MAPPED, (b"map", places))


@pytest.mark.parametrize(
    "records",
    [
        (*MAPPED, *PIECES),
        (*MAPPED, (b"numbytes", b"5"), (b"offset", b"4")),
        (*MAPPED, (b"offset", b"4")),
        (*MAPPED, (b"offset", b"4"), (b"numbytes", b"5,6,0")),
        (MAPPED[0], (b"numblocks", b"2"), (b"offset", b"1"), (b"numbytes", b"2,4,3")),
        (*MAPPED[::-1], (b"offset", b"4"), (b"numbytes", b"5")),
        (*MAPPED, (b"offset", b"4"), (b"numbytes", b"5"), (b"map", b"4,5")),
        (*MAPPED, (b"offset", b"4"), (b"name", b"x"), (b"numbytes", b"5")),
        (*MAPPED, (b"offset", b"5"), (b"numbytes", b"5")),
    ],
)
def test_nor_are_other_pieces(records: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(Unsure):
        holes(b"hello", *records)


def test_nor_is_a_piece_in_the_value_of_something_else() -> None:
    piece = record(b"GNU.sparse.offset", b"7")
    with pytest.raises(Unsure):
        sparse_records(record(b"GNU.sparse.size", b"9") + record(b"comment", b"x\n" + piece))


@pytest.mark.parametrize(
    "text", [b"#\n1\n4\n5\n", b"1\n+4\n5\n", b"1\n4\n5\nx", b"1\n4\n5", b"2\n4\n2\n0\n3\n", b"9\n"]
)
def test_nor_is_one_before_the_data(text: bytes) -> None:
    with pytest.raises(Unsure):
        holes(text.ljust(512, b"\0") + b"hello", *STORED)


@pytest.mark.parametrize(
    "records",
    [
        (*STORED, (b"map", b"4,5")),
        (*MAPPED, (b"map", b"4,5"), (b"map", b"4,5")),
        (*MAPPED, (b"offset", b"4"), (b"numbytes", b"5")),
        ((b"major", b"2"), *STORED[1:]),
    ],
)
def test_nor_are_two_forms_in_one(records: tuple[tuple[bytes, bytes], ...]) -> None:
    with pytest.raises(Unsure):
        holes(b"1\n4\n5\n".ljust(512, b"\0") + b"hello", *records)
