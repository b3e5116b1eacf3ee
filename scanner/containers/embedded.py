"""Containers inside other files: 7-Zip opens what begins in the first 8 MiB, behind whatever prefix.

Clamd finds few of them there (tried: 7-Zip 26.02, clamd 1.4.6), and none in types that it ignores, as Ogg
and MP3. A signature alone is chance in a long video: each hit is held against more of its format.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from scanner.containers.cpio import begins_cpio
from scanner.containers.inspection import SEARCHED, STEP, Part, require
from scanner.containers.rar import begins_rar
from scanner.containers.sevenzip import is_7z
from scanner.containers.signatures import LONGEST, signatures
from scanner.containers.tar import BLOCK, begins_tar, has_tar_header
from scanner.verdict import Reason

_HITS = 16  # to look at in one go: some take 60 µs
# A hostile file is full of signatures. Innocent ones have a few that lead nowhere, or thousands where an old
# Office file holds new ones; by chance hardly any has one of those that take long to look at.
_MOST_HITS = 8192
_HITS_WORTH = {b"Ra": 256, b"\x1f\x8b": 32}
_TAR_BLOCKS = 128 * BLOCK  # 5 µs each
# Bsdtar looks in text for what is encoded so, line by line (tried, libarchive 3.6.2).
# Only at the beginning of a line: from each `begin` within one its rest would be read again.
_UUENCODED = re.compile(
    rb"begin(?<![^\r\n]begin)(?: [0-7]{3} [^\r\n]++\r?\n[ -M`][ -`]*+\r?\n"
    rb"|-base64 [0-7]{3} [^\r\n]++\r?\n[A-Za-z0-9+/=]++\r?\n)"
)
_UUENCODED_WITHIN = 128 * 1024
# In old Office files and the main streams of Word, Excel and PowerPoint clamd finds ZIPs wherever they begin.
_OFFICE = (b"\xd0\xcf\x11\xe0", b"\xec\xa5", b"\x09\x08\x10\0", b"\x0f\0\xe8\x03")
_IN_ZIP64 = 0xFFFFFFFF
_RECORD = struct.Struct("<4s5H3L2H")
_METHODS = {*range(11), 12, 14, 16, 18, 19, 20, *range(93, 100)}
_MAX_VERSION = 63
_NAME = re.compile(rb"[^\0-\x1f]+")
_ZSTD_BLOCK_LIMIT = 128 * 1024
# What zlib says where 7-Zip, too, goes no further; its decoder is not as strict about the rest.
_NO_DEFLATE = ("header", "block type", "stored block", "too many length", "code lengths set", "too far back")
_MAX_WIM_HEADER = 64 * 1024
_GZIP_SAMPLE, _GZIP_CONTENT = 4096, 16


def contains_container(part: Part, begin: int = 0, end: int = SEARCHED) -> bool:
    """Whether a reader may take what begins in the part, from `begin` to `end`, for a container.

    Unsure (limit) as below.
    """
    return any(search_for_container(part, begin, end))


def search_for_container(part: Part, begin: int = 0, end: int = SEARCHED) -> Iterator[bool]:
    """The same, in bits of a few milliseconds at most: whether it is so in this one.

    Unsure (limit) where there are more signatures than can be looked at.
    """
    yield not begin and _has_uuencoded(part.read(0, _UUENCODED_WITHIN))
    hits = 0
    for place, step in part.slice(0, min(part.size, end + LONGEST)).steps(begin, overlap=LONGEST):
        for window in signatures(step, STEP):
            found = [match for match in window if place + match.start() < end]
            for at in range(0, len(found), _HITS):
                some = found[at : at + _HITS]
                hits += sum(_HITS_WORTH.get(match[0][:2], 1) for match in some)
                require(hits <= _MOST_HITS, Reason.LIMIT)
                yield any(_CONFIRM[match[0][:2]](part, place + match.start()) for match in some)
            yield False
        for at in range(-place % BLOCK, len(step) - BLOCK + 1, _TAR_BLOCKS):
            yield has_tar_header(step[at : at + _TAR_BLOCKS])


def _has_uuencoded(text: bytes) -> bool:
    """Whether it is text up to the first line of something encoded."""
    if match := _UUENCODED.search(text):
        before = text[: match.start()]
        return before.isascii() and b"\0" not in before
    return False


def _is_record(part: Part, offset: int) -> bool:
    """A ZIP record, but for those that clamd sees: they are new Office files in old ones."""
    header = part.read(offset, _RECORD.size)
    if len(header) < _RECORD.size:
        return False
    _, version, flags, method, _, _, _, packed, _, name_size, _ = _RECORD.unpack(header)
    name = part.read(offset + _RECORD.size, name_size)
    if version & 0xFF > _MAX_VERSION or method not in _METHODS or not _NAME.fullmatch(name):
        return False
    if flags & 9 or method not in (0, 8) or packed == _IN_ZIP64:
        return True
    return not part.zips_seen and not part.read(0, 4).startswith(_OFFICE)


def _is_xz(part: Part, offset: int) -> bool:
    flags = part.read(offset + 6, 6)
    return zlib.crc32(flags[:2]).to_bytes(4, "little") == flags[2:]


def _is_gzip(part: Part, offset: int) -> bool:
    """7-Zip wants known flags and a known level; then the first bytes must unpack, whatever follows."""
    sample = part.read(offset, _GZIP_SAMPLE)
    if len(sample) < 18 or sample[3] & 0xE0 or sample[8] not in (0, 2, 4):
        return False
    try:
        return bool(zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(sample, _GZIP_CONTENT))
    except zlib.error as error:
        return not any(problem in str(error) for problem in _NO_DEFLATE)


def _is_zstd(part: Part, offset: int) -> bool:
    """The frame's header (RFC 8878, 3.1.1) and that of its first block make sense.

    What needs a dictionary, 7-Zip does not open (tried, 26.02).
    """
    header = part.read(offset + 4, 18)
    if not header or header[0] & 0x08:
        return False
    single = header[0] & 0x20
    dictionary = 1 if single else 2
    size = dictionary + (0, 1, 2, 4)[header[0] & 3]
    block = size + (1 if single else 0, 2, 4, 8)[header[0] >> 6]
    said = int.from_bytes(header[block : block + 3], "little")
    sound = len(header) >= block + 3 and said >> 1 & 3 != 3 and said >> 3 <= _ZSTD_BLOCK_LIMIT
    return sound and not any(header[dictionary:size])


def _is_tar(part: Part, offset: int) -> bool:
    return begins_tar(part.read(offset - 257, BLOCK))


def _is_squashfs(part: Part, offset: int) -> bool:
    """Version 4 and a block size that is a power of two."""
    header = part.read(offset, 32)
    block, version = int.from_bytes(header[12:16], "little"), header[28:30]
    return version == b"\4\0" and block.bit_count() == 1


def _is_wim(part: Part, offset: int) -> bool:
    """The size of its header."""
    return 0x74 <= int.from_bytes(part.read(offset + 8, 4), "little") <= _MAX_WIM_HEADER


def _is_old_cpio(part: Part, offset: int) -> bool:
    """As GNU cpio or 7-Zip know one: a sound mode, a proper name (cpio.5)."""
    header = part.read(offset, 26)
    if len(header) < 26:
        return False
    numbers = struct.unpack("<13H" if header[0] == 0xC7 else ">13H", header)
    mode, name_size = numbers[3], numbers[10]
    if mode >> 12 not in (1, 2, 4, 6, 8, 10, 12) or not 1 < name_size <= 4096:
        return False
    name = part.read(offset + 26, name_size)
    return name.endswith(b"\0") and bool(_NAME.fullmatch(name[:-1]))


def _is_lha(part: Part, offset: int) -> bool:
    """Two bytes before: a header of level 0 or 1 with its checksum, or one of level 2."""
    header = part.read(offset - 2, 2 + 256)
    if offset < 2 or len(header) < 22:
        return False
    size, checksum, level = header[0], header[1], header[20]
    return level == 2 or (level < 2 and size >= 20 and sum(header[2 : 2 + size]) & 0xFF == checksum)


def _is_long_enough(_part: Part, _offset: int) -> bool:
    """These signatures are no chance."""
    return True


_CONFIRM: dict[bytes, Callable[[Part, int], bool]] = {
    b"PK": _is_record,
    b"7z": lambda part, offset: is_7z(part.read(offset, 32)),
    b"Ra": begins_rar,
    b"\xfd7": _is_xz,
    b"\x1f\x8b": _is_gzip,
    b"BZ": _is_long_enough,
    b"\x28\xb5": _is_zstd,
    b"us": _is_tar,
    b"-l": _is_lha,
    b"07": begins_cpio,
    b"xa": _is_long_enough,
    b"MS": lambda part, offset: part.read(offset, 4) == b"MSCF" or _is_wim(part, offset),
    b"hs": _is_squashfs,
    b"CD": _is_long_enough,
    b"BE": _is_long_enough,
    b"\xc7\x71": _is_old_cpio,
    b"\x71\xc7": _is_old_cpio,
}
