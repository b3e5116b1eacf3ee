"""Compound files by what clamd sees of the EICAR in them: all of it, nothing, or that there is a password."""

from __future__ import annotations

import random
import struct
import zipfile

from py7zr import FILTER_BZIP2

from tests.archives import sevenzip_of, zip_of
from tests.compound_files import compound
from tests.compound_mutants import workbook
from tests.real_clamd import EICAR

NOISE = random.Random(1).randbytes(9000)
SECRET = EICAR + NOISE
DEFLATED = zip_of({"xl/workbook.xml": SECRET})
PACKED = zip_of({"xl/workbook.xml": SECRET}, zipfile.ZIP_LZMA)
# More of a FAT than the header knows, behind which no reader looks for the end of a ZIP.
_FAR = 140


def package(content: bytes) -> bytes:
    """What Word keeps of a file that was put into a text ([MS-OLEDS] 2.3.6)."""
    name = b"a.bin\0C:\\a.bin\0"
    body = b"\2\0" + name + struct.pack("<2HL", 0, 3, 9) + b"C:\\a.bin\0" + struct.pack("<L", len(content))
    return struct.pack("<L", len(body) + len(content)) + body + content


SEEN = {
    "a stream": {"x": SECRET},
    "a small one": {"x": EICAR, "y": NOISE[:300]},
    "one in storages": {"a/b/c/x": SECRET, "y": NOISE},
    "one beside a text": {"WordDocument": NOISE, "storage/x": SECRET},
    "one beside slides": {"PowerPoint Document": NOISE, "x": SECRET},
    "one beside macros": {"_VBA_PROJECT_CUR/VBA/_VBA_PROJECT": b"\xcc\x61" + NOISE[:99], "x": SECRET},
    "one beside a table": {"Workbook": workbook(drawings=False), "x": SECRET},
    "a new Office file": {"Package": DEFLATED},
    "a new Office file in a stream": {"1Table": b"\x12\x0f\x12\0" + NOISE + DEFLATED + bytes(900)},
    "an old Office file": {"x": compound({"y": SECRET}, shuffled=1)},
}


def hidden(secret: bytes) -> dict[str, bytes]:
    """Sound files in which clamd does not see `secret`."""
    packed, streams = zip_of({"a": secret}, zipfile.ZIP_LZMA), {"x": secret, "y": NOISE}
    long = workbook(drawings=False)[:26] + struct.pack("<2H", 5, 60_000) + bytes(60_000) + workbook()
    hangul = b"HWP Document File".ljust(32, b"\0") + b"\1\1\0\5\1" + bytes(219)
    return {
        "packed": compound({"Package": packed}),
        "packed, in pieces": compound({"x": bytes(500) + packed, "y": NOISE}, shuffled=5, fat_sectors=_FAR),
        "packed, inside": compound({"x": compound({"Package": packed}), "y": NOISE}),
        "in a 7z": compound({"x": sevenzip_of({"a": secret}, {"id": FILTER_BZIP2})}),
        "beside drawings": compound({"Workbook": workbook()} | streams),
        "beside an old workbook's": compound({"BOOK": workbook()} | streams),
        "beside drawings far behind": compound({"Workbook": long} | streams, shuffled=5),
        "in large sectors": compound({f"{i}": NOISE for i in range(6)} | streams, version=4),
        "in a Hangul file": compound({"FileHeader": hangul, "BinData/BIN0001.exe": secret}),
    }


def packed_zips() -> dict[str, bytes]:
    """Files with a ZIP that clamd does not open, whatever we make of that."""
    small = {"x": zip_of({"a": EICAR}, zipfile.ZIP_LZMA), "y": NOISE[:900]}
    streams = {"x": PACKED, "y": NOISE}
    inside = {"x": compound(streams, shuffled=3), "y": NOISE}
    packages = {"\1Ole10Native": package(PACKED), "y": NOISE}
    return {
        "in pieces at the end": compound(streams, shuffled=5),
        "in pieces": compound(streams, shuffled=5, fat_sectors=_FAR),
        "in small pieces": compound(small, shuffled=5, fat_sectors=_FAR),
        "in large sectors": compound(streams, shuffled=5, version=4, fat_sectors=20),
        "in a package": compound(packages),
        "in a package in pieces": compound(packages, shuffled=5, fat_sectors=_FAR),
        "behind something": compound({"x": NOISE + PACKED + bytes(70_000)}, shuffled=5, fat_sectors=_FAR),
        "two deep": compound(inside, shuffled=5, fat_sectors=_FAR),
        "in a ZIP": compound({"x": zip_of({"a": PACKED}), "y": NOISE}, shuffled=5, fat_sectors=_FAR),
    }


ENCRYPTED = {
    "new": {"EncryptedPackage": NOISE, "EncryptionInfo": bytes(300)},
    "new in a storage": {"storage/EncryptedPackage": NOISE},
    "text": {"WordDocument": b"\xec\xa5\xc1\0" + bytes(7) + b"\x13" + NOISE},
    "slides": {"Current User": bytes(12) + b"\xdf\xc4\xd1\xf3" + bytes(30), "PowerPoint Document": NOISE},
    "table": {"Workbook": struct.pack("<2H16x2H", 0x809, 16, 0x2F, 54) + NOISE},
    "old table": {"Book": struct.pack("<2H8x2H2H", 0x809, 8, 0x86, 0, 0x2F, 4) + NOISE},
}
