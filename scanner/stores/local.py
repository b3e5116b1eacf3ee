"""A quarantine store in a directory: for one machine, and for sites that have no S3."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from scanner import durable
from scanner.errors import StoreError
from scanner.ports import Stored

_DRAFTS = ".drafts"
# Seconds after which nobody writes a draft any more: its writer was killed.
_ABANDONED = 3600.0
_PIECE = 1024 * 1024


class Local:
    """Below `directory`, which only its owner may read."""

    name = "local"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._drafts = directory / _DRAFTS
        self._opened = False

    async def put(self, key: str, content: Path | bytes) -> bool:
        return await asyncio.to_thread(self._put, key, content)

    async def get(self, key: str, largest: int | None = None) -> bytes | None:
        return await asyncio.to_thread(self._get, key, largest)

    async def listing(self, prefix: str) -> AsyncIterator[Stored]:
        for stored in await asyncio.to_thread(self._list, prefix):
            yield stored

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._delete, key)

    async def hold(self, key: str, on: bool) -> bool:  # noqa: FBT001 - as the port has it
        """No directory can: its owner may remove whatever is in it."""
        return False

    def _put(self, key: str, content: Path | bytes) -> bool:
        path = self._path(key)
        try:
            if isinstance(content, Path) and (new := durable.link(content, path)) is not None:
                if new:
                    os.utime(path)  # it was put there now
                return new
            self._open()
            durable.make_directory(path.parent)
            pieces = [content] if isinstance(content, bytes) else _pieces(content)
            return durable.write(path, pieces, self._drafts / token_hex(8))
        except OSError as problem:
            raise _failed(key, problem) from problem

    def _open(self) -> None:
        """At the first put: what killed processes left is removed, what others write is let alone."""
        durable.make_directory(self._drafts)
        if self._opened:
            return
        for draft in self._drafts.iterdir():
            with suppress(FileNotFoundError):
                if draft.stat().st_mtime < time.time() - _ABANDONED:
                    draft.unlink()
        self._opened = True

    def _get(self, key: str, largest: int | None) -> bytes | None:
        path = self._path(key)
        try:
            return b"" if largest is not None and path.stat().st_size > largest else path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise _failed(key, problem) from problem

    def _list(self, prefix: str) -> list[Stored]:
        found = []
        try:
            for path in sorted(self._path(prefix).rglob("*")):
                with suppress(FileNotFoundError):  # deleted since
                    if path.is_file() and path.parent != self._drafts:
                        status = path.stat()
                        key = str(path.relative_to(self._directory))
                        found.append(Stored(key, status.st_size, status.st_mtime))
        except OSError as problem:
            raise _failed(prefix, problem) from problem
        return found

    def _delete(self, key: str) -> None:
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as problem:
            raise _failed(key, problem) from problem

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/"):
            raise StoreError(f"{key}: no name of anything in a store")
        return self._directory / key


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            yield piece


def _failed(key: str, problem: OSError) -> StoreError:
    return StoreError(f"{key}: {problem.strerror or 'cannot be used'}")
