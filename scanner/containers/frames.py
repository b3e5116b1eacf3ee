"""Zstandard (RFC 8878), LZ4 (`lz4_Frame_format.md`) and compress: whole frames to the last byte.

Clamd knows none of these. What their blocks hold is not looked at: readers go by the same headers. Nobody
opens a frame that needs a dictionary without having it.
"""

from __future__ import annotations

from scanner.containers.inspection import Inspection, Part, require
from scanner.verdict import Reason

_ZSTD, _LZ4 = b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
_SKIPPABLE = b"\x2a\x4d\x18"
# As all readers have it if they are not told otherwise.
_MAX_WINDOW = 128 * 1024 * 1024
_ZSTD_BLOCK_LIMIT = 128 * 1024
_REPEATED, _RESERVED = 1, 3
_LZ4_SIZES = {4: 64 * 1024, 5: 256 * 1024, 6: 1024 * 1024, 7: 4 * 1024 * 1024}
# 16 bits and the marker that clears the table: all that `compress` writes.
_COMPRESS = b"\x1f\x9d\x90"


def check_zstd(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless frames fill the file; there may be others between, to be skipped."""
    offset, frames = 0, 0
    while offset < part.size:
        inspection.member()
        magic = part.read(offset, 4)
        if magic == _ZSTD:
            offset = _behind_zstd(part, offset + 4, inspection)
            frames += 1
        else:
            require(magic[1:] == _SKIPPABLE and magic[0] & 0xF0 == 0x50)
            offset += 8 + _number(part, offset + 4, 4)
    require(offset == part.size, Reason.DAMAGED)
    require(frames)
    inspection.must_be_opened()


def _behind_zstd(part: Part, offset: int, inspection: Inspection) -> int:
    offset, has_checksum = _behind_zstd_header(part, offset)
    last = 0
    while not last:
        inspection.check_time()
        header = _number(part, offset, 3)
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        require(kind != _RESERVED and size <= _ZSTD_BLOCK_LIMIT, Reason.DAMAGED)
        offset += 3 + (1 if kind == _REPEATED else size)
    return offset + 4 * has_checksum


def _behind_zstd_header(part: Part, offset: int) -> tuple[int, bool]:
    flags = _number(part, offset, 1)
    require(not flags & 0x08)
    single = bool(flags & 0x20)
    window = _number(part, offset + 1, 1)
    offset += 1 if single else 2
    dictionary = (0, 1, 2, 4)[flags & 3]
    require(not dictionary or not _number(part, offset, dictionary))
    offset += dictionary
    length = (1 if single else 0, 2, 4, 8)[flags >> 6]
    size = _number(part, offset, length) if single else (8 + (window & 7)) << (7 + (window >> 3))
    require(size <= _MAX_WINDOW, Reason.LIMIT)
    return offset + length, bool(flags & 0x04)


def check_lz4(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless frames fill the file."""
    offset = 0
    while offset < part.size:
        inspection.member()
        require(part.read(offset, 4) == _LZ4)
        offset = _behind_lz4(part, offset + 4, inspection)
    require(offset == part.size, Reason.DAMAGED)
    inspection.must_be_opened()


def _behind_lz4(part: Part, offset: int, inspection: Inspection) -> int:
    flags, sizes = _number(part, offset, 1), _number(part, offset + 1, 1)
    # Version 1, nothing reserved, no dictionary; only the block's largest size.
    require(flags & 0xC3 == 0x40 and not sizes & 0x8F and sizes >> 4 in _LZ4_SIZES)
    offset += 3 + 8 * bool(flags & 0x08)
    while header := _number(part, offset, 4):
        inspection.check_time()
        size = header & 0x7FFFFFFF
        require(size <= _LZ4_SIZES[sizes >> 4], Reason.DAMAGED)
        offset += 4 + size + 4 * bool(flags & 0x10)
    return offset + 4 + 4 * bool(flags & 0x04)


def check_compress(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless this is what `compress` writes; it has no end but that of the file."""
    require(part.read(0, 3) == _COMPRESS)
    inspection.must_be_opened()


def _number(part: Part, offset: int, size: int) -> int:
    content = part.read(offset, size)
    require(len(content) == size, Reason.DAMAGED)
    return int.from_bytes(content, "little")
