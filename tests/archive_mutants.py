"""Archives with something wrong in them: what a reader may, and another may not, forgive."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.archive_records import (
    ar_member,
    cpio_member,
    encryption_flag,
    frames,
    gzip_header,
    pax_header,
    same_zip_field,
    wrapped,
    zip64_extra,
)
from tests.archives import TEXT, streamed_zip_of, tar_of, zip_of

Mutation = Callable[[random.Random, bytes], bytes]

_SIGNATURES = (
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6",
    b"PK\7\10",
    b"PK\6\6",
    b"PK\6\7",
    b"ustar",
    b"7z\xbc\xaf\x27\x1c",
    b"\xfd7zXZ",
    b"BZh",
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
)
_VALUES = (
    b"\0",
    b"\xff",
    b"\1",
    b"\x08",
    b"\0\0",
    b"\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x2d\0",
    b"\x0e\0",
)
_PREFIXES = (
    b"x",
    b"\n",
    b"MZ" + bytes(62),
    b"#!/bin/sh\n",
    b"<html></html>",
    b"ID3\4" + bytes(20),
    b"OggS" + bytes(30),
    b"%PDF-1.4\n",
    b"\xff\xd8\xff\xe0" + bytes(40) + b"\xff\xd9",
    b"GIF89a" + bytes(30),
    b"PK00",
    b"PK\7\10",
    b"From: a\r\nTo: b\r\n\r\n",
    b"{\\rtf1 }",
    bytes(512),
    gzip.compress(TEXT),
    b"\x7fELF" + bytes(60),
    bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504),
    b"RIFF\x24\0\0\0WAVE",
    b"\0\0\0\x18ftypmp42" + bytes(12),
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """An archive of some kind after some mutations, by name."""

    data: bytes
    kind: str
    mutations: tuple[str, ...]


def mutate(chance: random.Random, archives: Mapping[str, bytes]) -> Mutant:
    """One of the archives after a few mutations, sometimes inside another one; up to 1 MiB."""
    kinds = sorted(archives)
    kind = chance.choice(kinds)
    data, mutations = archives[kind], []
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        mutation = chance.choice(_MUTATIONS)
        if mutation is _join:
            data = _join(chance, data, archives[chance.choice(kinds)])
        else:
            data = mutation(chance, data)
        mutations.append(mutation.__name__.strip("_"))
    return Mutant(data[: 1 << 20], kind, tuple(mutations))


def _structure(chance: random.Random, data: bytes) -> int:
    """The place of some signature, or any place."""
    signature = chance.choice(_SIGNATURES)
    places = [i for i in range(len(data)) if data.startswith(signature, i)]
    return chance.choice(places) if places else chance.randrange(len(data) + 1)


def _change_field(chance: random.Random, data: bytes) -> bytes:
    place = _structure(chance, data) + chance.randrange(50)
    value = chance.choice((*_VALUES, chance.randbytes(1), chance.randbytes(2)))
    return data[:place] + value + data[place + len(value) :] if place < len(data) else data


def _add_to_field(chance: random.Random, data: bytes) -> bytes:
    place, width = _structure(chance, data) + chance.randrange(50), chance.choice((1, 2, 4))
    if place + width > len(data):
        return data
    value = int.from_bytes(data[place : place + width], "little") + chance.choice((-16, -1, 1, 2, 16, 512))
    return data[:place] + (value % (1 << 8 * width)).to_bytes(width, "little") + data[place + width :]


def _flip(chance: random.Random, data: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.randbytes(1) + data[place + 1 :]


def _truncate(chance: random.Random, data: bytes) -> bytes:
    lengths = (1, 4, 10, 22, 23, 40, 70, 100, 512, 1024, chance.randrange(1, len(data) + 2))
    return data[: max(0, len(data) - chance.choice(lengths))]


def _behead(chance: random.Random, data: bytes) -> bytes:
    return data[chance.choice((1, 4, 30, 512, _structure(chance, data))) :]


def _join(chance: random.Random, data: bytes, other: bytes = b"") -> bytes:
    other = other or zip_of({"clean.txt": b"clean"})
    return data + other if chance.random() < 0.5 else other + data


def _join_clean(chance: random.Random, data: bytes) -> bytes:
    clean = {"clean.txt": b"clean"}
    return _join(
        chance,
        data,
        chance.choice((zip_of(clean), tar_of(clean), gzip.compress(b"clean"), zip_of({}), bytes(512))),
    )


def _gap(chance: random.Random, data: bytes) -> bytes:
    place = _structure(chance, data)
    fill = chance.choice(
        (bytes(1), bytes(16), bytes(512), b"junk", b"PK\5\6" + bytes(18), b"PK\3\4" + bytes(26))
    )
    return data[:place] + fill + data[place:]


def _cut(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted((_structure(chance, data), _structure(chance, data)))
    return data[:start] + data[end:]


def _repeat(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted((_structure(chance, data), _structure(chance, data)))
    place = chance.choice((end, len(data), _structure(chance, data)))
    return data[:place] + data[start:end] + data[place:]


def _prefix(chance: random.Random, data: bytes) -> bytes:
    return chance.choice(_PREFIXES) + data


def _suffix(chance: random.Random, data: bytes) -> bytes:
    return data + chance.choice(
        (b"x", bytes(22), bytes(70_000), b"PK\5\6" + bytes(18), b"junk" * 5, bytes(1024))
    )


def _reseal_tar(chance: random.Random, data: bytes) -> bytes:
    """Another field of a tar header, under a checksum that is right again."""
    blocks = [i for i in range(0, len(data) - 512, 512) if data[i + 257 : i + 262] == b"ustar"]
    if not blocks:
        return _change_field(chance, data)
    at = chance.choice(blocks)
    header = bytearray(data[at : at + 512])
    place = chance.choice((0, 100, 124, 128, 134, 156, 157, 257, 263, 345, 480, chance.randrange(512)))
    value = chance.choice(
        (b"S", b"L", b"x", b"1", b"5", b"7", b"\x80", b"\0", b"000", b"ID3", b"MZ", chance.randbytes(1))
    )
    header[place : place + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header[:512]) + data[at + 512 :]


def _zip64_record(chance: random.Random, data: bytes) -> bytes:
    """A ZIP64 end record and its locator before the end record, pointing somewhere."""
    end = data.rfind(b"PK\5\6")
    if end < 0:
        return _gap(chance, data)
    size, offset = (int.from_bytes(data[end + i : end + i + 4], "little") for i in (12, 16))
    entries = int.from_bytes(data[end + 10 : end + 12], "little")
    where = chance.choice((offset, 0, offset + 30))
    fields = [44, 45 | 45 << 16, 0, entries, entries, size, where]
    record = b"PK\6\6" + b"".join(value.to_bytes(8, "little") for value in fields)
    locator = b"PK\6\7" + bytes(4) + end.to_bytes(8, "little") + b"\1\0\0\0"
    tail = data[end:]
    if chance.random() < 0.5:
        tail = tail[:8] + b"\xff" * 12 + tail[20:]
    return data[:end] + record + locator + tail


def _nest(chance: random.Random, data: bytes) -> bytes:
    name = chance.choice(("inner", "a.zip", "mimetype", "META-INF/x", "d/", "ID3.mp3"))
    pack: Callable[[], bytes] = chance.choice(
        (
            lambda: zip_of({name: data}),
            lambda: zip_of({name: data, "text": TEXT}, zipfile.ZIP_STORED),
            lambda: streamed_zip_of({name: data}),
            lambda: tar_of({name: data, "text": TEXT}),
            lambda: gzip.compress(data),
            lambda: bz2.compress(data),
            lambda: lzma.compress(data),
        )
    )
    return pack()


def _reseal_7z(chance: random.Random, data: bytes) -> bytes:
    """Another byte in a 7z header, under checksums that are right again."""
    if not data.startswith(b"7z\xbc\xaf\x27\x1c") or len(data) < 40:
        return _flip(chance, data)
    offset, size = (int.from_bytes(data[i : i + 8], "little") for i in (12, 20))
    header = bytearray(data[32 + offset : 32 + offset + size])
    if not header or len(header) != size:
        return _flip(chance, data)
    header[chance.randrange(len(header))] = chance.choice((0, 1, 2, 3, 9, 0x21, chance.randrange(256)))
    start = data[12:28] + zlib.crc32(header).to_bytes(4, "little")
    return data[:8] + zlib.crc32(start).to_bytes(4, "little") + start + data[32 : 32 + offset] + bytes(header)


_MUTATIONS: tuple[Mutation, ...] = (
    _change_field,
    _change_field,
    _add_to_field,
    _add_to_field,
    _flip,
    _truncate,
    _behead,
    _join,
    _join_clean,
    _gap,
    _cut,
    _repeat,
    _prefix,
    _suffix,
    _reseal_tar,
    _zip64_record,
    _nest,
    _nest,
    _reseal_7z,
    same_zip_field,
    encryption_flag,
    zip64_extra,
    frames,
    gzip_header,
    ar_member,
    cpio_member,
    pax_header,
    wrapped,
    wrapped,
)
