"""ar, and so .deb: headers of 60 bytes in printable characters, members side by side to the last byte."""

from __future__ import annotations

import re

from scanner.containers.inspection import Inspection, Part, require
from scanner.verdict import Reason

_MAGIC = b"!<arch>\n"
_HEADER = 60
_SIZE = re.compile(rb"([0-9]{1,10}) *")
# A plain name; `/` and a number into the table of long ones (GNU). BSD's are in the data: readers differ.
_NAME = re.compile(rb"[^#/\0 ][^/\0]*/? *|/[0-9]+ *")
_SYMBOLS, _LONG_NAMES = (b"/", b"/SYM64/"), b"//"
_TABLE = re.compile(rb"(?:[^/\0-\x1f\\]+(?:/?\n|\0))*\n?")


def check_ar(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless all readers see the same members."""
    inspection.must_be_opened()
    offset = len(_MAGIC)
    while offset < part.size:
        inspection.member()
        header = part.read(offset, _HEADER)
        size = _SIZE.fullmatch(header[48:58])
        if len(header) != _HEADER or header[58:] != b"`\n" or size is None:
            require(condition=False, reason=Reason.DAMAGED)
            return
        data = part.slice(offset + _HEADER, int(size[1]))
        _check_name(header[:16], data)
        inspection.look_into(data)
        offset += _HEADER + data.size
        if data.size % 2:
            require(part.read(offset, 1) in (b"\n", b"\0"))
            offset += 1


def _check_name(name: bytes, data: Part) -> None:
    """The table of long names is no member: it must be nothing but that."""
    bare = name.rstrip(b" ")
    if bare == _LONG_NAMES:
        require(_TABLE.fullmatch(data.read(0, data.size)))
    elif bare not in _SYMBOLS:
        require(_NAME.fullmatch(name))
