"""What Python's own modules get out of a file, whatever is wrong with it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO

_MEMBERS = 20
_MOST = 200_000

Opened = Callable[[IO[bytes]], io.BufferedIOBase]


def readings(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Each module's name, and what it reads before it gives up."""
    yield "zipfile", _gathered(_zip_members, data)
    for name, magic, opened in _STREAMS:
        if data.startswith(magic):
            yield name, [_read_from(opened, data)]
    if len(data) >= tarfile.BLOCKSIZE or data.startswith(tuple(magic for _, magic, _ in _STREAMS)):
        yield "tarfile", _gathered(_tar_members, data)


def _gathered(members: Callable[[bytes], Iterator[bytes]], data: bytes) -> list[bytes]:
    gathered: list[bytes] = []
    with suppress(Exception):  # hostile input: whatever it raises
        for content in members(data):
            gathered.append(content)  # noqa: PERF402 - what came before an exception counts
    return gathered


def _zip_members(data: bytes) -> Iterator[bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist()[:_MEMBERS]:
            with suppress(Exception):
                yield archive.read(info)[:_MOST]


def _tar_members(data: bytes) -> Iterator[bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for _, info in zip(range(_MEMBERS), archive, strict=False):
            with suppress(Exception):
                if (content := archive.extractfile(info)) is not None:
                    yield content.read(_MOST)


def _read_from(opened: Opened, data: bytes) -> bytes:
    content = bytearray()
    with suppress(Exception), opened(io.BytesIO(data)) as stream:
        while len(content) < _MOST and (piece := stream.read(4096)):
            content += piece
    return bytes(content)


_STREAMS: tuple[tuple[str, bytes, Opened], ...] = (
    ("gzip module", b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    ("bz2 module", b"BZh", bz2.BZ2File),
    ("lzma module", b"\xfd7z", lzma.LZMAFile),
    ("lzma module", b"]\0\0", lzma.LZMAFile),
)
