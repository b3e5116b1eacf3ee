"""Files that are there whole or not at all, whatever is killed and whenever the power fails.

A file is written as a draft, flushed to the disk, and given its name; it replaces nothing. Threads do this
beside a busy event loop, which each of their system calls may interrupt: hence as few of them as possible.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from pathlib import Path

# What a file system without hard links says to one: VFAT, exFAT, many network and FUSE ones.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
# And to `RENAME_NOREPLACE`: network ones, mostly.
_NO_SUCH_RENAME = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def write(path: Path, pieces: Iterable[bytes], draft: Path) -> bool:
    """Whether nothing had the name `path`; both are in the same file system, and `draft` is gone in any case.

    Raises OSError. What is there afterwards will be there after a power failure, whoever wrote it.
    """
    renamed: bool | None = None
    try:
        _write(draft, pieces)
        renamed = _rename(draft, path)
        new = _link(draft, path) if renamed is None else renamed
        flush(path.parent)
        return new
    finally:
        if not renamed:
            draft.unlink(missing_ok=True)


def link(file: Path, path: Path) -> bool | None:
    """Give a file that was written so, and never changes, another name; whether nothing had that one.

    Directories are made for it. None where it cannot be: on another file system, or on one without links.
    Raises OSError.
    """
    changed: list[Path] = []
    try:
        try:
            new = _link(file, path)  # nearly always the directory is there, or only its last part is not
        except FileNotFoundError:
            _make_directory(path.parent, changed)
            new = _link(file, path)
    except OSError as problem:
        if problem.errno in _NO_LINKS | {errno.EXDEV}:
            return None
        raise
    finally:
        flush(*changed)
    flush(path.parent)
    return new


def make_directory(path: Path) -> None:
    """With its parents, for its owner alone, there to stay. Raises OSError."""
    changed: list[Path] = []
    try:
        _make_directory(path, changed)
    finally:
        flush(*changed)


def _make_directory(path: Path, changed: list[Path]) -> None:
    """`changed` are then the directories that have a new name in them, whatever went wrong."""
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError:
        _make_directory(path.parent, changed)
        path.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    changed.insert(0, path.parent)


def flush(*directories: Path) -> None:
    """Make the names in them last: once the first is flushed, little is left to do for the others."""
    for directory in directories:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _write(file: Path, pieces: Iterable[bytes]) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _link(file: Path, path: Path) -> bool:
    try:
        os.link(file, path)
    except FileExistsError:
        return False
    return True


def _rename(draft: Path, path: Path) -> bool | None:
    """As `os.rename`, which replaces what is there; Python has no other. None where that cannot be."""
    names = _AT_FDCWD, os.fsencode(draft), _AT_FDCWD, os.fsencode(path)
    if _libc.renameat2(*names, _RENAME_NOREPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.EEXIST:
        return False
    if number in _NO_SUCH_RENAME:
        return None
    raise OSError(number, os.strerror(number), str(path))
