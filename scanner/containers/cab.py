"""Cabinet ([MS-CAB] 2): one whole cabinet, in which header, folders, files and their data tile the file."""

from __future__ import annotations

import struct

from scanner.containers.inspection import Inspection, Part, require
from scanner.verdict import Reason

_HEADER = struct.Struct("<4s4xL4xL4x2B5H")
_RESERVED = struct.Struct("<H2B")
_FOLDER = struct.Struct("<L2H")
_FILE = struct.Struct("<2LH6x")
_BLOCK = struct.Struct("<4x2H")
_HAS_RESERVED = 4
_NONE, _MSZIP, _LZX = 0, 1, 3
_MAX_BLOCK = 32 * 1024
_MAX_NAME = 256


def check_cab(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless all readers see the same members."""
    _, size, files_at, _, _, folders, files, flags, _, _ = _unpack(_HEADER, part, 0)
    require(size == part.size and not flags & ~_HAS_RESERVED)
    offset, for_folder, for_block = _HEADER.size, 0, 0
    if flags:
        for_header, for_folder, for_block = _unpack(_RESERVED, part, offset)
        offset += _RESERVED.size + for_header
    folders_at = offset
    offset += folders * (_FOLDER.size + for_folder)
    require(offset == files_at)
    offset, expected = _behind_files(part, offset, files, folders, inspection)
    for folder in range(folders):
        header = _unpack(_FOLDER, part, folders_at + folder * (_FOLDER.size + for_folder))
        require(header[0] == offset and header[2] & 0xF in (_NONE, _MSZIP, _LZX))
        offset, unpacked = _behind_blocks(part, offset, header[1], for_block)
        require(unpacked == expected[folder])
    require(offset == part.size)
    inspection.must_be_opened()


def _behind_files(
    part: Part, offset: int, files: int, folders: int, inspection: Inspection
) -> tuple[int, list[int]]:
    """The files lie side by side in each folder, one folder after the other; also how long each folder is."""
    sizes, last = [0] * folders, 0
    for _ in range(files):
        inspection.member()
        size, begin, folder = _unpack(_FILE, part, offset)
        require(last <= folder < folders and begin == sizes[folder])
        sizes[folder] += size
        last = folder
        length = part.read(offset + _FILE.size, _MAX_NAME).find(b"\0")
        require(length > 0)
        offset += _FILE.size + length + 1
    return offset, sizes


def _behind_blocks(part: Part, offset: int, blocks: int, reserved: int) -> tuple[int, int]:
    unpacked = 0
    for _ in range(blocks):
        packed, size = _unpack(_BLOCK, part, offset)
        require(0 < size <= _MAX_BLOCK)
        unpacked += size
        offset += _BLOCK.size + reserved + packed
    return offset, unpacked


def _unpack(layout: struct.Struct, part: Part, offset: int) -> tuple[int, ...]:
    content = part.read(offset, layout.size)
    require(len(content) == layout.size, Reason.DAMAGED)
    return layout.unpack(content)
