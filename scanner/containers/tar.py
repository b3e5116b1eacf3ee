"""tar as all readers agree on it: sound headers of known types, sizes that say one thing, a proper end.

ustar, old GNU, pax and v7, with nothing behind the end. Sparse files in pax headers are seen in two ways: as
they are in the archive by clamd and 7-Zip, with their holes by others; so both must be judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import compress, count

from scanner.containers.inspection import Inspection, Part, ambiguous, require
from scanner.containers.pax import check_holes, sparse_records
from scanner.verdict import Reason

BLOCK = 512
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
# POSIX, old GNU, and none (v7); clamd gives up where it changes on the way.
_MAGIC = slice(257, 265)
_MAGICS = (b"ustar\x0000", b"ustar  \0", bytes(8))
_FILES, _EMPTY, _TEXTS, _PAX, _SPARSE = b"\x0007", b"123456", b"LKxg", b"xg", b"S"
# As one reader or another has a checksum: in blanks of any kind, with `0o` before it and lines in it.
_CHECKSUM_DIGITS = re.compile(
    rb"[\0\s\x1c-\x1f]*\+?(?:0[oO]_?)?([0-7][0-7_]*)(?:[\0\s\x1c-\x1f].*)?", re.DOTALL
)
_IS_DIGIT, _IS_BINARY, _IS_ZERO = (
    bytes(byte in some for byte in range(256)) for some in (b"01234567_", b"\x80", b"\0")
)
_HIGH = bytes(range(128, 256))
_SEARCHED_BLOCKS = 16
_MAX_TEXT = 1024 * 1024


# Clamd goes by these first bytes, and not by the header's magic (`.ftm` signatures, 1.4.6).
_TAKEN_FOR_OTHERS = re.compile(
    rb"[\0-\x1f]|[A-Za-z-]+: |From |>From|#@~|%|\(This|\.RMF|0707|7z|ALZ|BM|BZh|[CFZ]WS|EGGA|ER|GIF|HWP|Hi\. "
    rb"|ID3|II|ITSF|MM|MSCF|MZ|OggS|PK|RIF|Rar!|SIP-|SQLite|SYMC|SZDD|X-|\[ali|begin |xar!|[{<]|`|\xef\xbb"
)


def begins_tar_later(part: Part) -> bool:
    """Whether a tar begins in one of the next blocks: GNU tar goes on to the first header that it finds."""
    return has_tar_header(part.read(BLOCK, _SEARCHED_BLOCKS * BLOCK))


def has_tar_header(blocks: bytes) -> bool:
    """Whether one of these whole blocks is a header: GNU tar complains, and goes on to the first one."""
    return any(is_tar_header(blocks[i * BLOCK : (i + 1) * BLOCK]) for i in _checksums(blocks))


def _checksums(blocks: bytes) -> Iterator[int]:
    """The blocks with what may be one: a sum of 500 bytes has three digits, or is binary.

    A byte for each block, and one operation for all of them.
    """
    places = range(_CHECKSUM.start, _CHECKSUM.stop)
    digits = [_where(_IS_DIGIT, blocks, place) for place in places]
    found = _where(_IS_BINARY, blocks, places[0]) & _where(_IS_ZERO, blocks, places[1])
    found &= _where(_IS_ZERO, blocks, places[2])
    for one, two, three in zip(digits, digits[1:], digits[2:], strict=False):
        found |= one & two & three
    if found:
        yield from compress(count(), found.to_bytes(len(blocks) // BLOCK + 1, "little"))


def _where(wanted: bytes, blocks: bytes, place: int) -> int:
    return int.from_bytes(blocks[place::BLOCK].translate(wanted), "little")


def begins_tar(block: bytes) -> bool:
    """Whether a reader may take these 512 bytes for a tar header: 7-Zip minds no checksum under a magic."""
    if is_tar_header(block):
        return True
    fields = (block[100:108], block[124:136], block[_CHECKSUM])
    return block[257:262] == b"ustar" and any(_octal(field) is not None for field in fields)


def is_tar_header(block: bytes) -> bool:
    """Whether some reader takes these 512 bytes for a header, by their checksum, of signed bytes or not."""
    if len(block) < BLOCK or (said := _checksum(block[_CHECKSUM])) is None:
        return False
    counted = block[: _CHECKSUM.start] + block[_CHECKSUM.stop :]
    high = len(counted) - len(counted.translate(None, _HIGH))
    return said + 256 * high in (_sum(block), _sum(block) + 256 * high)


def _is_sound(block: bytes) -> bool:
    """Whether all do."""
    return len(block) == BLOCK and block[0] != 0 and _octal(block[_CHECKSUM]) == _sum(block)


def _sum(block: bytes) -> int:
    """With blanks in its own place."""
    return sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")


def _checksum(field: bytes) -> int | None:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    match = _CHECKSUM_DIGITS.fullmatch(field)
    return int(match[1].replace(b"_", b""), 8) if match else None


def check_tar(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless all readers see the same, or what differs is judged both ways."""
    magic, name = part.read(0, BLOCK)[_MAGIC], part.read(0, 100).rstrip(b"\0")
    if _TAKEN_FOR_OTHERS.match(name) or not _is_utf8(name):
        inspection.must_be_opened()
    offset, in_two_ways, holes = 0, False, list[tuple[bytes, bytes]]()
    while (block := part.read(offset, BLOCK)).strip(b"\0"):
        inspection.member()
        require(_is_sound(block), Reason.DAMAGED)
        require(block[_MAGIC] in _MAGICS)
        if block[_MAGIC] != magic:
            inspection.must_be_opened()
        size = _size(block, inspection)
        kind = block[156:157]
        if kind == _SPARSE:
            offset = _behind_map(part, offset, block, size, inspection)
        data = part.slice(offset + BLOCK, size)
        if kind in _TEXTS:
            more = _check_text(kind, data)
            require(not (holes and more))  # of two headers Python takes the first one's map, others both
            holes += more
        else:
            _check_entry(kind, block, data, inspection)
            if holes:
                in_two_ways = True
                check_holes(holes, data)
                holes = []
        offset += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
    require(part.size - offset >= 2 * BLOCK, Reason.DAMAGED)
    require(part.size % BLOCK == 0 and part.zeros(offset))
    if in_two_ways:
        require(not inspection.opened)  # else nobody has seen them as they are in the archive
        inspection.must_be_opened()


