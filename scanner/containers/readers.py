"""The programs with which we open containers ourselves."""

from __future__ import annotations

from enum import StrEnum


class Reader(StrEnum):
    """Directories and links of libarchive have no data, all entries of zipfile do. The others are our own."""

    LIBARCHIVE = "libarchive"
    ZIPFILE = "zipfile"
    OLE2 = "ole2"
    PDF = "pdf"
