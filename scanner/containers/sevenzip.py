"""7z: whole, nothing left over; plain where it is packed by methods that clamd knows.

The header is itself often packed; it is decoded with `lzma`, and so are the members, to look into them.
Structure per 7zFormat.txt of the LZMA SDK.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from scanner.containers.inspection import MAX_HELD, STEP, Inspection, Part, Unsure, require
from scanner.containers.lzma2 import check_lzma, check_lzma2
from scanner.containers.sevenzip_header import (
    FILES,
    HEADER,
    PACKED_HEADER,
    STREAMS,
    Coder,
    Folder,
    Reader,
    Streams,
    read_files,
    read_streams,
)
from scanner.verdict import Reason

SIGNATURE = b"7z\xbc\xaf\x27\x1c"
_START = struct.Struct("<6s2sLQQL")
_MAX_HEADER = 4 * 1024 * 1024
_MAX_DICTIONARY = 80 * 1024 * 1024

_COPY, _LZMA1, _LZMA2, _BCJ = b"\0", b"\3\1\1", b"\x21", b"\3\3\1\3"
# At the proper end of a stream the range coder stands at zero, and reads zeros as zeros for ever: on that the
# decoder of the SDK, which clamd has, insists; liblzma does not.
_BEYOND = bytes(64)
# What libarchive unpacks besides, alone or before one of the others: PPMd, bzip2, deflate; delta, and machine
# code of x86 (BCJ, BCJ2), PowerPC, Itanium, ARM, Thumb and SPARC.
_MACHINES = (b"\3\3\2\5", b"\3\3\4\1", b"\3\3\5\1", b"\3\3\7\1", b"\3\3\x08\5")
_OTHERS = (b"\3\4\1", b"\4\2\2", b"\4\1\x08", b"\3", b"\3\3\1\x1b")
_METHODS = (_COPY, _LZMA1, _LZMA2, _BCJ, *_OTHERS, *_MACHINES)


def is_7z(start: bytes) -> bool:
    """Whether a start header with a right checksum is here."""
    if len(start) < _START.size or not start.startswith(SIGNATURE):
        return False
    return zlib.crc32(start[12 : _START.size]) == int.from_bytes(start[8:12], "little")


def check_7z(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless all readers see the same."""
    start = part.read(0, _START.size)
    require(is_7z(start), Reason.DAMAGED)
    _, version, _, offset, size, crc = _START.unpack(start)
    require(version[0] == 0)
    if not size:
        require(part.size == _START.size)
        return
    end = _START.size + offset
    require(end + size == part.size and size <= _MAX_HEADER)
    header = part.read(end, size)
    require(zlib.crc32(header) == crc, Reason.DAMAGED)
    _check_header(part, header, end, inspection)


def _check_header(part: Part, header: bytes, end: int, inspection: Inspection) -> None:
    """Follow packed headers to the plain one, whose streams and those of the headers tile the file."""
    packed_headers = 0
    while header[:1] == bytes([PACKED_HEADER]):
        packed_headers += 1
        require(packed_headers == 1)
        streams = read_streams(Reader(header[1:]))
        require(len(streams.folders) == 1)
        (packed,) = _packed_parts(part, streams, end)
        if streams.folders[0].encrypted:
            inspection.is_encrypted(Reason.ENCRYPTED_ARCHIVE)
            return
        require(_is_plain(streams.folders[0]))
        end = _START.size + streams.position
        require(streams.folders[0].size <= _MAX_HEADER, Reason.LIMIT)
        header = _unpack(streams.folders[0], packed, inspection)
    reader = Reader(header)
    reader.expect(HEADER)
    kind = reader.byte()
    streams = Streams(0, [], [])
    if kind == STREAMS:
        streams = read_streams(reader)
        kind = reader.byte()
    require(kind == FILES)
    if read_files(reader, sum(len(folder.streams) for folder in streams.folders)):
        inspection.opened_by()
    _check_members(part, streams, end, inspection)


def _check_members(part: Part, streams: Streams, end: int, inspection: Inspection) -> None:
    require(streams.position == 0)
    parts = _packed_parts(part, streams, end)
    readable = _readable(streams, inspection)
    require(all(coder.method in _METHODS for folder in readable for coder in folder.coders))
    if not all(_is_plain(folder) for folder in readable) or 0 < len(readable) < len(streams.folders):
        inspection.must_be_opened()
    for folder, packed in zip(readable, parts, strict=False):
        if inspection.opened:
            break
        require(folder.size <= MAX_HELD, Reason.LIMIT)
        content = _unpack(folder, packed, inspection)
        inspection.look_into_held(content, folder.streams)
        _check_crcs(folder, content)