def _size(block: bytes, inspection: Inspection) -> int:
    """In octal digits, or in binary, which clamd does not read."""
    field = block[124:136]
    if field[:1] == b"\x80":
        inspection.must_be_opened()
        return int.from_bytes(field[1:], "big")
    size = _octal(field)
    if size is None:
        ambiguous()
    return size


def _check_entry(kind: bytes, block: bytes, data: Part, inspection: Inspection) -> None:
    if kind in _FILES or kind == _SPARSE:
        if data.size and block[:100].rstrip(b"\0").endswith(b"/"):
            inspection.opened_by()  # nobody gives the data of what is a directory by its name
        inspection.look_into(data)
    else:
        require(kind in _EMPTY and not data.size)


def _check_text(kind: bytes, data: Part) -> list[tuple[bytes, bytes]]:
    """A name, or a pax header: what it says of the holes in the next file."""
    require(data.size <= _MAX_TEXT)
    if kind not in _PAX:
        return []
    holes = sparse_records(data.read(0, _MAX_TEXT))
    require(not holes or kind == b"x")
    return holes


def _behind_map(part: Part, offset: int, block: bytes, size: int, inspection: Inspection) -> int:
    """The offset of the last block of an old GNU header with the map of a sparse file, which is sound."""
    inspection.must_be_opened()
    entries, more = block[386:482], block[482]
    data, end = 0, 0
    while True:
        for i in range(0, len(entries), 24):
            begin, length = _octal(entries[i : i + 12]), _octal(entries[i + 12 : i + 24])
            if begin is None or length is None:
                require(not entries[i:].strip(b"\0") and not more)
                break
            require(begin >= end)
            data, end = data + length, begin + length
        if not more:
            break
        inspection.check_time()
        offset += BLOCK
        extension = part.read(offset, BLOCK)
        require(len(extension) == BLOCK, Reason.DAMAGED)
        entries, more = extension[:504], extension[504]
    require(data == size and end <= (_octal(block[483:495]) or 0))
    return offset


def _octal(field: bytes) -> int | None:
    match = _OCTAL.fullmatch(field)
    return int(match[1], 8) if match else None


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
