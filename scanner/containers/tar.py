"""tar as all readers agree on it: sound headers of known types, sizes that say one thing, a proper end.

ustar, old GNU, pax and v7. Not plain: sparse files, sizes beyond the octal field, anything behind the end.
"""

from __future__ import annotations

import re

from scanner.containers.inspection import Inspection, Part, ambiguous, require
from scanner.verdict import Reason

BLOCK = 512
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
# POSIX, old GNU, and none (v7); clamd gives up where it changes on the way.
_MAGIC = slice(257, 265)
_MAGICS = (b"ustar\x0000", b"ustar  \0", bytes(8))
_FILES, _EMPTY, _TEXTS = b"\x0007", b"123456", b"LKxg"
# These change what a reader takes from the headers or the data that follow.
_UNSURE_KEYS = re.compile(rb"(?:^|\n)\d+ (?:size|hdrcharset|GNU\.sparse\.[^=]*|SCHILY\.realsize)=")
_SEARCHED_BLOCKS = 16
_MAX_TEXT = 1024 * 1024


# Clamd goes by these first bytes, and not by the header's magic (`.ftm` signatures, 1.4.6).
_TAKEN_FOR_OTHERS = re.compile(
    rb"[\0-\x1f]|[A-Za-z-]+: |From |>From|#@~|%|\(This|\.RMF|0707|7z|ALZ|BM|BZh|[CFZ]WS|EGGA|ER|GIF|HWP|Hi\. "
    rb"|ID3|II|ITSF|MM|MSCF|MZ|OggS|PK|RIF|Rar!|SIP-|SQLite|SYMC|SZDD|X-|\[ali|begin |xar!|[{<]|`|\xef\xbb"
)


def begins_tar_later(part: Part) -> bool:
    """Whether a tar begins in one of the next blocks: GNU tar goes on to the first header that it finds."""
    blocks = part.read(BLOCK, _SEARCHED_BLOCKS * BLOCK)
    return any(_is_header(blocks[i : i + BLOCK]) for i in range(0, len(blocks) - BLOCK + 1, BLOCK))


def begins_tar(block: bytes) -> bool:
    """Whether a reader may take these 512 bytes for a tar header: 7-Zip minds no checksum under a magic."""
    if _is_header(block):
        return True
    fields = (block[100:108], block[124:136], block[_CHECKSUM])
    return block[257:262] == b"ustar" and any(_octal(field) is not None for field in fields)


def _is_header(block: bytes) -> bool:
    if len(block) < BLOCK or block[0] == 0:
        return False
    said = _octal(block[_CHECKSUM])
    return said is not None and said == sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" ")


def check_tar(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless every reader sees in this tar what clamd sees."""
    magic = part.read(0, BLOCK)[_MAGIC]
    name = part.read(0, 100).rstrip(b"\0")
    require(magic in _MAGICS and not _TAKEN_FOR_OTHERS.match(name) and _is_utf8(name))
    offset = 0
    while (block := part.read(offset, BLOCK)).strip(b"\0"):
        inspection.member()
        require(_is_header(block), Reason.DAMAGED)
        require(block[_MAGIC] == magic)
        size = _octal(block[124:136])
        if size is None:
            ambiguous()
        _check_entry(block[156:157], part.slice(offset + BLOCK, size), inspection)
        offset += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
    require(part.size - offset >= 2 * BLOCK, Reason.DAMAGED)
    require(part.size % BLOCK == 0 and part.zeros(offset))


def _check_entry(kind: bytes, data: Part, inspection: Inspection) -> None:
    if kind in _FILES:
        inspection.look_into(data)
    elif kind in _EMPTY:
        require(not data.size)
    else:
        require(kind in _TEXTS and data.size <= _MAX_TEXT)
        require(not _UNSURE_KEYS.search(data.read(0, _MAX_TEXT)))


def _octal(field: bytes) -> int | None:
    match = _OCTAL.fullmatch(field)
    return int(match[1], 8) if match else None


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
