"""Mutations that know how a format is built: records that agree with each other, and say something else."""

from __future__ import annotations

import binascii
import random
import struct
import tempfile
import zipfile
from pathlib import Path

import libarchive

from tests.archives import TEXT, zip_of

_CENTRAL, _LOCAL, _END = b"PK\1\2", b"PK\3\4", b"PK\5\6"
# Where a central record has what its local one has 2 bytes earlier: version, flags, method, ..., lengths.
_SHARED_FIELDS = ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2))
_METHODS = (0, 1, 6, 8, 8, 9, 10, 12, 14, 93, 95, 97, 98, 99, 0xFFFF)
_FORMATS = ("zip", "pax", "gnutar", "cpio", "cpio_newc", "ar_bsd", "ar_svr4", "7zip", "xar", "warc")
_FILTERS = ("gzip", "bzip2", "xz", "lzma", "lzip", "zstd", "lz4", "compress", "uuencode", "b64encode")
_ZIP_METHODS = (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)


def records_of_a_zip(data: bytes) -> list[tuple[int, int]]:
    """Offsets of each central record and its local one, where both are in place."""
    end = data.rfind(_END)
    if end < 0 or len(data) < end + 22:
        return []
    place = int.from_bytes(data[end + 16 : end + 20], "little")
    found = []
    while data.startswith(_CENTRAL, place) and len(data) >= place + 46:
        lengths = struct.unpack_from("<3H", data, place + 28)
        (local,) = struct.unpack_from("<I", data, place + 42)
        if data.startswith(_LOCAL, local):
            found.append((place, local))
        place += 46 + sum(lengths)
    return found


def same_zip_field(chance: random.Random, data: bytes) -> bytes:
    """A field of one entry, changed in both of its records alike."""
    records = records_of_a_zip(data)
    if not records:
        return data
    central, local = chance.choice(records)
    place, width = chance.choice(_SHARED_FIELDS)
    value = chance.choice((chance.randbytes(width), bytes(width), b"\xff" * width))
    if place == 10:
        value = chance.choice(_METHODS).to_bytes(2, "little")
    return _put(_put(data, central + place, value), local + place - 2, value)


def encryption_flag(chance: random.Random, data: bytes) -> bytes:
    """One entry says, or does not say any more, that it is encrypted: in both of its records or in one."""
    records = records_of_a_zip(data)
    if not records:
        return data
    central, local = chance.choice(records)
    for place in chance.choice(((central + 8, local + 6), (central + 8,), (local + 6,))):
        data = _put(data, place, bytes([data[place] ^ chance.choice((0x01, 0x01, 0x41))]))
    return data


def zip64_extra(chance: random.Random, data: bytes) -> bytes:
    """A ZIP64 extra field in one record, with the sizes or something else."""
    records = records_of_a_zip(data)
    if not records:
        return data
    central, local = chance.choice(records)
    sizes = struct.unpack_from("<II", data, central + 20)
    values = (sizes[1], sizes[0], local)[: chance.choice((1, 2, 2, 3))]
    if chance.random() < 0.3:
        values = tuple(chance.choice((0, value, value + 1, 1 << 33)) for value in values)
    field = b"".join(value.to_bytes(8, "little") for value in values)
    extra = struct.pack("<HH", 1, len(field) + chance.choice((0, 0, 0, 0, -8, 8))) + field
    hide = b"\xff" * 4 * min(2, len(values)) if chance.random() < 0.7 else b""
    if chance.random() < 0.5:
        return with_extra(data, local, 30, 26, 18, extra, hide)
    return with_extra(data, central, 46, 28, 20, extra, hide)


def with_extra(
    data: bytes, record: int, fixed: int, lengths: int, sizes: int, extra: bytes, hide: bytes
) -> bytes:
    """The record with an extra field more; what lies behind moves, the end record is told so."""
    name, old = struct.unpack_from("<HH", data, record + lengths)
    data = _put(data, record + lengths + 2, struct.pack("<H", (old + len(extra)) % 65536))
    data = _put(data, record + sizes, hide)
    place = record + fixed + name
    data = data[:place] + extra + data[place:]
    end = data.rfind(_END)
    size, offset = struct.unpack_from("<II", data, end + 12)
    moved = (size, offset + len(extra)) if fixed == 30 else (size + len(extra), offset)
    return _put(data, end + 12, struct.pack("<II", *(value % (1 << 32) for value in moved)))


def frames(chance: random.Random, data: bytes) -> bytes:
    """Frames or members that carry nothing, or something else, before, behind or both."""
    skipped = chance.randbytes(chance.choice((0, 4, 20)))
    frame = chance.choice(
        (
            b"\x50\x2a\x4d\x18" + len(skipped).to_bytes(4, "little") + skipped,
            b"\x5f\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"PK\5\6",
            packed(b"", chance.choice(_FILTERS[:6])),
            packed(TEXT, chance.choice(_FILTERS[:8])),
            bytes(chance.choice((1, 4, 8, 512))),
        )
    )
    return chance.choice((frame + data, data + frame, frame + data + frame))


