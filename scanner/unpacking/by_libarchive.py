"""A container as libarchive sees it: one layer of it, to its last byte, without a word of complaint.

One layer: libarchive would open a tar.gz at once, or a ZIP in a gzip, and what lies between would be seen by
nobody. What it reads with the help of other programs or of other files stays off, and so does uuencode,
whose beginning may stand anywhere in a text.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_int, c_longlong, c_size_t, c_ssize_t, c_void_p

from libarchive import ffi
from libarchive.exception import ArchiveError

from scanner.unpacking.allowance import Unreadable
from scanner.unpacking.entry import STEP, Entry, Piece
from scanner.verdict import Reason

# How single compressed files begin, and their numbers in archive.h; an .lzma has no mark.
_GZIP, _COMPRESS, _LZMA = 1, 3, 5
_FILTERS = {
    b"\x1f\x8b": _GZIP,
    b"BZh": 2,
    b"\x1f\x9d": _COMPRESS,
    b"\xfd7zXZ\0": 6,
    b"\xed\xab\xee\xdb": 8,  # rpm: a header before another compressed file
    b"LZIP": 9,
    b"\x04\x22\x4d\x18": 13,  # lz4
    b"\x02\x21\x4c\x18": 13,  # lz4, as it once was
    b"\x28\xb5\x2f\xfd": 14,  # zstd
}
_FORMATS = (
    *("7zip", "ar", "cab", "cpio", "iso9660", "lha", "rar", "rar5", "tar", "warc", "xar"),
    *("zip_seekable", "zip_streamable"),
)
# archive.h: the formats that are read from beginning to end, so that we see whether something is left.
_CPIO, _TAR, _EMPTY, _AR, _RAW, _LHA, _WARC = (at << 16 for at in (0x1, 0x3, 0x6, 0x7, 0x9, 0xB, 0xF))
_SEQUENTIAL = {_CPIO, _TAR, _EMPTY, _AR, _RAW, _LHA, _WARC}
_RAR, _SEVENZIP = 0xD0000, 0xE0000
# Their headers may be encrypted, too.
_HIDES_HEADERS = {_RAR, _SEVENZIP}
_FAMILY = 0xFF0000
# A filter and, always last, the file itself.
_ONE_LAYER = 2
# archive_entry.h and Python's object.h
_REGULAR_FILE = 0o100000
_PYBUF_READ = 0x100

_append_filter = ffi.ffi("read_append_filter", [c_void_p, c_int], c_int, ffi.check_int)
_format = ffi.ffi("format", [c_void_p], c_int)
_entries_begun = ffi.ffi("file_count", [c_void_p], c_int)
_is_encrypted = ffi.ffi("entry_is_encrypted", [c_void_p], c_int)
_has_encrypted = ffi.ffi("read_has_encrypted_entries", [c_void_p], c_int)
_support = {name: ffi.get_read_format_function(name) for name in (*_FORMATS, "raw", "empty")}
_memory_at = ctypes.pythonapi.PyMemoryView_FromMemory
_memory_at.argtypes = [c_void_p, c_ssize_t, c_int]
_memory_at.restype = ctypes.py_object


def entries(container: memoryview) -> Iterator[Entry]:
    """All entries of what lies in writable memory, without the content of those behind a password.

    Raises Unreadable, also for bytes behind the last one, and at the end where something has a password.
    """
    archive = ffi.read_new()
    try:
        with _translated(archive):
            _open(archive, container)
            yield from _entries(archive)
            _require_end(archive, container)
            _require_readable(archive)
    finally:
        ffi.read_free(archive)


def _entries(archive: int) -> Iterator[Entry]:
    entry, encrypted = ffi.entry_new(), False
    while _certain(_next_header(archive, entry, encrypted)) != ffi.ARCHIVE_EOF:
        encrypted = bool(_is_encrypted(entry))
        # A gzip may name its content, but whoever unpacks it goes by the name of the file.
        path = b"" if _kind(archive) == _RAW else ffi.entry_pathname(entry) or b""
        yield Entry(path, () if encrypted else _content(archive, entry))


def _next_header(archive: int, entry: int, encrypted: bool) -> int:  # noqa: FBT001 - of the entry before
    """In a 7z it cannot skip what is encrypted: only more of that lies behind it (`containers.sevenzip`)."""
    try:
        return int(ffi.read_next_header2(archive, entry))
    except ArchiveError:
        if encrypted and _kind(archive) == _SEVENZIP:
            raise Unreadable(Reason.ENCRYPTED_ARCHIVE) from None
        raise


def _content(archive: int, entry: int) -> Iterator[Piece]:
    size = 0
    for piece in _pieces(archive):
        size += len(piece)
        yield piece
    is_file = ffi.entry_filetype(entry) == _REGULAR_FILE and ffi.entry_hardlink(entry) is None
    if is_file and ffi.entry_size_is_set(entry) and ffi.entry_size(entry) != size:
        raise Unreadable(Reason.DAMAGED)


def _pieces(archive: int) -> Iterator[Piece]:
    """What is stored, and the zeros between that a tar does not store."""
    block, length, offset = c_void_p(), c_size_t(), c_longlong()
    into = byref(block), byref(length), byref(offset)
    sparse = _kind(archive) == _TAR
    size = 0
    more = True
    while more:
        with _translated(archive):
            more = _certain(ffi.read_data_block(archive, *into)) != ffi.ARCHIVE_EOF
        if sparse:
            yield from _zeros(offset.value - size)
            size = offset.value + length.value
        if more and length.value:
            yield _memory_at(block, length.value, _PYBUF_READ)


def _zeros(length: int) -> Iterator[Piece]:
    if length < 0:
        raise Unreadable(Reason.AMBIGUOUS)
    for at in range(0, length, STEP):
        yield bytes(min(STEP, length - at))


def _open(archive: int, container: memoryview) -> None:
    number = _filter(container)
    for name in _FORMATS if number is None else _raw(number):
        _certain(_support[name](archive))
    if number == _COMPRESS:  # reads as soon as it is appended, so that libarchive has to find it
        ffi.read_support_filter_compress(archive)
    elif number is not None:
        _append_filter(archive, number)
    _read_from(archive, container)
    if number == _COMPRESS and ffi.filter_count(archive) != _ONE_LAYER:
        raise Unreadable(Reason.AMBIGUOUS)


def _raw(number: int) -> tuple[str, ...]:
    """A gzip without its trailer is empty to libarchive, so that none may be."""
    return ("raw",) if number == _GZIP else ("raw", "empty")


def _filter(container: memoryview) -> int | None:
    """What a single compressed file is compressed with."""
    for mark, number in _FILTERS.items():
        if container[: len(mark)] == mark:
            return number
    trial = ffi.read_new()
    try:
        ffi.read_support_filter_lzma(trial)
        ffi.read_support_format_raw(trial)
        _read_from(trial, container)
        return _LZMA if ffi.filter_count(trial) >= _ONE_LAYER else None
    finally:
        ffi.read_free(trial)


def _read_from(archive: int, container: memoryview) -> None:
    start = ctypes.addressof(ctypes.c_char.from_buffer(container))
    _certain(ffi.read_open_memory(archive, start, len(container)))
    if ffi.errno(archive):  # it takes what breaks off before its first byte for empty
        raise Unreadable(Reason.DAMAGED)


def _require_end(archive: int, container: memoryview) -> None:
    """Nothing but zeros may follow: another reader could go on there."""
    if _kind(archive) in _SEQUENTIAL:
        for at in range(ffi.filter_bytes(archive, -1), len(container), STEP):
            if bytes(container[at : at + STEP]).strip(b"\0"):
                raise Unreadable(Reason.AMBIGUOUS)


def _require_readable(archive: int) -> None:
    if _has_encrypted(archive) > 0:
        raise Unreadable(Reason.ENCRYPTED_ARCHIVE)


def _kind(archive: int) -> int:
    return int(_format(archive)) & _FAMILY


def _certain(result: int) -> int:
    """A warning is as bad as an error: what follows may be less than others see."""
    if result < 0:
        raise Unreadable(Reason.DAMAGED)
    return result


@contextmanager
def _translated(archive: int) -> Iterator[None]:
    try:
        yield
    except ArchiveError as error:
        raise Unreadable(_reason(archive, error)) from None


def _reason(archive: int, error: ArchiveError) -> Reason:
    if error.errno == errno.ENOMEM:
        return Reason.LIMIT
    if not _kind(archive):  # it recognises nothing, and libarchive 3.6 crashes on the next question
        return Reason.AMBIGUOUS
    if _entries_begun(archive) <= 1 and _kind(archive) in _HIDES_HEADERS and _has_encrypted(archive) > 0:
        return Reason.ENCRYPTED_ARCHIVE
    # A feature of the format that it knows of, and no more, or damage.
    return Reason.AMBIGUOUS if error.retcode == ffi.ARCHIVE_FAILED else Reason.DAMAGED


def version() -> str:
    """Of libarchive itself."""
    number = ffi.version_number()
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
