"""RAR, which Debian's clamd does not open: all that matters is whether it is encrypted.

Headers per the technote of RAR 5 and the older `technote.txt`.
"""

from __future__ import annotations

from scanner.containers.inspection import Inspection, Part, Unsure
from scanner.verdict import Reason

SIGNATURE = b"Rar!\x1a\x07"
_VERSION_4, _VERSION_5 = SIGNATURE + b"\0", SIGNATURE + b"\1\0"
_MAX_HEADERS = 100


def check_rar(part: Part, _inspection: Inspection) -> None:
    """Raises Unsure, always."""
    if part.read(0, len(_VERSION_5)) == _VERSION_5:
        encrypted = _is_encrypted_5(part)
    else:
        encrypted = _is_encrypted_4(part)
    raise Unsure(Reason.ENCRYPTED_ARCHIVE if encrypted else Reason.AMBIGUOUS)


def _is_encrypted_4(part: Part) -> bool:
    """Headers: CRC (2 bytes), type, flags (2), size (2), size of the data behind (4) if flag 0x8000."""
    position = len(_VERSION_4)
    for _ in range(_MAX_HEADERS):
        header = part.read(position, 11)
        if len(header) < 7:
            break
        kind, flags = header[2], int.from_bytes(header[3:5], "little")
        if (kind == 0x73 and flags & 0x80) or (kind == 0x74 and flags & 0x04):
            return True
        data = int.from_bytes(header[7:11], "little") if flags & 0x8000 else 0
        position += max(7, int.from_bytes(header[5:7], "little")) + data
    return False


def _is_encrypted_5(part: Part) -> bool:
    """Headers: CRC (4 bytes), then numbers of 7 bits a byte: size, type, flags, extra size, data size."""
    position = len(_VERSION_5)
    for _ in range(_MAX_HEADERS):
        size, behind = _number(part, position + 4)
        kind, at = _number(part, behind)
        flags, at = _number(part, at)
        extra, at = _number(part, at) if flags & 1 else (0, at)
        data, _ = _number(part, at) if flags & 2 else (0, at)
        if kind == 4 or (kind == 2 and extra and _has_encryption(part, behind + size - extra, extra)):
            return True
        if not size:
            break
        position = behind + size + data
    return False


def _has_encryption(part: Part, position: int, size: int) -> bool:
    """Whether one of a file header's extra records (size, type, data) is the first type: encryption."""
    end = min(position + size, part.size)
    for _ in range(_MAX_HEADERS):
        if position >= end:
            break
        length, behind = _number(part, position)
        kind, _ = _number(part, behind)
        if kind == 1:
            return True
        position = behind + max(1, length)
    return False


def _number(part: Part, position: int) -> tuple[int, int]:
    """A number and the offset behind it; 0 where the part ends."""
    number = 0
    for index, byte in enumerate(part.read(position, 10)):
        number |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return number, position + index + 1
    return 0, position + 1
