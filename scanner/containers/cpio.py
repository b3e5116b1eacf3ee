"""cpio, new (newc, crc) and POSIX (odc): headers in digits, members side by side, zeros behind the last."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass

from scanner.containers.inspection import Inspection, Part, require
from scanner.verdict import Reason


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How long a header is, in which digits its numbers are and where, and what data are padded to."""

    header: int
    digits: re.Pattern[bytes]
    base: int
    mode: slice
    name_size: slice
    size: slice
    padding: int


_NEW = _Dialect(110, re.compile(rb"[0-9A-Fa-f]{104}"), 16, slice(14, 22), slice(94, 102), slice(54, 62), 4)
_OLD = _Dialect(76, re.compile(rb"[0-7]{70}"), 8, slice(18, 24), slice(59, 65), slice(65, 76), 1)
_DIALECTS = {b"070701": _NEW, b"070702": _NEW, b"070707": _OLD}
_LAST = b"TRAILER!!!\0"
_MAX_NAME = 4096
# 7-Zip takes longer ones than we do.
_MAX_NAME_FOUND = 64 * 1024


def begins_cpio(part: Part, offset: int) -> bool:
    """Whether a zero ends the name, if there is one: else 7-Zip goes no further (tried, 26.02)."""
    dialect = _DIALECTS[part.read(offset, 6)]
    digits = part.read(offset, dialect.header)[dialect.name_size]
    try:
        size = int(digits.strip(b" \0"), dialect.base)  # GNU cpio takes blanks
    except ValueError:
        return False
    end = offset + dialect.header + size
    return (not size and digits.isdigit()) or (size <= _MAX_NAME_FOUND and part.read(end - 1, 1) == b"\0")


def check_cpio(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless all readers see the same members."""
    magic = part.read(0, 6)
    dialect = _DIALECTS.get(magic)
    require(dialect)
    if dialect is None:
        return
    inspection.must_be_opened()
    offset, name = 0, b""
    while name != _LAST:
        inspection.member()
        offset, name = _behind_member(part, offset, magic, dialect, inspection)
    require(part.zeros(offset))


def _behind_member(
    part: Part, offset: int, magic: bytes, dialect: _Dialect, inspection: Inspection
) -> tuple[int, bytes]:
    header = part.read(offset, dialect.header)
    require(header.startswith(magic) and dialect.digits.fullmatch(header[6:]), Reason.DAMAGED)
    mode, name_size, size = (
        int(header[field], dialect.base) for field in (dialect.mode, dialect.name_size, dialect.size)
    )
    name = part.read(offset + dialect.header, name_size)
    require(1 < name_size <= _MAX_NAME and len(name) == name_size, Reason.DAMAGED)
    require(name.find(b"\0") == name_size - 1)
    data = part.slice(_padded(offset + dialect.header + name_size, dialect), size)
    _check_kind(mode, data, last=name == _LAST)
    inspection.look_into(data)
    return _padded(_padded(offset + dialect.header + name_size, dialect) + size, dialect), name


def _padded(offset: int, dialect: _Dialect) -> int:
    return -(-offset // dialect.padding) * dialect.padding


def _check_kind(mode: int, data: Part, *, last: bool) -> None:
    """Only files have content; that of a link is where it leads to."""
    kind = stat.S_IFMT(mode)
    if last or kind not in (stat.S_IFREG, stat.S_IFLNK):
        require(not data.size)
    if kind == stat.S_IFLNK:
        target = data.read(0, _MAX_NAME)
        require(target and data.size < _MAX_NAME and b"\0" not in target and b"\n" not in target)
