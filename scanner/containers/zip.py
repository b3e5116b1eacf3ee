"""ZIP written the one way in which all readers agree: records, directory and end record tile the file.

Readers differ in where they look: Python and unzip start from the last end record, clamd from the
directory, bsdtar in a pipe from the first byte, 7-Zip from anywhere. Where every byte belongs to exactly
one record, and both descriptions of each member agree, they all see the same. What innocent writers do beyond
APPNOTE.TXT is in facts/archives.md. A ZIP is *crooked* where bytes belong to no record, but nobody can take
them for anything: two readers must then see the same in it.
"""

from __future__ import annotations

import re
import zlib
from itertools import islice

from scanner.containers.inspection import SEARCHED, STEP, Inspection, Part, Unsure, require
from scanner.containers.readers import Reader
from scanner.containers.streams import Inflater
from scanner.containers.zip_directory import (
    DEFLATED,
    DESCRIPTOR,
    LOCAL,
    STORED,
    End,
    Entry,
    behind_descriptor,
    entries,
    last_end,
    record_of,
    whole_end,
)
from scanner.verdict import Reason

# Clamd unpacks the first two wherever all readers do. Libarchive, too: LZMA, zstd, xz, PPMd and bzip2.
_PLAIN = (STORED, DEFLATED)
_BZIP2, _LZMA = 12, 14
_METHODS = (*_PLAIN, _BZIP2, _LZMA, 93, 95, 98)
_ZIPFILE_METHODS = (*_PLAIN, _BZIP2, _LZMA)

_SIGNING_BLOCK_MAGIC = b"APK Sig Block 42"
_ODF_MANIFEST = b"META-INF/manifest.xml"
_MAX_MANIFEST = 4 * 1024 * 1024
# What may stand before the first record: clamd looks for ZIPs behind it (tried).
_PREFIXES = (b"MZ", b"\x7fELF", b"#!", b"\xd0\xcf\x11\xe0")
_RECORD = re.compile(rb"PK[\x00-\x08]")
# Krita leaves an unlisted record before the real one, with letters where its CRC and sizes should be.
_STRAY_MIMETYPE = re.compile(rb"PK\x03\x04..\x00{4}.{16}\x08\x00{3}mimetype[a-z]+/[a-z0-9.+-]+", re.DOTALL)


def zip_end(part: Part) -> int | None:
    """Where the end record is by which a reader that starts from the end would take the part for a ZIP."""
    end = last_end(part)
    return None if end is None else end.position


def without_rest(part: Part) -> Part:
    """The part up to the end of its last end record, where a ZIP lies inside another container."""
    end = last_end(part)
    return part if end is None else part.slice(0, end.behind)


