"""7z as clamd opens it: whole, nothing left over, and packed by methods that clamd knows.

The header is itself often packed; it is decoded with `lzma`, and so are the members, to look into them.
Structure per 7zFormat.txt of the LZMA SDK.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from scanner.containers.inspection import MAX_HELD, STEP, Inspection, Part, Unsure, require
from scanner.containers.lzma2 import check_lzma, check_lzma2
from scanner.verdict import Reason

SIGNATURE = b"7z\xbc\xaf\x27\x1c"
_START = struct.Struct("<6s2sLQQL")
_MAX_HEADER = 4 * 1024 * 1024
_MAX_DICTIONARY = 80 * 1024 * 1024

_END, _HEADER, _STREAMS, _FILES, _PACK, _FOLDERS, _SUBSTREAMS = 0, 1, 4, 5, 6, 7, 8
_SIZES, _CRCS, _FOLDER, _UNPACK_SIZES, _COUNTS, _EMPTY_STREAM, _PACKED_HEADER = 9, 10, 11, 12, 13, 14, 23
# Of files: names; times and attributes with the bytes that each has; which ones are empty, and padding.
# Not: items that delete others.
_NAMES, _VALUES, _IGNORED = 17, {18: 8, 19: 8, 20: 8, 21: 4}, (15, 25)

_COPY, _LZMA1, _LZMA2, _BCJ = b"\0", b"\3\1\1", b"\x21", b"\3\3\1\3"
# At the proper end of a stream the range coder stands at zero, and reads zeros as zeros for ever: on that the
# decoder of the SDK, which clamd has, insists; liblzma does not.
_BEYOND = bytes(64)
_AES = b"\6\xf1\7\1"


@dataclass(frozen=True, slots=True)
class _Coder:
    method: bytes
    properties: bytes


@dataclass(slots=True)
class _Folder:
    coders: list[_Coder]
    size: int = 0
    crc: int | None = None
    crcs: list[int | None] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Streams:
    position: int
    packed: list[int]
    folders: list[_Folder]


class _Reader:
    """Takes the header apart; Unsure (damaged) where it is too short."""

    def __init__(self, header: bytes) -> None:
        self._header = header
        self._position = 0

    def take(self, size: int) -> bytes:
        taken = self._header[self._position : self._position + size]
        require(len(taken) == size, Reason.DAMAGED)
        self._position += size
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        """As many bytes follow as the first one has leading ones; its other bits are the highest."""
        first = self.byte()
        following = 8 - (first ^ 0xFF).bit_length()
        low = int.from_bytes(self.take(following), "little")
        return low + ((first & (0x7F >> following)) << (8 * following))

    def count(self) -> int:
        """A number of things that each need a byte at least."""
        number = self.number()
        require(number <= len(self._header), Reason.DAMAGED)
        return number

    def at_end(self) -> bool:
        return self._position == len(self._header)

    def expect(self, kind: int) -> None:
        require(self.byte() == kind)

    def defined(self, count: int) -> list[bool]:
        """Which of `count` things have a value."""
        if self.byte():
            return [True] * count
        taken = self.take((count + 7) // 8)
        return [bool(taken[i // 8] & 0x80 >> i % 8) for i in range(count)]

    def crcs(self, count: int) -> list[int | None]:
        return [struct.unpack("<L", self.take(4))[0] if known else None for known in self.defined(count)]


def is_7z(start: bytes) -> bool:
    """Whether a start header with a right checksum is here."""
    if len(start) < _START.size or not start.startswith(SIGNATURE):
        return False
    return zlib.crc32(start[12 : _START.size]) == int.from_bytes(start[8:12], "little")


def check_7z(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless every reader sees in this 7z what clamd sees."""
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
    while header[:1] == bytes([_PACKED_HEADER]):
        packed_headers += 1
        require(packed_headers == 1)
        streams = _read_streams(_Reader(header[1:]))
        require(len(streams.folders) == 1)
        (packed,) = _packed_parts(part, streams, end)
        end = _START.size + streams.position
        require(streams.folders[0].size <= _MAX_HEADER, Reason.LIMIT)
        header = _unpack(streams.folders[0], packed, inspection)
    reader = _Reader(header)
    reader.expect(_HEADER)
    kind = reader.byte()
    streams = _Streams(0, [], [])
    if kind == _STREAMS:
        streams = _read_streams(reader)
        kind = reader.byte()
    require(kind == _FILES)
    _read_files(reader, sum(len(folder.streams) for folder in streams.folders))
    _check_members(part, streams, end, inspection)


def _check_members(part: Part, streams: _Streams, end: int, inspection: Inspection) -> None:
    require(streams.position == 0)
    for folder, packed in zip(streams.folders, _packed_parts(part, streams, end), strict=True):
        require(folder.size <= MAX_HELD, Reason.LIMIT)
        content = _unpack(folder, packed, inspection)
        inspection.look_into_held(content, folder.streams)
        _check_crcs(folder, content)


def _check_crcs(folder: _Folder, content: bytes) -> None:
    whole, offset = Part.of(content), 0
    for size, crc in zip(folder.streams, folder.crcs or [None] * len(folder.streams), strict=True):
        require(crc in (None, whole.slice(offset, size).crc32()), Reason.DAMAGED)
        offset += size


