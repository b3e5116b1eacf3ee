"""One compressed file: gzip, bzip2, xz, lzip and bare LZMA, well-formed to the last byte.

Clamd reads all members of a gzip file, but only the first stream of a bzip2 file (tried, 1.4.6), so only
what is one stream there is plain; and it knows neither lzip nor LZMA.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator
from typing import Any

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
_LZIP_HEADER = 6
_LZIP_TRAILER = struct.Struct("<LQQ")
_LZIP_DICTIONARIES = range(12, 27)  # 4 KiB to 64 MiB, of at most 512 MiB; a power of two less some sixteenths

_Decoder = bz2.BZ2Decompressor | lzma.LZMADecompressor


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
            try:
                piece = decoder.decompress(rest, STEP)
            except zlib.error:
                raise Unsure(Reason.DAMAGED) from None
            # Without any more input there may still be output.
            require(rest or piece or decoder.eof, Reason.DAMAGED)
            rest = decoder.unconsumed_tail
            yield piece
        self.end -= len(decoder.unused_data)


class _Stream:
    """A bzip2 or LZMA stream inside a part; `end` is the offset behind it, once `pieces` is done."""

    def __init__(self, part: Part, offset: int, decoder: _Decoder) -> None:
        self._part = part
        self._decoder = decoder
        self.end = offset

    def pieces(self) -> Iterator[bytes]:
        """What the stream unpacks to; Unsure (damaged) unless it is whole."""
        decoder = self._decoder
        while not decoder.eof:
            fresh = self._part.read(self.end, STEP) if decoder.needs_input else b""
            self.end += len(fresh)
            require(fresh or not decoder.needs_input, Reason.DAMAGED)
            try:
                yield decoder.decompress(fresh, STEP)
            except (OSError, lzma.LZMAError, EOFError):
                raise Unsure(Reason.DAMAGED) from None
        self.end -= len(decoder.unused_data)


def check_gzip(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless all readers see the same."""
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
    """Raises Unsure unless all readers see the same."""
    inspection.unpack(_bzip2_streams(part, inspection), part.size)


def _bzip2_streams(part: Part, inspection: Inspection) -> Iterator[bytes]:
    offset = 0
    while offset < part.size:
        inspection.member()
        if offset:
            require(part.read(offset, 3) == b"BZh")
            inspection.must_be_opened()
        stream = _Stream(part, offset, bz2.BZ2Decompressor())
        yield from stream.pieces()
        offset = stream.end


def check_xz(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless all readers see the same."""
    inspection.unpack(_xz_streams(part, inspection), part.size)


def _xz_streams(part: Part, inspection: Inspection) -> Iterator[bytes]:
    offset = 0
    while offset < part.size:
        inspection.member()
        if offset:
            inspection.must_be_opened()
        _check_xz_blocks(part, offset)
        stream = _Stream(part, offset, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
        yield from stream.pieces()
        offset = stream.end


def _check_xz_blocks(part: Part, offset: int) -> None:
    """Each block: header, chunks, padding to 4 bytes, checksum; the index follows (`xz-file-format.txt`)."""
    flags = part.read(offset + 6, 2)
    require(flags in _XZ_CHECKS)
    position = _XZ_HEADER
    while size := part.read(offset + position, 1).strip(b"\0"):
        end = check_lzma2(part, offset + position + (size[0] + 1) * 4) - offset
        position = -(-end // 4) * 4 + _XZ_CHECKS[flags]


def check_lzma_alone(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless this is one whole stream."""
    stream = _Stream(part, 0, lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_XZ_MEMORY))
    for piece in stream.pieces():
        inspection.spend(len(piece))
    require(stream.end == part.size)
    inspection.must_be_opened()


def check_lzip(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless whole members fill the file, each with its size in its trailer."""
    offset = 0
    while offset < part.size:
        inspection.member()
        header = part.read(offset, _LZIP_HEADER)
        require(header[:5] == b"LZIP\1" and len(header) == _LZIP_HEADER)
        stream = _Stream(part, offset + _LZIP_HEADER, _lzip_decoder(header[5]))
        size, crc = 0, 0
        for piece in stream.pieces():
            inspection.spend(len(piece))
            size, crc = size + len(piece), zlib.crc32(piece, crc)
        end = stream.end + _LZIP_TRAILER.size
        trailer = _LZIP_TRAILER.pack(crc, size, end - offset)
        require(part.read(stream.end, len(trailer)) == trailer, Reason.DAMAGED)
        offset = end
    inspection.must_be_opened()


def _lzip_decoder(dictionary: int) -> lzma.LZMADecompressor:
    require(dictionary & 31 in _LZIP_DICTIONARIES, Reason.LIMIT)
    size = 1 << (dictionary & 31)
    lzma1: dict[str, Any] = {"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[lzma1 | {"dict_size": size}])
