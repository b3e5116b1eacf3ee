"""Before the first container: load what the readers load late, and see whether a confined child can read."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from collections.abc import Callable

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


def rehearse(fork: Fork, calls: Filter | None) -> tuple[Filter | None, str]:
    """`calls` if children can read with no others, else None; and what they read with. Raises OSError."""
    archive = _archive()
    for entries in READERS.values():
        for _, pieces in entries(memoryview(bytearray(archive))):
            for _ in pieces:
                pass
    for tried in (calls, None):
        if all(_reads(fork, reader, archive, tried) for reader in READERS):
            return tried, f"libarchive {by_libarchive.version()}"
    raise OSError("child processes cannot read archives")


def _archive() -> bytes:
    """With a member by each method that both readers know, and with names in both encodings."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for method in _METHODS:
            archive.writestr(f"{method}" if method else "\xb5", _CONTENT, method)
    return buffer.getvalue()


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
