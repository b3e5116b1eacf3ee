"""Before the first container: load what the readers load late, and see whether a confined child can read."""

from __future__ import annotations

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable

from scanner.containers.readers import Reader
from scanner.unpacking import by_libarchive
from scanner.unpacking.child import READERS
from scanner.unpacking.protocol import (
    Done,
    Found,
    GoOn,
    Job,
    Malformed,
    Message,
    close_all,
    decode,
    receive,
    send,
)
from scanner.unpacking.sandbox import Filter

Fork = Callable[[Job, int, socket.socket, Filter | None], None]

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_CONTENT = b"rehearsal"
_TIMEOUT = 5
_OLE2 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_END, _NONE = 0xFFFFFFFE, 0xFFFFFFFF


def rehearse(fork: Fork, calls: Filter | None) -> tuple[Filter | None, str]:
    """`calls` if children can read with no others, else None; and what they read with. Raises OSError."""
    containers = dict.fromkeys(READERS, _archive()) | {
        Reader.OLE2: _compound_file(),
        Reader.PDF: _document(),
    }
    for reader, entries in READERS.items():
        for _, pieces in entries(memoryview(bytearray(containers[reader]))):
            for _ in pieces:
                pass
    for tried in (calls, None):
        if all(_reads(fork, reader, container, tried) for reader, container in containers.items()):
            return tried, f"libarchive {by_libarchive.version()}"
    raise OSError("child processes cannot read archives")


def _archive() -> bytes:
    """With a member by each method that both readers know, and with names in both encodings."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for method in _METHODS:
            archive.writestr(f"{method}" if method else "\xb5", _CONTENT, method)
    return buffer.getvalue()


def _compound_file() -> bytes:
    """With as many small streams, in sectors for the FAT, the small one, all contents, and the directory."""
    header = struct.pack("<8s16x5H10x6L", _OLE2, 0x3E, 3, 0xFFFE, 9, 6, 1, 3, 0, 4096, 1, 1)
    header += struct.pack("<2L", _END, 0) + struct.pack("<L", 0).ljust(4 * 109, b"\xff")
    fat = struct.pack("<5L", 0xFFFFFFFD, _END, _END, 4, _END)
    small = struct.pack(f"<{len(_METHODS)}L", *[_END] * len(_METHODS))
    content = b"".join(_CONTENT.ljust(64, b"\0") for _ in _METHODS)
    following = (*range(2, len(_METHODS) + 1), _NONE)
    streams = [_entry(2, number, start, len(_CONTENT)) for start, number in enumerate(following)]
    directory = b"".join([_entry(5, 1, 2, len(content)), *streams]).ljust(1024, b"\0")
    sectors = (fat.ljust(512, b"\xff"), small.ljust(512, b"\xff"), content.ljust(512, b"\0"), directory)
    return header + b"".join(sectors)


def _document() -> bytes:
    """With as many files attached, in both ways that they may lie there."""
    packed = zlib.compress(_CONTENT)
    streams = (packed, b"/Filter /FlateDecode"), (_CONTENT, b"")
    document = b"%PDF-1.7\n"
    for number in range(len(_METHODS)):
        data, said = streams[number % 2]
        document += b"%d 0 obj << /EF << /F %d 0 R >> >> endobj\n" % (number + 10, number + 1)
        document += b"%d 0 obj << %b /Length %d >> stream\n%b\nendstream endobj\n" % (
            *(number + 1, said),
            *(len(data), data),
        )
    return document


def _entry(kind: int, following: int, start: int, size: int) -> bytes:
    """An entry of the directory; the root's leads down, each stream's to the next one."""
    right, child = (following, _NONE) if kind == 2 else (_NONE, following)
    name = "\xb5\0".encode("utf-16-le")
    return struct.pack("<64sHBB3L36xLQ", name, len(name), kind, 1, _NONE, right, child, start, size)


def _reads(fork: Fork, reader: str, archive: bytes, calls: Filter | None) -> bool:
    container = os.memfd_create("rehearsal", os.MFD_CLOEXEC)
    ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(_TIMEOUT)
    try:
        os.write(container, archive)
        fork(Job(len(archive), _TIMEOUT * 1000, reader.encode()), container, childs, calls)
        childs.close()
        return _contents(ours) == len(_METHODS)
    except (OSError, EOFError, Malformed):
        return False
    finally:
        os.close(container)
        childs.close()
        ours.close()


def _contents(child: socket.socket) -> int:
    """How many a child hands over."""
    found = 0
    while not isinstance(answer := _heard(child), Done):
        found += isinstance(answer, Found)
        send(child, GoOn(len(_METHODS), len(_CONTENT), _TIMEOUT * 1000))
    return found


def _heard(child: socket.socket) -> Message:
    datagram, descriptors = receive(child)
    close_all(descriptors)
    return decode(datagram)
