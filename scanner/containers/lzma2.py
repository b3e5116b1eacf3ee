"""LZMA as the SDK's decoder, which clamd has, reads it: stricter than liblzma, which others have.

The range coder's first byte is always zero; liblzma does not look at it, the SDK's decoder stops there.
LZMA2 is a row of chunks, each with a header (`xz-file-format.txt`, 5.3.1, and `lzma2_decoder.c`).
"""

from __future__ import annotations

from scanner.containers.inspection import Part, require
from scanner.verdict import Reason

_STORED, _PACKED, _WITH_PROPERTIES = (1, 2), 0x80, 0xC0


def check_lzma(packed: Part) -> None:
    """Raises Unsure where only liblzma would go on."""
    require(packed.read(0, 1) == b"\0")


def check_lzma2(packed: Part, offset: int = 0) -> int:
    """The same for a row of chunks from `offset` on; gives the offset behind its end marker."""
    while control := _byte(packed, offset):
        if control >= _PACKED:
            first = offset + 5 + (control >= _WITH_PROPERTIES)
            require(packed.read(first, 1) == b"\0")
            offset = first + int.from_bytes(packed.read(offset + 3, 2), "big") + 1
        else:
            require(control in _STORED)
            offset += 3 + int.from_bytes(packed.read(offset + 1, 2), "big") + 1
    return offset + 1


def _byte(packed: Part, offset: int) -> int:
    byte = packed.read(offset, 1)
    require(byte, Reason.DAMAGED)
    return byte[0]