def _packed_parts(part: Part, streams: _Streams, end: int) -> list[Part]:
    """One packed stream for each folder, side by side up to `end`."""
    require(len(streams.packed) == len(streams.folders))
    position, parts = _START.size + streams.position, []
    for size in streams.packed:
        parts.append(part.slice(position, size))
        position += size
    require(position == end)
    return parts


def _unpack(folder: _Folder, packed: Part, inspection: Inspection) -> bytes:
    """What a folder unpacks to; Unsure unless size and checksum are right."""
    content = bytearray()
    for piece in _pieces(folder, packed):
        inspection.spend(len(piece))
        content += piece
        require(len(content) <= folder.size, Reason.DAMAGED)
    require(len(content) == folder.size and folder.crc in (None, zlib.crc32(content)), Reason.DAMAGED)
    return bytes(content)


def _pieces(folder: _Folder, packed: Part) -> Iterator[bytes]:
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


def _filters(coders: list[_Coder]) -> list[dict[str, Any]]:
    """The decoder's settings. BCJ only on LZMA2: on LZMA, `lzma` keeps back the last bytes."""
    methods = [coder.method for coder in coders]
    require(methods in ([_LZMA1], [_LZMA2], [_LZMA2, _BCJ]))
    properties = coders[0].properties
    if methods == [_LZMA1]:
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


def _read_streams(reader: _Reader) -> _Streams:
    """Where the packed streams are, what unpacks them, and into what."""
    position, packed = _read_packed(reader)
    folders = _read_folders(reader)
    kind = reader.byte()
    if kind == _SUBSTREAMS:
        _read_substreams(reader, folders)
        kind = reader.byte()
    require(kind == _END)
    return _Streams(position, packed, folders)


def _read_packed(reader: _Reader) -> tuple[int, list[int]]:
    reader.expect(_PACK)
    position, count = reader.number(), reader.count()
    reader.expect(_SIZES)
    packed = [reader.number() for _ in range(count)]
    kind = reader.byte()
    if kind == _CRCS:
        reader.crcs(count)
        kind = reader.byte()
    require(kind == _END)
    return position, packed


def _read_folders(reader: _Reader) -> list[_Folder]:
    reader.expect(_FOLDERS)
    reader.expect(_FOLDER)
    count = reader.count()
    require(reader.byte() == 0)
    folders = [_read_folder(reader) for _ in range(count)]
    reader.expect(_UNPACK_SIZES)
    for folder in folders:
        *_, folder.size = [reader.number() for _ in folder.coders]
        folder.streams = [folder.size]
    kind = reader.byte()
    if kind == _CRCS:
        for folder, crc in zip(folders, reader.crcs(count), strict=True):
            folder.crc = crc
        kind = reader.byte()
    require(kind == _END)
    return folders


def _read_folder(reader: _Reader) -> _Folder:
    """One coder, or a chain of two in which the second takes what the first has unpacked."""
    count = reader.number()
    require(1 <= count <= 4)
    coders = [_read_coder(reader) for _ in range(count)]
    require(count <= 2)
    if count > 1:
        require((reader.number(), reader.number()) == (1, 0))
    return _Folder(coders)


def _read_coder(reader: _Reader) -> _Coder:
    flags = reader.byte()
    method = reader.take(flags & 0x0F)
    require(method != _AES, Reason.ENCRYPTED_ARCHIVE)
    require(not flags & 0xD0)
    properties = reader.take(reader.number()) if flags & 0x20 else b""
    return _Coder(method, properties)


def _read_substreams(reader: _Reader, folders: list[_Folder]) -> None:
    kind, counts = reader.byte(), [1] * len(folders)
    if kind == _COUNTS:
        counts = [reader.count() for _ in folders]
        kind = reader.byte()
    require(all(counts))
    if kind == _SIZES:
        for folder, count in zip(folders, counts, strict=True):
            sizes = [reader.number() for _ in range(count - 1)]
            folder.streams = [*sizes, folder.size - sum(sizes)]
        kind = reader.byte()
    require(all(len(folder.streams) == count for folder, count in zip(folders, counts, strict=True)))
    if kind == _CRCS:
        unknown = [folder for folder in folders if len(folder.streams) > 1 or folder.crc is None]
        crcs = iter(reader.crcs(sum(len(folder.streams) for folder in unknown)))
        for folder in unknown:
            folder.crcs = list(islice(crcs, len(folder.streams)))
        kind = reader.byte()
    require(kind == _END)


def _read_files(reader: _Reader, streams: int) -> None:
    """As many files with content as there are streams, and nothing behind the header's end."""
    count, empty = reader.count(), 0
    while kind := reader.byte():
        content = reader.take(reader.number())
        if kind == _EMPTY_STREAM:
            require(not empty)
            empty = sum(_Reader(b"\0" + content).defined(count))
        elif kind == _NAMES:
            _check_names(content, count)
        elif kind in _VALUES:
            _check_values(_Reader(content), count, _VALUES[kind])
        else:
            require(kind in _IGNORED)
    require(count - empty == streams)
    reader.expect(_END)
    require(reader.at_end())


def _check_names(content: bytes, count: int) -> None:
    """In the header itself, each with its end."""
    text = content[1:]
    units = [text[i : i + 2] for i in range(0, len(text), 2)]
    require(content[:1] == b"\0" and text.endswith(b"\0\0") and units.count(b"\0\0") == count)


def _check_values(reader: _Reader, count: int, size: int) -> None:
    known = sum(reader.defined(count))
    reader.expect(0)
    reader.take(known * size)
    require(reader.at_end())
