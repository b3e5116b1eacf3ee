"""What a ZIP says of itself: its end record, its directory, and the record before each member's data.

Layout and names follow APPNOTE.TXT. ZIP64 is read where it is written the one way: an end record of its own
right before its locator, right before the end record; sizes in a field where the record says so.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from scanner.containers.inspection import Inspection, Part, Unsure, require
from scanner.verdict import Reason

LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_TAIL = _END.size + 0xFFFF

STORED, DEFLATED = 0, 8
ENCRYPTED, DESCRIPTOR = 1 << 0, 1 << 3
# Encrypted by a certificate or another strong method (6).
_OF_ENCRYPTED = ENCRYPTED | 1 << 6
# Compression options (1, 2), a descriptor behind the data (3), UTF-8 names (11).
_KNOWN_FLAGS = 1 << 1 | 1 << 2 | DESCRIPTOR | 1 << 11
_ZIP64, _UNICODE_PATH, _STREAMED, _AES = 0x0001, 0x7075, 0x6C78, 0x9901
_DIRECTORY_NAMES = (b"/", b"\\")
# No innocent file has more signatures than this in its last 64 KiB, and each one takes time.
_MOST_ENDS = 256
_IN_ZIP64 = 0xFFFFFFFF
_UNIX, _DOS_DIRECTORY = 3, 0x10


@dataclass(frozen=True, slots=True)
class End:
    """Of the whole: the end record's place, what it says, and the place where the directory ends."""

    position: int
    entries: int
    size: int
    offset: int
    comment_size: int
    directory_end: int

    @property
    def directory(self) -> int:
        """Where the directory begins."""
        return self.directory_end - self.size

    @property
    def comment(self) -> int:
        """Where the comment begins."""
        return self.position + _END.size

    @property
    def behind(self) -> int:
        """Where everything ends."""
        return self.comment + self.comment_size


@dataclass(frozen=True, slots=True)
class Entry:
    """A member as the directory has it. `special`: no file to those who go by its name or attributes."""

    flags: int
    method: int
    crc: int
    packed: int
    size: int
    name: bytes
    offset: int
    special: bool
    zip64: bool

    @property
    def encrypted(self) -> bool:
        """Whether it is behind a password."""
        return bool(self.flags & ENCRYPTED)


def last_end(part: Part) -> End | None:
    """The last end record whose directory would fit into the part; the signature alone may be text.

    The first of far too many is taken for one, so that such a file is none that can be opened.
    """
    start, tail = part.tail(_TAIL)
    found, left = tail.rfind(b"PK\5\6"), _MOST_ENDS
    while found >= 0:
        left -= 1
        if len(tail) - found >= _END.size:
            _, _, _, _, entries, size, offset, comment = _END.unpack_from(tail, found)
            position = start + found
            if not left or (_fits(size, position) and _fits(offset, position)):
                return End(position, entries, size, offset, comment, position)
        found = tail.rfind(b"PK\5\6", 0, found)
    return None


def _fits(value: int, position: int) -> bool:
    return value <= position or value == _IN_ZIP64


def whole_end(part: Part, end: End) -> End:
    """The same with what its ZIP64 record says, if there is one; Unsure unless all of it is consistent."""
    _, disk, start_disk, here, _, _, _, _ = _END.unpack(part.read(end.position, _END.size))
    require(disk == start_disk == 0 and here == end.entries)
    locator = part.read(end.position - _LOCATOR.size, _LOCATOR.size)
    if locator.startswith(b"PK\6\7"):
        end = _with_zip64(part, end, locator)
    require(end.size + end.offset <= end.directory_end)
    return end


def _with_zip64(part: Part, end: End, locator: bytes) -> End:
    _, disk, position, disks = _LOCATOR.unpack(locator)
    record = part.read(position, _END_64.size)
    require(disk == 0 and disks <= 1 and len(record) == _END_64.size and record.startswith(b"PK\6\6"))
    _, length, _, _, disk, start_disk, here, entries, size, offset = _END_64.unpack(record)
    require(length == _END_64.size - 12 and position + _END_64.size == end.position - _LOCATOR.size)
    require(disk == start_disk == 0 and here == entries)
    require(end.entries in (entries, 0xFFFF))
    require(end.size in (size, _IN_ZIP64) and end.offset in (offset, _IN_ZIP64))
    require(size + offset == position)  # no reader corrects these offsets for a prefix
    return End(end.position, entries, size, offset, end.comment_size, position)


def entries(part: Part, end: End, inspection: Inspection) -> Iterator[Entry]:
    """The directory's; Unsure unless they fill it."""
    position = end.directory
    for _ in range(end.entries):
        inspection.member()
        header = part.read(position, _CENTRAL.size)
        require(len(header) == _CENTRAL.size and header.startswith(b"PK\1\2"), Reason.DAMAGED)
        name_size, extra_size, comment_size = struct.unpack_from("<3H", header, 28)
        name = part.read(position + _CENTRAL.size, name_size)
        yield _entry(header, name, part.read(position + _CENTRAL.size + name_size, extra_size))
        position += _CENTRAL.size + name_size + extra_size + comment_size
    require(position == end.directory_end)