def check_zip(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless this ZIP is plain, sound or crooked."""
    end = last_end(part)
    if end is None:
        raise Unsure(Reason.DAMAGED)
    end = whole_end(part, end)
    members = sorted(entries(part, end, inspection), key=lambda entry: entry.offset)
    _check_directory(end, members, inspection)
    _check_rest(part, end, inspection)
    base = end.directory - end.offset
    position = _start(part, base, members, inspection)
    for entry in members:
        _check_gap(part, position, entry.offset + base, inspection)
        position = _check_member(part, entry.offset + base, entry, inspection)
    if not _is_signing_block(part, position, end.directory):
        _check_gap(part, position, end.directory, inspection)


def _check_directory(end: End, members: list[Entry], inspection: Inspection) -> None:
    """Who can open it, and whether somebody must; libarchive gives no data of what is special."""
    readable = [entry for entry in members if not entry.encrypted]
    require(all(entry.method in _METHODS for entry in readable))
    if any(entry.special and entry.size for entry in readable):
        by_zipfile = all(entry.method in _ZIPFILE_METHODS for entry in readable)
        inspection.opened_by(*[Reader.ZIPFILE] * by_zipfile)
    if len(readable) < len(members):
        inspection.is_encrypted(Reason.ENCRYPTED_ARCHIVE)
        inspection.must_be_opened()
    if end.directory_end != end.position or any(e.zip64 or e.method not in _PLAIN for e in members):
        inspection.must_be_opened()


def _check_rest(part: Part, end: End, inspection: Inspection) -> None:
    """The comment, and what is behind it: bsdtar leaves up to 10 KB of zeros there."""
    require(end.behind <= part.size, Reason.DAMAGED)
    require(b"PK" not in part.read(end.comment, end.comment_size))
    if not part.zeros(end.behind):
        _check_junk(part, end.behind, part.size, inspection)


def _start(part: Part, base: int, members: list[Entry], inspection: Inspection) -> int:
    """Where the first record must be: at the first byte, or behind an executable's image or `#!` line.

    `base` is what offsets count from: the first byte of the file, or the first record. Behind a prefix clamd
    goes from record to record, for which each must tell its size (tried).
    """
    start = base
    if not base and members and part.read(0, 4) != b"PK\3\4":
        start = members[0].offset
    if start:
        known = part.zips_seen or part.read(0, 4).startswith(_PREFIXES)
        if known and members and not any(entry.flags & DESCRIPTOR for entry in members):
            require(inspection.inside(part.slice(0, start)) is None)
        else:
            _check_junk(part, 0, start, inspection)
    return start


def _check_gap(part: Part, position: int, record: int, inspection: Inspection) -> None:
    """Between two records there is nothing, or what nobody takes for anything."""
    require(position <= record)
    if _behind_padding(part, position, record) != record:
        _check_junk(part, position, record, inspection)


def _behind_padding(part: Part, position: int, record: int) -> int:
    """Android's tools fill gaps with nameless records that hold a time at most, and zeros."""
    while position < record:
        header = part.read(position, LOCAL.size)
        extra_size = int.from_bytes(header[28:], "little")
        if header[:4] != b"PK\3\4" or (header[4:10] + header[14:28]).strip(b"\0"):
            break
        if part.read(position + LOCAL.size, extra_size).strip(b"\0"):
            break
        position += LOCAL.size + extra_size
    return position


def _check_junk(part: Part, begin: int, end: int, inspection: Inspection) -> None:
    """Bytes that belong to no record, and in which no reader finds one or any other container."""
    junk = part.slice(begin, end - begin)
    require(junk.size <= SEARCHED)
    if not _STRAY_MIMETYPE.fullmatch(content := junk.read(0, junk.size)):
        require(not _RECORD.search(content) and inspection.container(junk) is None)
    inspection.opened_by(Reader.LIBARCHIVE, Reader.ZIPFILE)
    inspection.must_be_opened()


def _is_signing_block(part: Part, position: int, directory: int) -> bool:
    """Whether the signatures of an APK (v2 and later) fill the space between the two places."""
    size = directory - position
    if size < 32 or part.read(directory - 16, 16) != _SIGNING_BLOCK_MAGIC:
        return False
    block = part.read(position, size)
    return block[:8] == block[-24:-16] == (size - 8).to_bytes(8, "little") and b"PK\3\4" not in block


def _check_member(part: Part, position: int, entry: Entry, inspection: Inspection) -> int:
    """One record with its data and descriptor; gives the offset behind it."""
    record = record_of(part, position, entry)
    if not record.seen_by_clamd:
        inspection.must_be_opened()
    if entry.encrypted:
        _check_encrypted(record.data, entry, inspection)
    else:
        _check_readable(record.data, entry, inspection)
    if entry.flags & DESCRIPTOR:
        return behind_descriptor(part, record.behind, entry)
    return record.behind


def _check_readable(data: Part, entry: Entry, inspection: Inspection) -> None:
    if not inspection.opened:
        _check_data(data, entry, inspection)
    if entry.name == _ODF_MANIFEST and entry.method in _PLAIN and _tells_of_encryption(data, entry):
        inspection.is_encrypted(Reason.ENCRYPTED_DOCUMENT)
        inspection.must_be_opened()


def _check_data(data: Part, entry: Entry, inspection: Inspection) -> None:
    if entry.method == DEFLATED:
        inflater = Inflater(data, 0, -zlib.MAX_WBITS)
        size, crc = inspection.unpack(inflater.pieces(), data.size)
        require(inflater.end == data.size and size == entry.size, Reason.DAMAGED)
    else:
        require(entry.packed == entry.size)
        inspection.look_into(data)
        crc = data.crc32()
    require(crc == entry.crc, Reason.DAMAGED)


def _check_encrypted(data: Part, entry: Entry, inspection: Inspection) -> None:
    """Unsure where it needs no password but says so: there are readers who do not look (Go's archive/zip)."""
    if entry.method == STORED:
        require(entry.packed > entry.size or not entry.packed)
    elif entry.method == DEFLATED:
        require(not _is_deflated(data, entry, inspection))


def _is_deflated(data: Part, entry: Entry, inspection: Inspection) -> bool:
    inflater, size, crc = Inflater(data, 0, -zlib.MAX_WBITS), 0, 0
    try:
        for piece in inflater.pieces():
            inspection.spend(len(piece))
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    except Unsure as unsure:
        if unsure.reason is not Reason.DAMAGED:
            raise
        return False
    return (size, crc) == (entry.size, entry.crc)


def _tells_of_encryption(data: Part, entry: Entry) -> bool:
    """An OpenDocument's list of files says which ones are encrypted, in any encoding of Unicode."""
    text = data.read(0, _MAX_MANIFEST)
    if entry.method == DEFLATED:
        text = b"".join(islice(Inflater(data, 0, -zlib.MAX_WBITS).pieces(), _MAX_MANIFEST // STEP))
    return b"encryption-data" in text.replace(b"\0", b"")