def _readable(streams: Streams, inspection: Inspection) -> list[Folder]:
    """Those without a password, which 7-Zip puts first: libarchive goes no further than the other ones."""
    encrypted = [folder.encrypted for folder in streams.folders]
    if any(encrypted):
        inspection.is_encrypted(Reason.ENCRYPTED_ARCHIVE)
        require(encrypted == sorted(encrypted))
    return [folder for folder in streams.folders if not folder.encrypted]


def _check_crcs(folder: Folder, content: bytes) -> None:
    whole, offset = Part.of(content), 0
    for size, crc in zip(folder.streams, folder.crcs or [None] * len(folder.streams), strict=True):
        require(crc in (None, whole.slice(offset, size).crc32()), Reason.DAMAGED)
        offset += size


def _packed_parts(part: Part, streams: Streams, end: int) -> list[Part]:
    """The packed streams, side by side up to `end`."""
    require(len(streams.packed) == sum(folder.packed for folder in streams.folders))
    position, parts = _START.size + streams.position, []
    for size in streams.packed:
        parts.append(part.slice(position, size))
        position += size
    require(position == end)
    return parts


def _unpack(folder: Folder, packed: Part, inspection: Inspection) -> bytes:
    """What a folder unpacks to; Unsure unless size and checksum are right."""
    content = bytearray()
    for piece in _pieces(folder, packed):
        inspection.spend(len(piece))
        content += piece
        require(len(content) <= folder.size, Reason.DAMAGED)
    require(len(content) == folder.size and folder.crc in (None, zlib.crc32(content)), Reason.DAMAGED)
    return bytes(content)


def _is_plain(folder: Folder) -> bool:
    """BCJ only on LZMA2: on LZMA, `lzma` keeps back the last bytes."""
    methods = [coder.method for coder in folder.coders]
    return folder.is_chain and methods in ([_COPY], [_LZMA1], [_LZMA2], [_LZMA2, _BCJ])


def _pieces(folder: Folder, packed: Part) -> Iterator[bytes]:
    if [coder.method for coder in folder.coders] == [_COPY]:
        yield from (piece for _, piece in packed.steps())
        return
    if folder.coders[0].method == _LZMA1:
        check_lzma(packed)
    elif folder.coders[0].method == _LZMA2:
        require(check_lzma2(packed) == packed.size)
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(folder.coders))
    offset, left = 0, folder.size
    while left and not decoder.eof:
        fresh = packed.read(offset, STEP) if decoder.needs_input else b""
        offset += len(fresh)
        require(fresh or not decoder.needs_input, Reason.DAMAGED)
        try:
            piece = decoder.decompress(fresh, min(STEP, left))
        except lzma.LZMAError:
            raise Unsure(Reason.DAMAGED) from None
        left -= len(piece)
        yield piece
    if folder.coders[0].method == _LZMA1:
        require(offset == packed.size and _stands_at_zero(decoder))


def _stands_at_zero(decoder: lzma.LZMADecompressor) -> bool:
    if decoder.eof:
        return not decoder.unused_data
    try:
        return not any(decoder.decompress(_BEYOND, len(_BEYOND) // 2))
    except (lzma.LZMAError, EOFError):
        return False


def _filters(coders: list[Coder]) -> list[dict[str, Any]]:
    """The decoder's settings."""
    properties = coders[0].properties
    if coders[0].method == _LZMA1:
        return [_lzma1_filter(properties)]
    require(len(properties) == 1 and properties[0] < 40, Reason.DAMAGED)
    size = _dictionary((2 | properties[0] & 1) << (properties[0] // 2 + 11))
    bcj = [{"id": lzma.FILTER_X86}] if len(coders) > 1 else []
    return [*bcj, {"id": lzma.FILTER_LZMA2, "dict_size": size}]


def _lzma1_filter(properties: bytes) -> dict[str, Any]:
    require(len(properties) == 5 and properties[0] < 9 * 5 * 5, Reason.DAMAGED)
    lc, lp, pb = properties[0] % 9, properties[0] // 9 % 5, properties[0] // 45
    # More is valid, but liblzma does not decode it.
    require(lc + lp <= 4)
    size = _dictionary(int.from_bytes(properties[1:], "little"))
    return {"id": lzma.FILTER_LZMA1, "dict_size": size, "lc": lc, "lp": lp, "pb": pb}


def _dictionary(size: int) -> int:
    require(size <= _MAX_DICTIONARY, Reason.LIMIT)
    return max(size, 4096)
