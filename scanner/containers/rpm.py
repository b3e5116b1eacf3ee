"""RPM: a lead, a header of signatures, one of tags, and a compressed cpio, which is a file of its own."""

from __future__ import annotations

import struct

from scanner.containers.inspection import Inspection, Part, require
from scanner.verdict import Reason

_LEAD = 96
_MAGIC = b"\x8e\xad\xe8\x01"
_HEADER = struct.Struct(">4s4xLL")
_ENTRY = 16


def check_rpm(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless a payload follows right behind both headers."""
    signatures = _behind_header(part, _LEAD)
    padded = -(-signatures // 8) * 8
    require(not part.read(signatures, padded - signatures).strip(b"\0"))
    payload = _behind_header(part, padded)
    require(part.read(payload, 4).strip(b"\0"), Reason.DAMAGED)
    require(part.read(payload, 4) != _MAGIC and part.read(payload, 1) != b"\0")
    inspection.must_be_opened()


def _behind_header(part: Part, offset: int) -> int:
    header = part.read(offset, _HEADER.size)
    require(len(header) == _HEADER.size, Reason.DAMAGED)
    magic, entries, size = _HEADER.unpack(header)
    require(magic == _MAGIC, Reason.DAMAGED)
    return offset + _HEADER.size + int(entries) * _ENTRY + int(size)
