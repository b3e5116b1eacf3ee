"""PDFs with files attached, in the ways that programs write and in some that none does."""

from __future__ import annotations

import zlib
from collections.abc import Mapping


def pdf_of(objects: Mapping[int, bytes], end: bytes = b"") -> bytes:
    """With a table of references, as all readers want it; the first object is the root."""
    content, places = b"%PDF-1.7\n", dict[int, int]()
    for number, body in objects.items():
        places[number] = len(content)
        content += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    size, table = max(places) + 1, len(content)
    rows = (b"%010d 00000 n \n" % places[n] if n in places else b"%010d 65535 f \n" % 0 for n in range(size))
    content += b"xref\n0 %d\n" % size + b"".join(rows)
    return content + b"trailer\n<< /Size %d /Root 1 0 R %b>>\nstartxref\n%d\n%%%%EOF\n" % (size, end, table)


def stream(data: bytes, said: bytes = b"") -> bytes:
    return b"<< %b /Length %d >>\nstream\n%b\nendstream" % (said, len(data), data)


def deflated(content: bytes, said: bytes = b"") -> bytes:
    return stream(zlib.compress(content), b"/Filter /FlateDecode " + said)


def attached(content: bytes, **others: bytes) -> bytes:
    """A PDF with this object attached as `a.bin`; `others` replace parts of it."""
    parts = {
        "files": b"<< /Names [(a.bin) 5 0 R] >>",
        "specification": b"<< /Type /Filespec /F (a.bin) /EF << /F 4 0 R >> >>",
        "page": b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] >>",
    } | others
    return pdf_of(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R /Names << /EmbeddedFiles %b >> >>" % parts["files"],
            2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            3: parts["page"],
            5: parts["specification"],
            4: content,
        }
    )


def in_object_stream(objects: Mapping[int, bytes], said: bytes = b"") -> bytes:
    """A stream that holds these objects."""
    places, content = list[bytes](), b""
    for number, body in objects.items():
        places.append(b"%d %d" % (number, len(content)))
        content += body + b"\n"
    header = b" ".join(places) + b"\n"
    numbers = b"/Type /ObjStm /N %d /First %d " % (len(objects), len(header))
    return deflated(header + content, numbers + said)
