"""Files to upload. Each is unlike any other, so that no verdict is known beforehand."""

from __future__ import annotations

import io
import os
import secrets
import struct
import zipfile
import zlib


def text() -> bytes:
    """A clean text."""
    return f"Dear Bob, the number is {secrets.token_hex(32)}.\n".encode()


def zeros() -> bytes:
    """A clean file of no known type, several pieces long."""
    return bytes(1_000_000) + secrets.token_bytes(32)


def eicar() -> bytes:
    """The test file of eicar.org; assembled here, so that this file is not a detection itself."""
    return rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"


def infected_zip() -> bytes:
    """A ZIP archive of a clean text and the EICAR file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("letter.txt", text())
        members.writestr("invoice.com", eicar())
    return archive.getvalue()


def png(width: int = 320, height: int = 240) -> bytes:
    """A valid picture of noise."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + os.urandom(3 * width) for _ in range(height))
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
