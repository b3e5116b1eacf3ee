"""Files on disk as media: which there are, and their bytes inside the memory budget.

The rules of this module: below a directory nothing but regular files is opened, and no link is followed;
disks are never waited for on the event loop; what changes while it is read is no sample; whatever is left
out is named, so that nothing passes for scanned that was not.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from scanner.admission import Budget, Reservation
from scanner.errors import Unreadable
from scanner.media import STEP, Body, BodyWriter
from scanner.readable import readable

STANDARD_INPUT = "-"

_CALLER = "files"
_BATCH = 64
_CHANGED = "changes while it is read"
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class File:
    """A regular file; `size` is in bytes, None for standard input. `link` is whether it may be one."""

    path: str
    size: int | None
    link: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """What was asked for and cannot be read, and why."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A link, a socket, a device or a pipe below a directory."""

    path: str


Entry = File | Refused | Skipped


async def walk(arguments: list[str]) -> AsyncIterator[Entry]:
    """Everything that the arguments name, directories with all that is below them."""
    entries = (entry for argument in arguments for entry in _entries(argument))
    while batch := await asyncio.to_thread(lambda: list(islice(entries, _BATCH))):
        for entry in batch:
            yield entry


def _entries(argument: str) -> Iterator[Entry]:
    if argument == STANDARD_INPUT:
        yield File(argument, None)
        return
    try:
        status = os.stat(argument)  # noqa: PTH116 - a Path would spell the name anew
    except OSError as problem:
        yield Refused(argument, _why(problem))
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _below(argument)
    elif stat.S_ISREG(status.st_mode):
        yield File(argument, status.st_size, link=True)
    else:
        yield Refused(argument, "neither a file nor a directory")


def _below(directory: str) -> Iterator[Entry]:
    """Not recursive: somebody may have made a very deep tree."""
    pending = [directory]
    while pending:
        here = pending.pop()
        try:
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as problem:
            yield Refused(here, _why(problem))
            continue
        directories = []
        for entry in found:
            if _is_directory(entry):
                directories.append(entry.path)
            else:
                yield _entry(entry)
        pending += reversed(directories)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir(follow_symlinks=False)
    return False


def _entry(entry: os.DirEntry[str]) -> Entry:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as problem:
        return Refused(entry.path, _why(problem))
    return File(entry.path, status.st_size) if stat.S_ISREG(status.st_mode) else Skipped(entry.path)


class Files:
    """Reads files into bodies of `media_size` bytes at most, each within its share of `budget`."""

    def __init__(self, budget: Budget, media_size: int) -> None:
        self._budget = budget
        self._media_size = media_size

    async def body(self, file: File) -> Body:
        """All of the file. Raises Unreadable, or Unavailable where there is no room for it."""
        if file.size is not None and file.size > self._media_size:
            raise self._too_large()
        size = self._media_size if file.size is None else file.size
        writer = BodyWriter(await self._room(size))
        try:
            if file.size is None:
                await self._take_standard_input(writer)
            else:
                await _undisturbed(lambda: _copy(file, writer))
            return writer.seal()
        except BaseException as problem:
            writer.discard()
            if isinstance(problem, OSError):
                raise Unreadable(_why(problem)) from problem
            raise

    async def _room(self, size: int) -> Reservation:
        return await self._budget.share_for(size).reserve(size, _CALLER)

    async def _take_standard_input(self, writer: BodyWriter) -> None:
        if sys.stdin is None:  # then its descriptor may be anything by now
            raise Unreadable("standard input is closed")
        while piece := await _piece(sys.stdin.fileno()):
            if writer.size + len(piece) > self._media_size:
                raise self._too_large()
            writer.write(piece)

    def _too_large(self) -> Unreadable:
        return Unreadable(f"larger than limits.media_size ({self._media_size / 2**20:g}MiB)")


def _copy(file: File, writer: BodyWriter) -> None:
    """Raises OSError, or Unreadable."""
    follow = 0 if file.link else os.O_NOFOLLOW
    # Not blocking: what was a file when it was found may be a pipe without a writer now.
    fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | follow)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode) or before.st_size != file.size:
            raise Unreadable(_CHANGED)
        while piece := os.read(fd, STEP):
            if writer.size + len(piece) > file.size:
                raise Unreadable(_CHANGED)
            writer.write(piece)
        if writer.size != file.size or os.fstat(fd).st_mtime_ns != before.st_mtime_ns:
            raise Unreadable(_CHANGED)
    finally:
        os.close(fd)


async def _undisturbed(work: Callable[[], _Result]) -> _Result:
    """In a thread; returns, even cancelled, only when the thread has let go of its descriptors."""
    working = asyncio.get_running_loop().run_in_executor(None, work)  # no task: nobody cancels it
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([working])
        working.exception()  # of no interest any more
        raise


async def _piece(fd: int) -> bytes:
    """The next bytes of a pipe, a terminal or a file; b"" at its end. No thread waits for them."""
    try:
        await readable(fd)
    except PermissionError:  # a file, which always is
        return await asyncio.to_thread(os.read, fd, STEP)
    return os.read(fd, STEP)


def _why(problem: OSError) -> str:
    return problem.strerror or type(problem).__name__