def _entry(header: bytes, name: bytes, extra: bytes) -> Entry:
    _, made, _, flags, method, _, _, crc, packed, size, *rest = _CENTRAL.unpack(header)
    _, _, _, disk, _, attributes, offset = rest
    _check_flags(flags, extra)
    _check_kind(name, extra)
    zip64 = zip64_field(extra)
    size, packed, offset = _long_values(zip64, size, packed, offset)
    require(disk == 0)
    special = _is_special(made >> 8, attributes, name)
    return Entry(flags, method, crc, packed, size, name, offset, special, zip64 is not None)


def _long_values(zip64: bytes | None, *values: int) -> list[int]:
    """The values in the record, those that it leaves to the ZIP64 field from there, in this order."""
    long = [value == _IN_ZIP64 for value in values]
    field = zip64 or b""
    require(len(field) >= 8 * sum(long))
    taken = iter(struct.unpack_from(f"<{sum(long)}Q", field))
    return [next(taken) if is_long else value for is_long, value in zip(long, values, strict=True)]


def _is_special(system: int, attributes: int, name: bytes) -> bool:
    """A directory, link or device to those who go by its name or its attributes."""
    kind = stat.S_IFMT(attributes >> 16) if system == _UNIX else 0
    return (
        name.endswith(_DIRECTORY_NAMES) or kind not in (0, stat.S_IFREG) or bool(attributes & _DOS_DIRECTORY)
    )


def _check_flags(flags: int, extra: bytes) -> None:
    """Unsure unless they are known, and say of a member with a password that it has one."""
    encrypted = flags & ENCRYPTED
    require(not flags & ~(_KNOWN_FLAGS | (_OF_ENCRYPTED if encrypted else 0)))
    require(encrypted or all(tag != _AES for tag, _ in _extra_fields(extra)))


def _check_kind(name: bytes, extra: bytes) -> None:
    """Unsure where to libarchive a file is none, and so without data, while it is one to others (tried)."""
    require(b"\0" not in name)
    for tag, content in _extra_fields(extra):
        require(tag != _STREAMED)  # attributes of its own
        if tag == _UNICODE_PATH:
            path = content[5:]
            require(b"\0" not in path)
            require(path.endswith(_DIRECTORY_NAMES) == name.endswith(_DIRECTORY_NAMES))


def zip64_field(extra: bytes) -> bytes | None:
    """The one ZIP64 field among these, if any."""
    fields = [content for tag, content in _extra_fields(extra) if tag == _ZIP64]
    require(len(fields) <= 1)
    return fields[0] if fields else None


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each field; what comes behind the last whole one is padding (zipalign)."""
    position = 0
    while position + 4 <= len(extra):
        tag, size = struct.unpack_from("<HH", extra, position)
        yield tag, extra[position + 4 : position + 4 + size]
        position += 4 + size


@dataclass(frozen=True, slots=True)
class Record:
    """What is before a member's data: where these are, where they end, and whether clamd finds their size."""

    data: Part
    behind: int
    seen_by_clamd: bool


def record_of(part: Part, position: int, entry: Entry) -> Record:
    """The one at `position`; Unsure unless it says the same as the directory."""
    header = part.read(position, LOCAL.size)
    require(len(header) == LOCAL.size and header.startswith(b"PK\3\4"), Reason.DAMAGED)
    _, _, flags, method, _, _, crc, packed, size, name_size, extra_size = LOCAL.unpack(header)
    extra = part.read(position + LOCAL.size + name_size, extra_size)
    _check_flags(flags, extra)
    _check_kind(entry.name, extra)
    require(flags == entry.flags and method == entry.method)
    require(part.read(position + LOCAL.size, name_size) == entry.name)
    zip64 = zip64_field(extra)
    long_size, long_packed = _local_sizes(zip64, size, packed)
    for said, known in ((crc, entry.crc), (long_packed, entry.packed), (long_size, entry.size)):
        require(said == known or (flags & DESCRIPTOR and said == 0))
    begin = position + LOCAL.size + name_size + extra_size
    data = part.slice(begin, entry.packed)
    # `zip` at a pipe has the sizes in the ZIP64 field alone, Python has them in the record as well.
    in_field_alone = flags & DESCRIPTOR and size == packed == _IN_ZIP64
    seen_by_clamd = bool(in_field_alone) or (size, packed) == (long_size, long_packed)
    return Record(data, begin + entry.packed, seen_by_clamd)


def _local_sizes(zip64: bytes | None, size: int, packed: int) -> tuple[int, int]:
    """As a reader without the directory has them; if there is a ZIP64 field, both are in it."""
    if zip64 is None:
        return size, packed
    require(len(zip64) >= 16)
    long_size, long_packed = struct.unpack_from("<QQ", zip64)
    require(size in (long_size, _IN_ZIP64) and packed in (long_packed, _IN_ZIP64))
    return long_size, long_packed


def behind_descriptor(part: Part, position: int, entry: Entry) -> int:
    """Behind the descriptor: with or without signature, sizes in 8 or 4 bytes; the next record follows."""
    for form in _descriptors(entry):
        behind = position + len(form)
        if part.read(position, len(form)) == form and part.read(behind, 2) == b"PK":
            return behind
    raise Unsure(Reason.AMBIGUOUS)


def _descriptors(entry: Entry) -> Iterator[bytes]:
    forms = ("<LQQ", "<LLL") if max(entry.packed, entry.size) <= _IN_ZIP64 else ("<LQQ",)
    for form in forms:
        descriptor = struct.pack(form, entry.crc, entry.packed, entry.size)
        yield from (b"PK\7\10" + descriptor, descriptor)
