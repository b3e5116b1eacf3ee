"""An update of libarchive is noticed, without loading it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from scanner.unpacking.library import LIBRARY, library_digest

_LOADED = f"""
import ctypes
ctypes.CDLL("{LIBRARY}")
print(next(line.split()[-1] for line in open("/proc/self/maps") if "libarchive" in line))
"""


def cache_of(folder: Path, *paths: Path) -> Path:
    """The dynamic linker's, as far as we look: names and paths, each with a zero behind it."""
    cache = folder / f"{len(paths)}.cache"
    texts = [b"libc.so.6", *(str(path).encode() for path in paths), b"/lib/libarchive.so.130"]
    cache.write_bytes(b"glibc-ld.so.cache1.1" + b"\0".join(texts) + b"\0")
    return cache


def test_it_is_the_library_that_children_load() -> None:
    loaded = subprocess.run([sys.executable, "-c", _LOADED], check=True, capture_output=True).stdout
    assert library_digest() == hashlib.sha256(Path(loaded.decode().strip()).read_bytes()).hexdigest()[:16]


def test_another_library_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    library = tmp_path / LIBRARY
    library.write_bytes(b"before")
    before = library_digest(cache_of(tmp_path, library))
    library.write_bytes(b"after")
    assert library_digest(cache_of(tmp_path, library)) == before  # what runs has loaded the old one
    library_digest.cache_clear()
    assert library_digest(cache_of(tmp_path, library)) != before


def test_no_library_and_no_cache_are_no_error(tmp_path: Path) -> None:
    nothing = library_digest(tmp_path / "missing")
    assert library_digest(cache_of(tmp_path)) == nothing
    assert library_digest(cache_of(tmp_path, tmp_path / LIBRARY)) == nothing
