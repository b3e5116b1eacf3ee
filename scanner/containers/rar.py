"""RAR, which Debian's clamd does not open: whole archives in which each header leads to the next one.

Headers per the technote of RAR 5 and the older `technote.txt`. Not what needs other files (volumes), nor what
is attached to files (streams, rights): readers differ in what they make of these.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from scanner.containers.inspection import Inspection, Part, Unsure, require
from scanner.verdict import Reason

_VERSION_4, _VERSION_5 = b"Rar!\x1a\x07\0", b"Rar!\x1a\x07\1\0"
_MAX_HEADER = 64 * 1024

_MAIN_4, _FILE_4, _SERVICE_4, _END_4 = 0x73, 0x74, 0x7A, 0x7B
_VOLUME_4, _PASSWORD_4, _HAS_DATA_4 = 0x0001, 0x0080, 0x8000
_SPLIT_4, _ENCRYPTED_4, _DIRECTORY_4, _LARGE_4 = 0x0003, 0x0004, 0x00E0, 0x0100
_HEADER_4 = struct.Struct("<H B H H")
_NAME_SIZE_4, _NAME_4 = slice(26, 28), 32

_MAIN_5, _FILE_5, _SERVICE_5, _ENCRYPTION_5, _END_5 = 1, 2, 3, 4, 5
_EXTRA_5, _DATA_5, _SPLIT_5, _VOLUME_5, _DIRECTORY_5 = 0x01, 0x02, 0x18, 0x01, 0x01
_ENCRYPTED_5 = 1
# Comments, copies of the headers, data for repair.
_SERVICES = (b"CMT", b"QO", b"RR")


def begins_rar(part: Part, offset: int) -> bool:
    """Whether a first header with a right checksum is here."""
    if part.read(offset, len(_VERSION_5)) == _VERSION_5:
        try:
            return _header_5(part, offset + len(_VERSION_5)).kind in (_MAIN_5, _ENCRYPTION_5)
        except Unsure:
            return False
    header = part.read(offset + len(_VERSION_4), _HEADER_4.size)
    if len(header) < _HEADER_4.size:
        return False
    crc, kind, _, size = _HEADER_4.unpack(header)
    content = part.read(offset + len(_VERSION_4), size)[2:]
    return bool(kind == _MAIN_4 and zlib.crc32(content) & 0xFFFF == crc)


def check_rar(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless all readers see the same members."""
    if part.read(0, len(_VERSION_5)) == _VERSION_5:
        encrypted = _encrypted_5(part, inspection)
    else:
        require(part.read(0, len(_VERSION_4)) == _VERSION_4)
        encrypted = _encrypted_4(part, inspection)
    if True in encrypted:
        inspection.is_encrypted(Reason.ENCRYPTED_ARCHIVE)
    if encrypted != {True}:
        inspection.must_be_opened()


def _encrypted_4(part: Part, inspection: Inspection) -> set[bool]:
    """Whether files are behind a password: some may be, and others not."""
    position, kind, first, encrypted = len(_VERSION_4), 0, True, set[bool]()
    while kind != _END_4 and position < part.size:
        inspection.member()
        header = part.read(position, _HEADER_4.size)
        require(len(header) == _HEADER_4.size, Reason.DAMAGED)
        crc, kind, flags, size = _HEADER_4.unpack(header)
        header = part.read(position, size)
        require(7 <= len(header) == size and zlib.crc32(header[2:]) & 0xFFFF == crc, Reason.DAMAGED)
        require((kind == _MAIN_4) == first)
        data = part.slice(position + size, _data_size_4(header, kind, flags))
        _check_kind_4(header, kind, flags, data)
        if kind == _MAIN_4 and flags & _PASSWORD_4:
            _require_nothing_else(part, position + size, inspection)  # all headers that follow are, too
            return {True}
        if kind == _FILE_4 and data.size:
            encrypted.add(bool(flags & _ENCRYPTED_4))
        inspection.explain_end(data)
        position, first = position + size + data.size, False
    require(position == part.size)
    return encrypted


def _require_nothing_else(part: Part, position: int, inspection: Inspection) -> None:
    """With a wrong password 7-Zip opens what else it finds there (tried, 26.02)."""
    require(inspection.inside(part.slice(position, part.size - position)) is None)


def _data_size_4(header: bytes, kind: int, flags: int) -> int:
    if not flags & _HAS_DATA_4 and kind not in (_FILE_4, _SERVICE_4):
        return 0
    require(len(header) >= 11, Reason.DAMAGED)
    size = int.from_bytes(header[7:11], "little")
    if kind in (_FILE_4, _SERVICE_4) and flags & _LARGE_4:
        size += int.from_bytes(header[32:36], "little") << 32
    return size


