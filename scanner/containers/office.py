"""Old Office files, and whatever else is a compound file: what clamd sees of their streams.

It reads the directory as `ole2` does, scans each stream like a file of its own, and finds in it what it would
find in such a file (tried, 1.4.6). Where not (`_is_misread`, `_is_hidden`), the streams are taken out by us.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from scanner.containers.embedded import contains_container
from scanner.containers.inspection import SEARCHED, STEP, Inspection, Part, require
from scanner.containers.ole2 import CompoundFile, Stream
from scanner.containers.readers import Reader
from scanner.containers.tar import begins_tar_later
from scanner.containers.zip import check_zip, without_rest, zip_end
from scanner.verdict import Reason

# Of a small file each piece would be read by itself, and more than once.
_AT_ONCE = 4 * 1024 * 1024
_ZIP = b"PK\3\4"
# Word's own, and small numbers: the types that clamd leaves alone begin with neither.
_SEARCHED_BY_CLAMD = (b"\xec\xa5", *(bytes([low]) for low in range(0x20)))
_WORKBOOKS = ("workbook", "book")
_RECORD = struct.Struct("<2H")
_DRAWINGS = b"\xeb\0"
_FILE_PASS, _FILE_PASS_WITHIN = 0x2F, 4
_ZLIB_AT, _ZLIB = 4, b"\x78\x9c"
_HANGUL = b"HWP Document File"
# Where clamd looks for the key of a file that opens without a password, and what it wants there: AES-128.
_KEY_SECTOR, _ALGORITHM_AT, _AES_128 = 4, 20, b"\x0e\x66\0\0"
# [MS-DOC] 2.5.2 (FibBase), [MS-PPT] 2.3.2 (CurrentUserAtom).
_WORD_FLAGS_AT, _WORD_ENCRYPTED = 11, 0x01
_SLIDES_TOKEN_AT, _SLIDES_ENCRYPTED = 12, b"\xdf\xc4\xd1\xf3"


def check_ole2(part: Part, inspection: Inspection) -> None:
    """Raises Unsure unless all readers see the same streams, and nothing but streams."""
    if part.size <= _AT_ONCE:
        part = Part.of(part.read(0, part.size))
    compound = CompoundFile(part)
    streams = list(compound.streams())
    _check_end(part, streams, inspection)
    _check_rest(part, [stream for stream in streams if _check_stream(stream, inspection)], inspection)
    if any(_is_encrypted(stream) for stream in streams):
        inspection.is_encrypted(Reason.ENCRYPTED_DOCUMENT)
    if _is_misread(part, compound) or any(_is_hidden(stream, inspection) for stream in streams):
        inspection.must_be_opened()
    inspection.opened_by(Reader.OLE2)


def _check_stream(stream: Stream, inspection: Inspection) -> bool:
    """Whether it is a container that has been looked into, to its last byte."""
    inspection.member()
    content = _as_searched_by_clamd(stream)
    found = inspection.container(content)
    if found is None:
        return False
    if found.kind == "zip" and content.zips_seen and content.read(0, 4) != _ZIP:
        check_zip(without_rest(content), inspection)
        return False
    inspection.look_into(content)
    return found.kind != "pdf"


def _as_searched_by_clamd(stream: Stream) -> Part:
    """It finds ZIPs wherever they begin: in the file, and in a stream but for some types."""
    content = stream.content
    if stream.offset is None and content.size <= _AT_ONCE:
        content = Part.of(content.read(0, content.size))
    if stream.offset is not None or content.read(0, 2).startswith(_SEARCHED_BY_CLAMD):
        return content.with_zips_seen()
    return content


def _check_end(part: Part, streams: Sequence[Stream], inspection: Inspection) -> None:
    """A file that ends as a ZIP does so by a stream, or is plain as a ZIP, too."""
    end = zip_end(part)
    if end is not None and not any(_ends_at(stream, end) for stream in streams):
        check_zip(without_rest(part), inspection)
        require(not inspection.opened)


def _ends_at(stream: Stream, end: int) -> bool:
    """Whether this is the place of its end as a ZIP."""
    if stream.offset is None or not stream.offset <= end < stream.offset + stream.content.size:
        return False
    return zip_end(stream.content) == end - stream.offset


def _check_rest(part: Part, containers: Sequence[Stream], inspection: Inspection) -> None:
    """Whoever does not know the directory finds a container anywhere; these have been looked into."""
    raw, begin = part.with_zips_seen(), 0
    places = sorted(
        (stream.offset, stream.content.size) for stream in containers if stream.offset is not None
    )
    for place, size in [*places, (SEARCHED, 0)]:
        inspection.check_time()
        require(not contains_container(raw, begin, min(place, SEARCHED)))
        begin = place + size
    require(not begins_tar_later(part))


def _is_encrypted(stream: Stream) -> bool:
    """Whether the file is behind a password ([MS-OFFCRYPTO] 2.3, 2.5)."""
    name, content = stream.name.lower(), stream.content
    if name == "worddocument":
        return bool(sum(content.read(_WORD_FLAGS_AT, 1)) & _WORD_ENCRYPTED)
    if name == "current user":
        return content.read(_SLIDES_TOKEN_AT, 4) == _SLIDES_ENCRYPTED
    if name in _WORKBOOKS:
        return _has_password(content)
    return name == "encryptedpackage"


def _is_misread(part: Part, compound: CompoundFile) -> bool:
    """Whether clamd takes sectors for smaller ones, or decrypts streams, encrypted or not."""
    key = part.read(_KEY_SECTOR * compound.sector + _ALGORITHM_AT, len(_AES_128))
    return compound.version != 3 or key == _AES_128


def _is_hidden(stream: Stream, inspection: Inspection) -> bool:
    """Whether clamd unpacks this stream and does not scan it as it is, or scans none beside it."""
    name, content = stream.name.lower(), stream.content
    if content.read(_ZLIB_AT, 2) == _ZLIB:
        return True
    if name == "fileheader":
        return content.read(0, len(_HANGUL)) == _HANGUL
    return name in _WORKBOOKS and _has_drawings(content, inspection)


def _has_drawings(workbook: Part, inspection: Inspection) -> bool:
    """Whether a record with content is a MSODRAWINGGROUP ([MS-XLS] 2.4.171)."""
    last = -1
    for begin, step in workbook.steps(overlap=1):
        place = step.rfind(_DRAWINGS)
        last = begin + place if place >= 0 else last
    offset = 0
    for begin, step in workbook.slice(0, min(last + 4, workbook.size)).steps(overlap=_RECORD.size):
        inspection.check_time()
        at, end = offset - begin, min(STEP, len(step) - _RECORD.size + 1)
        while at < end:  # as tight as it gets: records are small, and many
            size = step[at + 2] | step[at + 3] << 8
            if step[at] == _DRAWINGS[0] and size and not step[at + 1]:
                return True
            at += 4 + size
        offset = begin + at
    return False


def _has_password(workbook: Part) -> bool:
    """Whether one of the first records is a FilePass ([MS-XLS] 2.4.117)."""
    offset = 0
    for _ in range(_FILE_PASS_WITHIN):
        header = workbook.read(offset, _RECORD.size)
        if len(header) < _RECORD.size:
            break
        kind, size = _RECORD.unpack(header)
        if kind == _FILE_PASS:
            return True
        offset += _RECORD.size + size
    return False
