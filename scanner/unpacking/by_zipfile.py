"""A ZIP as Python's zipfile sees it: the central directory decides, and checksums must be right."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError

from scanner.unpacking.allowance import Unreadable
from scanner.unpacking.entry import STEP, Entry, Piece
from scanner.verdict import Reason

_ENCRYPTED = 0x41
# What zipfile and its decompressors say of files that are no good; bz2 says OSError.
_COMPLAINTS = (
    *(zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError),
    *(ValueError, RuntimeError, OverflowError, struct.error),
)


def entries(container: memoryview) -> Iterator[Entry]:
    """All members of the central directory, without the content of those behind a password.

    Raises Unreadable, at the end where something has a password.
    """
    with _translated():
        archive = zipfile.ZipFile(io.BufferedReader(_View(container), STEP))
    for info in archive.infolist():
        path = info.filename.encode(errors="surrogatepass")
        yield Entry(path, () if info.flag_bits & _ENCRYPTED else _pieces(archive, info))
    if any(info.flag_bits & _ENCRYPTED for info in archive.infolist()):
        raise Unreadable(Reason.ENCRYPTED_ARCHIVE)


def _pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[Piece]:
    size = 0
    with _translated(), archive.open(info) as content:
        while piece := content.read(STEP):
            yield piece
            size += len(piece)
    if size != info.file_size:
        raise Unreadable(Reason.DAMAGED)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except NotImplementedError:  # a method or a feature that zipfile does not know
        raise Unreadable(Reason.AMBIGUOUS) from None
    except _COMPLAINTS:
        raise Unreadable(Reason.DAMAGED) from None


class _View(io.RawIOBase):
    """Memory as a file; a confined process cannot read any other."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._memory)}[whence]
        if origin + offset < 0:
            raise ValueError
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._memory[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