def _check_kind_4(header: bytes, kind: int, flags: int, data: Part) -> None:
    if kind == _MAIN_4:
        require(not flags & _VOLUME_4 and not data.size)
    elif kind in (_FILE_4, _SERVICE_4):
        require(not flags & _SPLIT_4)
        require(not data.size or flags & _DIRECTORY_4 != _DIRECTORY_4 or kind == _SERVICE_4)
        begin = _NAME_4 + (8 if flags & _LARGE_4 else 0)
        name = header[begin : begin + int.from_bytes(header[_NAME_SIZE_4], "little")]
        require(kind == _FILE_4 or name in _SERVICES)
    else:
        require(kind == _END_4 and not data.size)


@dataclass(frozen=True, slots=True)
class _Header:
    """Of version 5: its own fields, the records behind them, and the data, which end at `behind`."""

    kind: int
    flags: int
    fields: Part
    extra: Part
    data: Part
    behind: int


def _encrypted_5(part: Part, inspection: Inspection) -> set[bool]:
    position, kind, first, encrypted = len(_VERSION_5), 0, True, set[bool]()
    while kind != _END_5:
        inspection.member()
        header = _header_5(part, position)
        kind = header.kind
        if kind == _ENCRYPTION_5 and first:
            _require_nothing_else(part, header.behind, inspection)
            return {True}
        require((kind == _MAIN_5) == first and not header.flags & _SPLIT_5)
        _check_kind_5(header)
        if kind == _FILE_5 and header.data.size:
            encrypted.add(_is_encrypted_5(header.extra))
        inspection.explain_end(header.data)
        position, first = header.behind, False
    require(position == part.size)
    return encrypted


def _header_5(part: Part, position: int) -> _Header:
    """Checksum, then numbers of 7 bits a byte: size, type, flags, extra size, data size."""
    size, at = _number(part, position + 4)
    require(0 < size <= _MAX_HEADER, Reason.DAMAGED)
    whole = part.slice(position + 4, at - position - 4 + size)
    require(part.read(position, 4) == whole.crc32().to_bytes(4, "little"), Reason.DAMAGED)
    end = at + size
    kind, at = _number(part, at)
    flags, at = _number(part, at)
    extra, at = _number(part, at) if flags & _EXTRA_5 else (0, at)
    data, at = _number(part, at) if flags & _DATA_5 else (0, at)
    fields = part.slice(at, end - extra - at)
    return _Header(kind, flags, fields, part.slice(end - extra, extra), part.slice(end, data), end + data)


def _check_kind_5(header: _Header) -> None:
    if header.kind == _MAIN_5:
        require(not _number(header.fields, 0)[0] & _VOLUME_5 and not header.data.size)
    elif header.kind in (_FILE_5, _SERVICE_5):
        flags, name = _file_5(header.fields)
        require(not (flags & _DIRECTORY_5 and header.data.size))
        require(header.kind == _FILE_5 or name in _SERVICES)
    else:
        require(header.kind == _END_5 and not header.data.size)


def _file_5(fields: Part) -> tuple[int, bytes]:
    """A file's flags and its name: between are size, attributes, time, checksum, method and system."""
    flags, at = _number(fields, 0)
    for _ in ("size", "attributes"):
        _, at = _number(fields, at)
    at += 4 * bool(flags & 2) + 4 * bool(flags & 4)
    for _ in ("method", "system"):
        _, at = _number(fields, at)
    size, at = _number(fields, at)
    name = fields.read(at, size)
    require(len(name) == size and at + size == fields.size, Reason.DAMAGED)
    return flags, name


def _is_encrypted_5(extra: Part) -> bool:
    """Whether one of the records (size, type, data) is the first type; Unsure unless they fill the space."""
    position, encrypted = 0, False
    while position < extra.size:
        size, at = _number(extra, position)
        require(size, Reason.DAMAGED)
        encrypted |= _number(extra, at)[0] == _ENCRYPTED_5
        position = at + size
    require(position == extra.size, Reason.DAMAGED)
    return encrypted


def _number(part: Part, position: int) -> tuple[int, int]:
    """A number and the offset behind it."""
    number = 0
    for index, byte in enumerate(part.read(position, 10)):
        number |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return number, position + index + 1
    raise Unsure(Reason.DAMAGED)
