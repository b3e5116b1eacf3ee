"""One compressed file: gzip, bzip2 and xz, well-formed to the last byte.

Clamd reads all members of a gzip file, but only the first stream of a bzip2 file (tried, 1.4.6), so only
what is one stream there is plain.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator

from scanner.containers.inspection import STEP, Inspection, Part, Unsure, require
from scanner.containers.lzma2 import check_lzma2
from scanner.verdict import Reason

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_XZ_HEADER = 12
# Flags, and the size of the checksum behind each block: none, CRC-32, CRC-64, SHA-256.
_XZ_CHECKS = {b"\0\0": 0, b"\0\1": 4, b"\0\4": 8, b"\0\n": 32}
# The decoder of `xz -9` needs 65 MiB.
_XZ_MEMORY = 80 * 1024 * 1024


class Inflater:
    """A deflate, zlib or gzip stream inside a part; `end` is the offset behind it, once `pieces` is done."""

    def __init__(self, part: Part, offset: int, window: int) -> None:
        self._part = part
        self._window = window
        self.end = offset

    def pieces(self) -> Iterator[bytes]:
        """What the stream unpacks to; Unsure (damaged) unless it is whole."""
        decoder = zlib.decompressobj(self._window)
        rest = b""
        while not decoder.eof:
            if not rest:
                rest = self._part.read(self.end, STEP)
                self.end += len(rest)
                require(rest, Reason.DAMAGED)
            try:
                piece = decoder.decompress(rest, STEP)
            except zlib.error:
                raise Unsure(Reason.DAMAGED) from None
            rest = decoder.unconsumed_tail
            yield piece
        self.end -= len(decoder.unused_data)


def check_gzip(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless clamd sees what this unpacks to."""
    inspection.unpack(_gzip_members(part, inspection), part.size)


def _gzip_members(part: Part, inspection: Inspection) -> Iterator[bytes]:
    offset = 0
    while offset < part.size:
        inspection.member()
        require(part.read(offset, 2) == _GZIP_MAGIC)
        inflater = Inflater(part, offset, _GZIP_WINDOW)
        yield from inflater.pieces()
        offset = inflater.end


def check_bzip2(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless clamd sees what this unpacks to."""
    inspection.unpack(decoded(part, bz2.BZ2Decompressor()), part.size)


def check_xz(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless clamd sees what this unpacks to."""
    _check_xz_blocks(part)
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    inspection.unpack(decoded(part, decoder), part.size)


def _check_xz_blocks(part: Part) -> None:
    """Each block: header, chunks, padding to 4 bytes, checksum; the index follows (`xz-file-format.txt`)."""
    flags = part.read(6, 2)
    require(flags in _XZ_CHECKS)
    offset = _XZ_HEADER
    while size := part.read(offset, 1).strip(b"\0"):
        end = check_lzma2(part, offset + (size[0] + 1) * 4)
        offset = -(-end // 4) * 4 + _XZ_CHECKS[flags]


def decoded(part: Part, decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> Iterator[bytes]:
    """What one bzip2 or LZMA stream unpacks to; it fills the part to the last byte."""
    offset = 0
    while not decoder.eof:
        fresh = part.read(offset, STEP) if decoder.needs_input else b""
        offset += len(fresh)
        require(fresh or not decoder.needs_input, Reason.DAMAGED)
        try:
            yield decoder.decompress(fresh, STEP)
        except (OSError, lzma.LZMAError, EOFError):
            raise Unsure(Reason.DAMAGED) from None
    require(offset == part.size and not decoder.unused_data)
