"""ZIP written the one way in which all readers agree: records, directory and end record tile the file.

Readers differ in where they look: Python and unzip start from the last end record, clamd from the
directory, bsdtar in a pipe from the first byte, 7-Zip from anywhere. Where every byte belongs to exactly
one record, and both descriptions of each member agree, they all see the same. Layout and names follow
APPNOTE.TXT; what innocent writers do beyond it is in facts/archives.md.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from scanner.containers.embedded import contains_container
from scanner.containers.inspection import Inspection, Part, Unsure, require
from scanner.containers.streams import Inflater
from scanner.verdict import Reason

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_TWO_SIZES = struct.Struct("<QQ")
_TAIL = _END.size + 0xFFFF

STORED, DEFLATED = 0, 8
_ENCRYPTED, _DESCRIPTOR = 1 << 0, 1 << 3
# Compression options (1, 2), a descriptor behind the data (3), UTF-8 names (11).
_KNOWN_FLAGS = 1 << 1 | 1 << 2 | _DESCRIPTOR | 1 << 11
_ZIP64, _AES = 0x0001, 0x9901
_IN_ZIP64 = 0xFFFFFFFF

_SIGNING_BLOCK_MAGIC = b"APK Sig Block 42"
_ODF_MANIFEST = b"META-INF/manifest.xml"
_MAX_MANIFEST = 4 * 1024 * 1024
# What may stand before the first record: clamd looks for ZIPs behind it (tried).
_PREFIXES = (b"MZ", b"\x7fELF", b"#!", b"\xd0\xcf\x11\xe0")


@dataclass(frozen=True, slots=True)
class _End:
    position: int
    entries: int
    size: int
    offset: int
    comment_size: int

    @property
    def directory(self) -> int:
        return self.position - self.size


@dataclass(frozen=True, slots=True)
class _Entry:
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    name: bytes
    offset: int


def ends_as_zip(part: Part) -> bool:
    """Whether a reader that starts from the end would take the part for a ZIP."""
    return _last_end(part) is not None


def without_rest(part: Part) -> Part:
    """The part up to the end of its last end record, where a ZIP lies inside another container."""
    end = _last_end(part)
    return part if end is None else part.slice(0, end.position + _END.size + end.comment_size)


def check_zip(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless every reader sees in this ZIP what clamd sees."""
    end = _last_end(part)
    if end is None:
        raise Unsure(Reason.DAMAGED)
    _check_end(part, end)
    entries = sorted(_entries(part, end, inspection), key=lambda entry: entry.offset)
    base = end.directory - end.offset
    position = _start(part, base, entries)
    for entry in entries:
        position = _skip_padding(part, position, entry.offset + base)
        position = _check_member(part, position, entry, inspection)
    require(_skip_signing_block(part, position, end.directory) == end.directory)


def _last_end(part: Part) -> _End | None:
    """The last end record whose directory would fit into the part; the signature alone may be text."""
    start, tail = part.tail(_TAIL)
    found = tail.rfind(b"PK\5\6")
    while found >= 0:
        if len(tail) - found >= _END.size:
            _, _, _, _, entries, size, offset, comment = _END.unpack_from(tail, found)
            position = start + found
            if _fits(size, position) and _fits(offset, position):
                return _End(position, entries, size, offset, comment)
        found = tail.rfind(b"PK\5\6", 0, found)
    return None


def _fits(value: int, position: int) -> bool:
    return value <= position or value == _IN_ZIP64


def _check_end(part: Part, end: _End) -> None:
    _, disk, start_disk, here, _, _, _, _ = _END.unpack(part.read(end.position, _END.size))
    require(disk == start_disk == 0 and here == end.entries)
    require(end.size + end.offset <= end.position)
    comment = end.position + _END.size
    behind = comment + end.comment_size
    require(behind <= part.size, Reason.DAMAGED)
    # bsdtar leaves up to 10 KB of zeros behind the end record.
    require(part.zeros(behind))
    require(b"PK" not in part.read(comment, end.comment_size))


def _start(part: Part, base: int, entries: list[_Entry]) -> int:
    """Where the first record must be: at the first byte, or behind an executable's image or `#!` line.

    `base` is what offsets count from: the first byte of the file, or the first record. Behind a prefix clamd
    goes from record to record, for which each must tell its size (tried).
    """
    start = base
    if not base and entries and part.read(0, 4) != b"PK\3\4":
        start = entries[0].offset
    if start:
        require(part.read(0, 4).startswith(_PREFIXES))
        require(entries and not any(entry.flags & _DESCRIPTOR for entry in entries))
        require(not contains_container(part.slice(0, start)))
    return start


def _entries(part: Part, end: _End, inspection: Inspection) -> Iterator[_Entry]:
    position = end.directory
    for _ in range(end.entries):
        inspection.member()
        header = part.read(position, _CENTRAL.size)
        require(len(header) == _CENTRAL.size and header.startswith(b"PK\1\2"), Reason.DAMAGED)
        _, _, _, flags, method, _, _, crc, packed, size, *rest = _CENTRAL.unpack(header)
        name_size, extra_size, comment_size, disk, _, _, offset = rest
        name = part.read(position + _CENTRAL.size, name_size)
        extra = part.read(position + _CENTRAL.size + name_size, extra_size)
        _check_encryption(flags, extra)
        require(_ZIP64 not in dict(_extra_fields(extra)) and _IN_ZIP64 not in (packed, size, offset))
        require(disk == 0 and method in (STORED, DEFLATED) and not flags & ~_KNOWN_FLAGS)
        yield _Entry(flags, method, crc, packed, size, name, offset)
        position += _CENTRAL.size + name_size + extra_size + comment_size
    require(position == end.position)


