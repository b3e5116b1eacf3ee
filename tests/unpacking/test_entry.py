"""Both readers tell the same of a ZIP that is written as it should be."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping

import pytest

from scanner.unpacking import by_libarchive, by_zipfile
from scanner.unpacking.entry import STEP, Entry
from tests.archives import streamed_zip_of, zip64_of, zip_of

Entries = Callable[[memoryview], Iterator[Entry]]
FILES = {
    "a": b"text",
    "folder/": b"",
    "folder/\xb5\N{SNOWMAN}": b"x" * 3 * STEP,
    "empty": b"",
    "last": bytes(range(256)),
}


each_reader = pytest.mark.parametrize("entries", [by_libarchive.entries, by_zipfile.entries])


@each_reader
@pytest.mark.parametrize("make", [zip_of, streamed_zip_of, zip64_of])
def test_entries_come_in_order_with_all_their_pieces(entries: Entries, make: Callable[..., bytes]) -> None:
    assert read(entries, make(FILES)) == expected(FILES)


@each_reader
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_are_known(entries: Entries, method: int) -> None:
    """But libarchive 3.6 does not know nothing, compressed by LZMA."""
    files = {name: content for name, content in FILES.items() if content}
    assert read(entries, zip_of(files, method)) == expected(files)


def read(entries: Entries, data: bytes) -> list[tuple[bytes, bytes]]:
    return [(path, b"".join(map(bytes, pieces))) for path, pieces in entries(memoryview(bytearray(data)))]


def expected(files: Mapping[str, bytes]) -> list[tuple[bytes, bytes]]:
    return [(path.encode(), content) for path, content in files.items()]
