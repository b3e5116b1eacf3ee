"""The header of a 7z: which packed streams there are, what unpacks them into which files (7zFormat.txt)."""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass, field
from itertools import islice

from scanner.containers.inspection import require
from scanner.verdict import Reason

END, HEADER, STREAMS, FILES, PACKED_HEADER = 0, 1, 4, 5, 23
_PACK, _FOLDERS, _SUBSTREAMS = 6, 7, 8
_SIZES, _CRCS, _FOLDER, _UNPACK_SIZES, _COUNTS, _EMPTY_STREAM = 9, 10, 11, 12, 13, 14
# Of files: names; times and attributes with the bytes that each has; which ones are empty, and padding.
# Not: items that delete others.
_NAMES, _TIMES, _ATTRIBUTES, _IGNORED = 17, (18, 19, 20), 21, (15, 25)
AES = b"\6\xf1\7\1"
_MAX_CODERS = 4
_DIRECTORY, _HAS_MODE = 0x10, 0x8000


@dataclass(frozen=True, slots=True)
class Coder:
    """What unpacks a stream, or several into one."""

    method: bytes
    properties: bytes
    inputs: int


@dataclass(slots=True)
class Folder:
    """Coders that feed each other: from `packed` streams to one of `size` bytes, which holds `streams`."""

    coders: list[Coder]
    packed: int = 1
    is_chain: bool = True
    main: int = 0
    size: int = 0
    crc: int | None = None
    crcs: list[int | None] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)

    @property
    def encrypted(self) -> bool:
        """Whether what unpacks it needs a password."""
        return any(coder.method == AES for coder in self.coders)


@dataclass(frozen=True, slots=True)
class Streams:
    """The sizes of the packed streams, which lie side by side from `position` on, and what they belong to."""

    position: int
    packed: list[int]
    folders: list[Folder]


class Reader:
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


def read_streams(reader: Reader) -> Streams:
    """Where the packed streams are, what unpacks them, and into what."""
    position, packed = _read_packed(reader)
    folders = _read_folders(reader)
    kind = reader.byte()
    if kind == _SUBSTREAMS:
        _read_substreams(reader, folders)
        kind = reader.byte()
    require(kind == END)
    return Streams(position, packed, folders)


def _read_packed(reader: Reader) -> tuple[int, list[int]]:
    reader.expect(_PACK)
    position, count = reader.number(), reader.count()
    reader.expect(_SIZES)
    packed = [reader.number() for _ in range(count)]
    kind = reader.byte()
    if kind == _CRCS:
        reader.crcs(count)
        kind = reader.byte()
    require(kind == END)
    return position, packed


def _read_folders(reader: Reader) -> list[Folder]:
    reader.expect(_FOLDERS)
    reader.expect(_FOLDER)
    count = reader.count()
    require(reader.byte() == 0)
    folders = [_read_folder(reader) for _ in range(count)]
    reader.expect(_UNPACK_SIZES)
    for folder in folders:
        folder.size = [reader.number() for _ in folder.coders][folder.main]
        folder.streams = [folder.size]
    kind = reader.byte()
    if kind == _CRCS:
        for folder, crc in zip(folders, reader.crcs(count), strict=True):
            folder.crc = crc
        kind = reader.byte()
    require(kind == END)
    return folders


def _read_folder(reader: Reader) -> Folder:
    """Each coder's input is a packed stream, or bound to the output of another; one output is free."""
    count = reader.number()
    require(1 <= count <= _MAX_CODERS)
    coders = [_read_coder(reader) for _ in range(count)]
    inputs = sum(coder.inputs for coder in coders)
    bound = [(reader.number(), reader.number()) for _ in range(count - 1)]
    packed = inputs - len(bound)
    require(packed >= 1)
    taken = [where for where, _ in bound]
    if packed > 1:
        taken += [reader.number() for _ in range(packed)]
        require(sorted(taken) == list(range(inputs)))
    free = set(range(count)) - {output for _, output in bound}
    require(len(free) == 1 and len(set(taken)) == len(taken) and max(taken, default=0) < inputs)
    is_chain = inputs == count and bound == [(index + 1, index) for index in range(count - 1)]
    return Folder(coders, packed, is_chain, free.pop())


def _read_coder(reader: Reader) -> Coder:
    flags = reader.byte()
    method = reader.take(flags & 0x0F)
    require(not flags & 0xC0)
    inputs, outputs = (reader.number(), reader.number()) if flags & 0x10 else (1, 1)
    require(1 <= inputs <= _MAX_CODERS and outputs == 1)
    properties = reader.take(reader.number()) if flags & 0x20 else b""
    return Coder(method, properties, inputs)


def _read_substreams(reader: Reader, folders: list[Folder]) -> None:
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
    require(kind == END)


def read_files(reader: Reader, streams: int) -> bool:
    """Whether something that is no file has content; Unsure unless each stream has a file of its own.

    And nothing comes behind the header's end.
    """
    count = reader.count()
    empty: list[bool] = []
    attributes: list[int] = []
    while kind := reader.byte():
        content = reader.take(reader.number())
        if kind == _EMPTY_STREAM:
            require(not empty)
            empty = Reader(b"\0" + content).defined(count)
        elif kind == _NAMES:
            _check_names(content, count)
        elif kind == _ATTRIBUTES:
            attributes = _values(Reader(content), count, 4)
        elif kind in _TIMES:
            _values(Reader(content), count, 8)
        else:
            require(kind in _IGNORED)
    require(count - sum(empty) == streams)
    reader.expect(END)
    require(reader.at_end())
    full = [
        value for value, is_empty in zip(attributes, empty or [False] * count, strict=False) if not is_empty
    ]
    return any(_is_special(value) for value in full)


def _is_special(attributes: int) -> bool:
    """A directory, link or device to those who go by its attributes."""
    kind = stat.S_IFMT(attributes >> 16) if attributes & _HAS_MODE else 0
    return bool(attributes & _DIRECTORY) or kind not in (0, stat.S_IFREG)


def _check_names(content: bytes, count: int) -> None:
    """In the header itself, each with its end."""
    text = content[1:]
    units = [text[i : i + 2] for i in range(0, len(text), 2)]
    require(content[:1] == b"\0" and text.endswith(b"\0\0") and units.count(b"\0\0") == count)


def _values(reader: Reader, count: int, size: int) -> list[int]:
    """For each file, 0 where it has none."""
    known = reader.defined(count)
    reader.expect(0)
    values = [int.from_bytes(reader.take(size), "little") if is_known else 0 for is_known in known]
    require(reader.at_end())
    return values