def _check_encryption(flags: int, extra: bytes) -> None:
    require(not flags & _ENCRYPTED and _AES not in dict(_extra_fields(extra)), Reason.ENCRYPTED_ARCHIVE)


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each field; what comes behind the last whole one is padding (zipalign)."""
    position = 0
    while position + 4 <= len(extra):
        tag, size = struct.unpack_from("<HH", extra, position)
        yield tag, extra[position + 4 : position + 4 + size]
        position += 4 + size


def _skip_padding(part: Part, position: int, record: int) -> int:
    """Android's tools fill gaps with nameless records that hold nothing but zeros."""
    while position < record:
        header = part.read(position, _LOCAL.size)
        require(header[:4] == b"PK\3\4" and not header[4:28].strip(b"\0"))
        (extra_size,) = struct.unpack("<H", header[28:])
        require(not part.read(position + _LOCAL.size, extra_size).strip(b"\0"))
        position += _LOCAL.size + extra_size
    require(position == record)
    return position


def _skip_signing_block(part: Part, position: int, directory: int) -> int:
    """Behind the block of an APK's signatures (v2 and later), if there is one between the two places."""
    size = directory - position
    if size < 32 or part.read(directory - 16, 16) != _SIGNING_BLOCK_MAGIC:
        return position
    block = part.read(position, size)
    require(block[:8] == block[-24:-16] == (size - 8).to_bytes(8, "little"))
    require(b"PK\3\4" not in block)
    return directory


def _check_member(part: Part, position: int, entry: _Entry, inspection: Inspection) -> int:
    """One record with its data and descriptor; gives the offset behind it."""
    header = part.read(position, _LOCAL.size)
    require(len(header) == _LOCAL.size and header.startswith(b"PK\3\4"), Reason.DAMAGED)
    _, _, flags, method, _, _, crc, packed, size, name_size, extra_size = _LOCAL.unpack(header)
    extra = part.read(position + _LOCAL.size + name_size, extra_size)
    _check_encryption(flags, extra)
    require(flags == entry.flags and method == entry.method)
    require(part.read(position + _LOCAL.size, name_size) == entry.name)
    _check_sizes(entry, crc, *_local_sizes(entry, packed, size, extra))
    data = part.slice(position + _LOCAL.size + name_size + extra_size, entry.packed)
    _check_data(data, entry, inspection)
    behind = position + _LOCAL.size + name_size + extra_size + entry.packed
    return _skip_descriptor(part, behind, entry) if entry.flags & _DESCRIPTOR else behind


def _local_sizes(entry: _Entry, packed: int, size: int, extra: bytes) -> tuple[int, int]:
    """Sizes as a reader without the directory has them, which may be in a ZIP64 field.

    `zip` at a pipe puts them there alone, Python there and into the header as well. Without a descriptor
    clamd must find them in the header (tried).
    """
    zip64 = dict(_extra_fields(extra)).get(_ZIP64)
    if zip64 is None:
        return packed, size
    require(len(zip64) == _TWO_SIZES.size)
    long_size, long_packed = _TWO_SIZES.unpack(zip64)
    in_field_alone = entry.flags & _DESCRIPTOR and packed == size == _IN_ZIP64
    require(in_field_alone or (packed, size) == (long_packed, long_size))
    return long_packed, long_size


def _check_sizes(entry: _Entry, crc: int, packed: int, size: int) -> None:
    """The record says the same as the directory; with a descriptor it may leave it open."""
    for said, known in ((crc, entry.crc), (packed, entry.packed), (size, entry.size)):
        require(said == known or (entry.flags & _DESCRIPTOR and said == 0))


def _check_data(data: Part, entry: _Entry, inspection: Inspection) -> None:
    if entry.method == DEFLATED:
        inflater = Inflater(data, 0, -zlib.MAX_WBITS)
        size, crc = inspection.unpack(inflater.pieces(), data.size)
        require(inflater.end == data.size and size == entry.size, Reason.DAMAGED)
    else:
        require(entry.packed == entry.size)
        inspection.look_into(data)
        crc = data.crc32()
    require(crc == entry.crc, Reason.DAMAGED)
    if entry.name == _ODF_MANIFEST:
        _check_manifest(data, entry)


def _check_manifest(data: Part, entry: _Entry) -> None:
    """An OpenDocument's list of files says which ones are encrypted, in any encoding of Unicode."""
    text = data.read(0, _MAX_MANIFEST)
    if entry.method == DEFLATED:
        text = zlib.decompressobj(-zlib.MAX_WBITS).decompress(text, _MAX_MANIFEST)
    require(b"encryption-data" not in text.replace(b"\0", b""), Reason.ENCRYPTED_DOCUMENT)


def _skip_descriptor(part: Part, position: int, entry: _Entry) -> int:
    """Behind the descriptor: with or without signature, sizes in 8 or 4 bytes; the next record follows."""
    for sizes in ("<LQQ", "<LLL"):
        descriptor = struct.pack(sizes, entry.crc, entry.packed, entry.size)
        for form in (b"PK\7\10" + descriptor, descriptor):
            behind = position + len(form)
            if part.read(position, len(form)) == form and part.read(behind, 2) == b"PK":
                return behind
    raise Unsure(Reason.AMBIGUOUS)
