"""The programs with which we open containers ourselves."""

from __future__ import annotations

from enum import StrEnum


class Reader(StrEnum):
    """Zipfile gives the data of all entries; libarchive's directories and links have none."""

    LIBARCHIVE = "libarchive"
    ZIPFILE = "zipfile"
