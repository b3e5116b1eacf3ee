"""pax headers (POSIX), read only where all readers read the same out of them.

A record is `length key=value` and a line end. GNU tar skips more blanks, Python does not look at the line's
end, libarchive reads comments between the numbers of a sparse file's map (tried, all three): so a record has
one form, and a map makes sense by itself.
"""

from __future__ import annotations

import re
from itertools import pairwise

from scanner.containers.inspection import Part, require
from scanner.verdict import Reason

_BLOCK = 512
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([!-<>-~\x80-\xff][^=\n\0]*)=")
# These change what a reader takes from the headers or the data that follow.
_UNSURE = frozenset({b"size", b"hdrcharset", b"SCHILY.realsize", b"SUN.holesdata"})
_SPARSE, _NAME = b"GNU.sparse.", b"name"
# GNU tar's form 0.0: these, and then two records for each piece.
_FIRST, _PIECE = [b"size", b"numblocks"], [b"offset", b"numbytes"]
_NUMBER = re.compile(rb"[0-9]{1,15}")
_MAX_MAP = 1024 * 1024


def sparse_records(text: bytes) -> list[tuple[bytes, bytes]]:
    """What a header says of holes, keys without `GNU.sparse.`; Unsure where it says what moves data."""
    position, records = 0, list[tuple[bytes, bytes]]()
    while position < len(text):
        record = _RECORD.match(text, position)
        length = int(record[1]) if record else 0
        require(record and record.end() < position + length <= len(text))
        if record is None:
            break
        position += length
        require(text[position - 1 : position] == b"\n" and record[2] not in _UNSURE)
        if record[2].startswith(_SPARSE):
            records.append((record[2].removeprefix(_SPARSE), text[record.end() : position - 1]))
    # Python looks for the pieces of form 0.0 in other records' values, too.
    require(not records or text.count(_SPARSE) == len(records))
    return records


def check_holes(records: list[tuple[bytes, bytes]], data: Part) -> None:
    """Unsure unless one map (GNU tar's forms 0.0 and 0.1, or 1.0 before the data) says where all data go."""
    records = _with_map(records)
    said = dict(records)
    require(len(said) == len(records))
    said.pop(_NAME, None)
    if said.keys() == {b"size", b"numblocks", b"map"}:
        size, count, places, begin = said[b"size"], said[b"numblocks"], said[b"map"].split(b","), 0
    else:
        require(said.keys() == {b"major", b"minor", b"realsize"})
        require((said[b"major"], said[b"minor"]) == (b"1", b"0"))
        count, places, begin = _stored_map(data)
        size = said[b"realsize"]
    ends = [0]
    for place, length in _pairs(places, _number(count)):
        ends += [place, place + length]
        begin += length
    require(all(one <= other for one, other in pairwise([*ends, _number(size)])) and begin == data.size)


def _with_map(records: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Form 0.0 as 0.1, any other as it is."""
    head, pieces = records[: len(_FIRST)], records[len(_FIRST) :]
    places = [value for _, value in pieces]
    in_pieces = [key for key, _ in records] == _FIRST + _PIECE * (len(pieces) // len(_PIECE))
    if not pieces or not in_pieces or not all(map(_NUMBER.fullmatch, places)):
        return records
    return [*head, (b"map", b",".join(places))]


def _stored_map(data: Part) -> tuple[bytes, list[bytes], int]:
    """Number of pieces, their places and sizes, and where the blocks of the map end."""
    count, *lines = data.read(0, _MAX_MAP).split(b"\n")
    places = lines[: 2 * _number(count)]
    end = len(count) + 1 + sum(len(place) + 1 for place in places)
    behind = -(-end // _BLOCK) * _BLOCK
    require(behind <= min(data.size, _MAX_MAP), Reason.DAMAGED)
    require(not data.read(end, behind - end).strip(b"\0"))
    return count, places, behind


def _pairs(places: list[bytes], count: int) -> list[tuple[int, int]]:
    require(len(places) == 2 * count)
    return [(_number(places[i]), _number(places[i + 1])) for i in range(0, len(places), 2)]


def _number(text: bytes) -> int:
    require(_NUMBER.fullmatch(text))
    return int(text)
