"""Files that show how a clamd is set up: each has EICAR in a place that one setting decides about.

The rule of this module: EICAR is always a file of its own, 68 bytes and no more. ClamAV's real signatures
find it as such only, not as a part of something else.
"""

from __future__ import annotations

import base64
import io
import os
import zipfile
import zlib
from functools import cache

from scanner.canary import EICAR

_MIB = 2**20
# More than clamd allows MaxRecursion to be.
_TOO_DEEP = 120


def archive(*fillings: int) -> bytes:
    """A ZIP of files of so many zeros, and EICAR as the last one."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for number, size in enumerate(fillings):
            file.writestr(f"filling-{number}", bytes(size))
        file.writestr("eicar.com", EICAR)
    return packed.getvalue()


def nested_archive(depth: int) -> bytes:
    """ZIPs in each other, EICAR in the innermost one."""
    content = EICAR
    for _ in range(depth):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("inner", content)
        content = packed.getvalue()
    return content


def too_deep_archive() -> bytes:
    """Deeper than any clamd looks."""
    return nested_archive(_TOO_DEEP)


def large_archive(size: int) -> bytes:
    """A ZIP of `size` bytes, EICAR at its end."""
    mebibytes, rest = divmod(max(0, size - len(_stored(0, 0))), _MIB)
    return _stored(mebibytes, rest)


def _stored(mebibytes: int, rest: int) -> bytes:
    packed, noise = io.BytesIO(), os.urandom(_MIB)
    with zipfile.ZipFile(packed, "w") as file:
        with file.open("filling", "w") as filling:
            for _ in range(mebibytes):
                filling.write(noise)
            filling.write(noise[:rest])
        file.writestr("eicar.com", EICAR)
    return packed.getvalue()


@cache
def archive_of_large_file(mebibytes: int) -> bytes:
    """A small ZIP that holds one file a little above `mebibytes`: itself a ZIP, EICAR at its end."""
    packed, zeros = io.BytesIO(), bytes(_MIB)
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as outer,
        outer.open("large", "w") as large,
        zipfile.ZipFile(large, "w") as inner,
    ):
        with inner.open("filling", "w") as filling:
            for _ in range(mebibytes):
                filling.write(zeros)
        inner.writestr("eicar.com", EICAR)
    return packed.getvalue()


def encrypted_archive() -> bytes:
    """A ZIP whose one file is marked as encrypted (APPNOTE 4.4.4, bit 0)."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("secret", os.urandom(64))
    marked = bytearray(packed.getvalue())
    marked[6] |= 1
    marked[marked.index(b"PK\x01\x02") + 8] |= 1
    return bytes(marked)


def pdf() -> bytes:
    """One page, whose content is EICAR, compressed."""
    content = zlib.compress(EICAR)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>",
        b"<</Filter/FlateDecode/Length %d>>\nstream\n%s\nendstream" % (len(content), content),
    ]
    written, table = b"%PDF-1.4\n", b"0000000000 65535 f \n"
    for number, text in enumerate(objects, 1):
        table += b"%010d 00000 n \n" % len(written)
        written += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    trailer = b"trailer\n<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(written)
    return written + b"xref\n0 5\n" + table + trailer


def mail() -> bytes:
    """A message with EICAR attached."""
    head = (
        "From: doctor@example.org\r\nTo: clamd@example.org\r\nSubject: probe\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/mixed; boundary="part"\r\n\r\n--part\r\n'
        'Content-Type: application/octet-stream; name="eicar.com"\r\n'
        "Content-Transfer-Encoding: base64\r\n"
        'Content-Disposition: attachment; filename="eicar.com"\r\n\r\n'
    )
    return head.encode() + base64.encodebytes(EICAR) + b"\r\n--part--\r\n"
