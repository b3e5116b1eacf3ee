"""ISO 9660 (ECMA-119) as data disks are written: one volume, whose trees all have the same files.

Readers go by the Joliet tree, by the Rock Ridge names in the first one, or by neither; so both trees must
lead to the same extents. Not what can be booted, nor what is packed (zisofs), moved, or in several pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scanner.containers.inspection import Inspection, Part, require
from scanner.verdict import Reason

SECTOR = 2048
_DESCRIPTORS = 16
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255
_JOLIET = (b"%/@", b"%/C", b"%/E")
_ROOT = 156
_MAX_DIRECTORY = 4 * 1024 * 1024
_FIXED = 33
_HIDDEN, _DIRECTORY = 0x01, 0x02
# System use entries (SUSP, RRIP) that say that the content is elsewhere, or packed.
_ELSEWHERE = (b"ZF", b"CL", b"PL", b"RE", b"SF")
_CONTINUED = b"CE"
_MAX_CONTINUATIONS = 8

_Extent = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Record:
    extent: _Extent
    flags: int
    name: bytes
    system_use: bytes


def check_iso(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless all readers see the same files."""
    inspection.must_be_opened()
    require(not part.read(0, _DESCRIPTORS * SECTOR).strip(b"\0"))
    trees, end = [], 0
    for descriptor in _descriptors(part):
        end = max(end, _both_endian(descriptor[80:88]) * SECTOR)
        require(_both_endian(descriptor[128:132]) == SECTOR)
        trees.append(_files(part, _record(descriptor[_ROOT:]), inspection))
    require(trees and all(tree == trees[0] for tree in trees))
    require(part.zeros(end))
    for begin, size in trees[0]:
        inspection.look_into(part.slice(begin, size))


def _descriptors(part: Part) -> Iterator[bytes]:
    """The primary one, and one for Joliet at most."""
    for number in range(4):
        descriptor = part.read((_DESCRIPTORS + number) * SECTOR, SECTOR)
        require(len(descriptor) == SECTOR and descriptor[1:6] == b"CD001", Reason.DAMAGED)
        if descriptor[0] == _TERMINATOR:
            return
        require(descriptor[0] == (_SUPPLEMENTARY if number else _PRIMARY) and number < 2)
        require(not number or descriptor[88:91] in _JOLIET)
        yield descriptor
    require(condition=False)


def _files(part: Part, root: _Record, inspection: Inspection) -> set[_Extent]:
    """Where the content of all files is."""
    files, directories, seen = set[_Extent](), [root.extent], {root.extent}
    while directories:
        for record in _records(part, directories.pop(), inspection):
            if not record.flags & _DIRECTORY:
                files.add(record.extent)
            elif record.name not in (b"\0", b"\1"):  # itself and the one above
                require(record.extent not in seen)
                seen.add(record.extent)
                directories.append(record.extent)
    return {(begin, size) for begin, size in files if size}


def _records(part: Part, directory: _Extent, inspection: Inspection) -> Iterator[_Record]:
    """A directory's; none crosses the end of a sector."""
    begin, size = directory
    require(size % SECTOR == 0 and size <= _MAX_DIRECTORY)
    content = part.slice(begin, size).read(0, size)
    for start in range(0, size, SECTOR):
        sector = content[start : start + SECTOR]
        while sector and sector[0]:
            inspection.member()
            require(_FIXED < sector[0] <= len(sector), Reason.DAMAGED)
            record = _record(sector[: sector[0]])
            _check_system_use(part, record.system_use)
            yield record
            sector = sector[sector[0] :]
        require(not sector.strip(b"\0"))


def _record(content: bytes) -> _Record:
    """Both forms of each number agree; no attributes before the content, no pieces, no other volume."""
    require(len(content) > _FIXED, Reason.DAMAGED)
    flags, name_size = content[25], content[32]
    begin, size = _both_endian(content[2:10]), _both_endian(content[10:18])
    require(content[1] == 0 and not flags & ~(_HIDDEN | _DIRECTORY))
    require(content[26:28] == bytes(2) and _both_endian(content[28:32]) == 1)
    name = content[_FIXED : _FIXED + name_size]
    return _Record((begin * SECTOR, size), flags, name, content[_FIXED + name_size + 1 - name_size % 2 :])


def _check_system_use(part: Part, area: bytes) -> None:
    for _ in range(_MAX_CONTINUATIONS):
        continued = b""
        while len(area) >= 4 and area[2] >= 4:
            require(area[:2] not in _ELSEWHERE)
            if area[:2] == _CONTINUED:
                require(not continued and area[2] == 28)
                block, offset, size = (_both_endian(area[i : i + 8]) for i in (4, 12, 20))
                continued = part.slice(block * SECTOR + offset, size).read(0, size)
            area = area[area[2] :]
        if not continued:
            return
        area = continued
    require(condition=False)


def _both_endian(field: bytes) -> int:
    half = len(field) // 2
    number = int.from_bytes(field[:half], "little")
    require(number == int.from_bytes(field[half:], "big"))
    return number
