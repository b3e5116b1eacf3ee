"""Files as people send them, made from a seed: pictures, PDF, DOCX, films, text.

A maker takes a size in bytes and a generator of random numbers. Its file stays what it is when `TAIL` more
bytes follow; `FORMATS` says which, so that the same file can be had with ever new bytes.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from itertools import count
from random import Random
from typing import NamedTuple

from PIL import Image, ImageFilter

TAIL = 64
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

_PROBE = 256  # pixels: how large a picture gets is tried on a small one
_WORD_GENERATOR = Random(7)
_WORDS = [
    bytes(_WORD_GENERATOR.choices(b"abcdefghijklmnopqrstuvwxyz", k=_WORD_GENERATOR.randint(2, 11)))
    for _ in range(4000)
]


class Format(NamedTuple):
    """`make(size, rng)` gives the file; `tail(unique)` what follows it, with 52 bytes of the caller's."""

    mime: str
    make: Callable[[int, Random], bytes]
    tail: Callable[[bytes], bytes]


def text(size: int, rng: Random) -> bytes:
    """Lines of words."""
    lines = bytearray()
    while len(lines) < size:
        lines += b" ".join(rng.choices(_WORDS, k=14)) + rng.choice((b".\n", b",\n", b";\n"))
    return bytes(lines[:size])


def picture(size: int, rng: Random) -> bytes:
    """A JPEG of at most `size` bytes, as noisy as a photograph."""
    per_pixel = len(_noise(_PROBE, rng)) / _PROBE**2
    side = max(16, int((size / per_pixel) ** 0.5))
    while len(data := _noise(side, rng)) > size:
        side = int(side * 0.98)
    return data


def _noise(side: int, rng: Random) -> bytes:
    noise = Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side))
    file = io.BytesIO()
    noise.filter(ImageFilter.GaussianBlur(0.6)).save(file, "JPEG", quality=88)
    return file.getvalue()


def jpeg(size: int, rng: Random) -> bytes:
    """A picture, filled up with APP15 segments behind its first marker, as cameras do with their notes."""
    data = picture(size, rng)
    segments, missing = b"", size - len(data)
    while missing >= 6:
        length = min(missing - 4, 60_000)
        note = rng.randbytes(length).replace(b"\xff", b"\xfe")
        segments += b"\xff\xef" + struct.pack(">H", length + 2) + note
        missing -= length + 4
    return data[:2] + segments + data[2:] + bytes(missing)


def mp4(size: int, rng: Random) -> bytes:
    """Boxes of the right names around random bytes."""
    head = struct.pack(">I", 24) + b"ftypisom\0\0\2\0isomiso2" + struct.pack(">I", 108) + b"moov"
    head += rng.randbytes(100)
    length = size - len(head) - 8
    return head + struct.pack(">I", length + 8) + b"mdat" + rng.randbytes(length)


class _Pdf:
    """A PDF that grows by objects, with a true table of their places."""

    def __init__(self) -> None:
        self._data = bytearray(b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n")
        self._places: list[int] = []
        self.add(b"<< /Type /Catalog /Pages 2 0 R >>")
        self.add(b"<< /Type /Pages /Kids [] /Count 0 >>")

    def add(self, body: bytes) -> None:
        self._places.append(len(self._data))
        self._data += b"%d 0 obj\n" % len(self._places) + body + b"\nendobj\n"

    def add_stream(self, content: bytes, entries: bytes = b"") -> None:
        self.add(b"<< /Length %d %s>>\nstream\n%s\nendstream" % (len(content), entries, content))

    def room(self, size: int) -> int:
        """Bytes that one more stream may have for the whole to stay within `size`."""
        return size - len(self._data) - 20 * (len(self._places) + 3) - 300

    def closed(self, size: int) -> bytes:
        """The file, filled up with line feeds."""
        table = b"".join(b"%010d 00000 n \n" % place for place in self._places)
        entries, start = len(self._places) + 1, len(self._data)
        self._data += b"xref\n0 %d\n0000000000 65535 f \n%s" % (entries, table)
        self._data += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (entries, start)
        return bytes(self._data).ljust(size, b"\n")


def pdf(size: int, rng: Random) -> bytes:
    """Pages of compressed text and pictures by turns, no picture twice."""
    pictures = [picture(min(400_000, max(4000, size // 4)), rng) for _ in range(2)]
    document = _Pdf()
    for number in count():
        content = zlib.compress(text(30_000 if size > 100_000 else 3000, rng))
        entries = b"/Filter /FlateDecode "
        if number % 2:
            shown = pictures[number // 2 % 2]
            content = shown[:-2] + b"%08d" % number + shown[-2:]
            entries = b"/Type /XObject /Subtype /Image /Width 64 /Height 64 /Filter /DCTDecode "
        if len(content) > document.room(size):
            break
        document.add_stream(content, entries)
    document.add_stream(rng.randbytes(max(0, document.room(size))))
    return document.closed(size)


class Member(NamedTuple):
    """Of a ZIP."""

    name: str
    content: bytes
    method: int = zipfile.ZIP_DEFLATED


def zipped(members: list[Member]) -> bytes:
    """A ZIP that ends in the length of its comment: the tail is the comment."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member in members:
            info = zipfile.ZipInfo(member.name, (2024, 5, 6, 7, 8, 10))
            info.compress_type = member.method
            archive.writestr(info, member.content)
    return file.getvalue()[:-2] + struct.pack("<H", TAIL)


def docx(size: int, rng: Random, embedded: bytes | None = None) -> bytes:
    """Paragraphs and photographs, with `embedded` as an OLE object if it is given."""
    members = _paragraphs(min(max(3, size // 3000), 3000), rng)
    if embedded is not None:
        members.append(Member("word/embeddings/oleObject1.bin", embedded))
    for number in count():
        room = size - len(zipped(members)) - 400
        if room < 3000:
            break
        photograph = picture(min(room, 900_000), rng)
        members.append(Member(f"word/media/photo{number}.jpeg", photograph, zipfile.ZIP_STORED))
    missing = size - len(zipped([*members, _filling(b"")]))
    return zipped([*members, _filling(rng.randbytes(missing))])


def _filling(content: bytes) -> Member:
    return Member("docProps/thumb.bin", content, zipfile.ZIP_STORED)


def _paragraphs(number: int, rng: Random) -> list[Member]:
    """What every DOCX has."""
    schema = b"http://schemas.openxmlformats.org/package/2006/content-types"
    paragraphs = b"".join(b"<w:p><w:r><w:t>%s</w:t></w:r></w:p>" % text(200, rng) for _ in range(number))
    return [
        Member("[Content_Types].xml", b'<?xml version="1.0"?><Types xmlns="%s"/>' % schema),
        Member("_rels/.rels", b'<?xml version="1.0"?><Relationships/>'),
        Member("word/document.xml", b'<?xml version="1.0"?><w:document>%s</w:document>' % paragraphs),
    ]


def _ignored(unique: bytes) -> bytes:
    return b" uid %s      \n" % unique


def _pdf_comment(unique: bytes) -> bytes:
    return b"%%uid %s\n%%%%EOF\n" % unique


def _free_box(unique: bytes) -> bytes:
    return struct.pack(">I", TAIL) + b"free" + unique + bytes(4)


FORMATS = {
    "jpeg": Format("image/jpeg", jpeg, _ignored),
    "pdf": Format("application/pdf", pdf, _pdf_comment),
    "docx": Format(DOCX, docx, _ignored),
    "mp4": Format("video/mp4", mp4, _free_box),
    "text": Format("text/plain", text, _ignored),
}