def gzip_header(chance: random.Random, data: bytes) -> bytes:
    """Optional fields of a gzip header, well-formed or not."""
    if not data.startswith(b"\x1f\x8b\x08\0"):
        return data
    flags = chance.randrange(64)
    fields = b""
    if flags & 4:
        fields += struct.pack("<H", chance.choice((0, 4, 4, 9))) + b"BC\0\0"
    fields += b"name\0" * bool(flags & 8) + b"comment\0" * bool(flags & 16)
    header = data[:3] + bytes([flags]) + data[4:10] + fields
    if flags & 2:
        header += (binascii.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header + data[10:]


def ar_member(chance: random.Random, data: bytes) -> bytes:
    """Another field in an ar header, or another member."""
    places = [i for i in range(58, len(data)) if data.startswith(b"`\n", i)]
    if not data.startswith(b"!<arch>\n") or not places:
        return data
    start = chance.choice(places) - 58
    if chance.random() < 0.4:
        member = chance.choice((b"//", b"/", b"#1/8", b"x/", b"debian-binary")).ljust(16)
        member += b"0".ljust(12) + b"0".ljust(6) * 2 + b"644".ljust(8) + b"8".ljust(10) + b"`\nabcdefg\n"
        return data[:start] + member + data[start:]
    place, width = chance.choice(((0, 16), (16, 12), (48, 10), (48, 10), (58, 2)))
    value = chance.choice((b"#1/20", b"//", b"/0", b"0", b"60", b"999999", b"-1", b"0x10", b"`\n"))
    return _put(data, start + place, value.ljust(width)[:width])


def cpio_member(chance: random.Random, data: bytes) -> bytes:
    """Another field in a portable cpio header, the trailer earlier, or the archive twice."""
    places = [i for i in range(len(data)) if data.startswith((b"070701", b"070702", b"070707"), i)]
    if not places or not data.startswith(b"0707"):
        return data
    choice = chance.random()
    if choice < 0.2:
        return data + bytes(chance.choice((0, 4, 512))) + data
    place = chance.choice(places)
    if choice < 0.4:
        return data[:place] + data[places[-1] :] + data[place:]
    digit = place + chance.choice((5, 6 + 8 * chance.randrange(13) + 7, chance.randrange(110)))
    return _put(data, digit, chance.choice((b"0", b"1", b"8", b"f", b"x")))


def pax_header(chance: random.Random, data: bytes) -> bytes:
    """A header of pax or GNU tar before one of the entries, that changes what follows."""
    blocks = [i for i in range(0, len(data) - 512, 512) if data[i + 257 : i + 262] == b"ustar"]
    if not blocks:
        return data
    at = chance.choice(blocks)
    key, value = chance.choice(
        (
            ("size", "0"),
            ("size", "68"),
            ("size", "9999"),
            ("path", "other"),
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.size", "68"),
            ("GNU.sparse.map", "0,68"),
            ("comment", "x" * 600),
            ("hdrcharset", "BINARY"),
            ("linkpath", "x"),
            ("SCHILY.realsize", "68"),
        )
    )
    content = _pax_record(key, value)
    if chance.random() < 0.2:
        content = _put(content, 0, chance.choice((b"0", b"99", b"-1", b" ")))
    return data[:at] + _tar_entry(chance.choice((b"x", b"x", b"g", b"L", b"K")), content) + data[at:]


def _pax_record(key: str, value: str) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return f"{length} {key}={value}\n".encode()


def _tar_entry(kind: bytes, content: bytes) -> bytes:
    header = bytearray(512)
    header[:8] = b"././@pax"
    header[100:108] = b"0000644\0"
    header[124:136] = b"%011o\0" % len(content)
    header[148:157] = b" " * 8 + kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)


def packed(data: bytes, method: str) -> bytes:
    """The bytes behind one of libarchive's filters; it crashes where lz4 has nothing to pack (3.6.2)."""
    if not data and method == "lz4":
        return b""
    return _written("raw", method, {"data": data})


def wrapped(chance: random.Random, data: bytes) -> bytes:
    """The bytes in an archive, a stream or both, of the kinds that clamd does not open too."""
    choice = chance.random()
    name = chance.choice(("inner", "inner.zip", "a/b", "control.tar.gz"))
    if choice < 0.35:
        return packed(data, chance.choice(_FILTERS))
    if choice < 0.45:
        return zip_of({name: data, "text": TEXT}, chance.choice(_ZIP_METHODS))
    files = {"text": TEXT, name: data} if chance.random() < 0.5 else {name: data, "text": TEXT}
    return _written(
        chance.choice(_FORMATS), chance.choice(_FILTERS[:8]) if chance.random() < 0.3 else None, files
    )


def _written(form: str, method: str | None, files: dict[str, bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "file"
        with libarchive.file_writer(str(target), form, method) as archive:
            for name, content in files.items():
                archive.add_file_from_memory(name, len(content), content)
        return target.read_bytes()


def _put(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]
