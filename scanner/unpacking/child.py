"""One container's process: it gives everything up, then reads, and hands over one content at a time.

Whatever is not foreseen here ends it, and the service sees that it ended.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from collections.abc import Callable, Iterable, Iterator

from scanner.containers.readers import Reader
from scanner.unpacking import by_libarchive, by_ole2, by_pdf, by_zipfile
from scanner.unpacking.allowance import Unreadable
from scanner.unpacking.entry import Entry, Piece
from scanner.unpacking.protocol import (
    SEALS,
    Done,
    Failed,
    Found,
    GoOn,
    Job,
    Malformed,
    decode,
    receive,
    send,
)
from scanner.unpacking.sandbox import Filter, confine, end_after
from scanner.verdict import Reason

READERS: dict[str, Callable[[memoryview], Iterator[Entry]]] = {
    Reader.LIBARCHIVE: by_libarchive.entries,
    Reader.ZIPFILE: by_zipfile.entries,
    Reader.OLE2: by_ole2.entries,
    Reader.PDF: by_pdf.entries,
}


def work(job: Job, container: int, service: socket.socket, calls: Filter | None) -> None:
    """The whole life of a child, but for its end. Raises EOFError and OSError where the service is gone."""
    entries = READERS[job.text.decode()]
    memory = mmap.mmap(container, 0, access=mmap.ACCESS_COPY)
    os.close(container)
    confine(calls, job.milliseconds / 1000, job.largest)
    if (problem := _hand_over(entries(memoryview(memory)), service, job.largest)) is not None:
        send(service, Failed(problem.encode()))


def _hand_over(entries: Iterable[Entry], service: socket.socket, largest: int) -> Reason | None:
    """Why not to the end; when that is said, what took all the memory is gone."""
    try:
        _hand_over_all(entries, service, largest)
    except Unreadable as refusal:
        return refusal.reason
    except MemoryError:
        return Reason.LIMIT
    return None


def _hand_over_all(entries: Iterable[Entry], service: socket.socket, largest: int) -> None:
    allowed = _awaited(service)
    members = 0
    for path, pieces in entries:
        members += 1
        if members > allowed.members:
            raise Unreadable(Reason.LIMIT)
        content = _Content(min(largest, allowed.size))
        for piece in pieces:
            content.append(piece)
        if content.size:
            send(service, Found(content.size, members, path), [content.sealed()])
            content.close()
            allowed = _awaited(service)
            members = 0
    send(service, Done(members))


def _awaited(service: socket.socket) -> GoOn:
    """Nobody unpacks meanwhile, and the end of the service shows."""
    end_after(0)
    datagram, _ = receive(service)
    allowed = decode(datagram)
    if not isinstance(allowed, GoOn):
        raise Malformed
    end_after(allowed.milliseconds / 1000)
    return allowed


class _Content:
    """A memory file that grows up to `limit` bytes; none while it is empty."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._fd = -1
        self.size = 0

    def append(self, piece: Piece) -> None:
        self.size += len(piece)
        if self.size > self._limit:
            raise Unreadable(Reason.LIMIT)
        if self._fd < 0:
            self._fd = os.memfd_create("member", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def sealed(self) -> int:
        """From here on nobody can change it, not even this process."""
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, SEALS)
        return self._fd

    def close(self) -> None:
        os.close(self._fd)
