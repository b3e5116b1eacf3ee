"""Whether everybody decrypts a PDF in the same way: one encryption dictionary, and all go by it.

Clamd takes `/Encrypt` and the dictionary's object from wherever it finds them, a comment included, and
overlooks escaped names; readers follow the trailer (tried: 1.4.6, qpdf). Where the two could take different
ones, clamd would decrypt what is plain, or with another key, and see nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from scanner.containers.inspection import Part, Unsure, require
from scanner.containers.pdf_objects import LONGEST, MOST, Match, bits, dictionary, few, matches
from scanner.verdict import Reason

# Between tokens (ISO 32000-1, 7.2): white space and comments. Each run is read once, hostile or not.
_SPACE = rb"(?:[\0\t\n\f\r ]|%[^\r\n]{0,200}[\r\n])"
_END = rb"(?![A-Za-z0-9_.#-])"
# A name may be written with any of its characters as #xx (7.3.5).
_ENCRYPTED = re.compile(
    b"/" + b"".join(b"(?:%c|#%02x|#%02X)" % (c, c, c) for c in b"Encrypt") + rb"(?![A-Za-z]|#(?!00))"
)
_NAME_OVERLAP = 64
ENCRYPT = re.compile(rb"/Encrypt(?![A-Za-z])")
REFERENCE = re.compile(rb"/Encrypt\s{0,32}(?:(\d{1,10})\s{1,32}(\d{1,5})\s{1,32}R|(?=<<))")
_ESCAPED = re.compile(rb"/[^\0\s/<>\[\]()%#]{0,64}#[^\0\s/<>\[\]()%]{0,128}")
_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_KNOWN = frozenset({b"/Encrypt", b"/Standard", b"/Filter", b"/XRef", b"/ObjStm", b"/Root"})
_TRAILER = re.compile(rb"trailer%b{0,64}(?=<<)" % _SPACE)
_XREF_STREAM = re.compile(rb"/XRef" + _END)
_STANDARD = re.compile(rb"/Filter%b{0,64}/Standard%b" % (_SPACE, _END))
_INDIRECT = re.compile(rb"/Filter%b{0,64}\d+%b{1,64}\d+%b{1,64}R\b" % (_SPACE, _SPACE, _SPACE))
# Where there are object streams, too, clamd does not decode these (tried, 1.4.6: not linearized, by qpdf).
_UNDECODED = re.compile(rb"/(?:LZWDecode|RunLengthDecode)" + _END)
_ID = re.compile(rb"\[%b{0,8}(<[0-9A-Fa-f\s]*+>|\([^()\\]*+(?:\\.[^()\\]*+)*\))" % _SPACE, re.DOTALL)
_SAMPLE, _PLAIN = 1024, 512


class Encryption(NamedTuple):
    """What the encryption dictionary says, and the first part of the document's identifier."""

    said: dict[bytes, bytes]
    identifier: bytes


def is_encrypted(part: Part) -> bool:
    """Whether it says so anywhere."""
    return any(_ENCRYPTED.search(bit) for _, bit in bits(part, _NAME_OVERLAP))


def check_encryption(part: Part, check_time: Callable[[], None]) -> Encryption:
    """Unsure (encrypted document) unless there is one encryption dictionary, and every trailer has it."""

    def found(pattern: re.Pattern[bytes]) -> Iterator[Match]:
        return matches(part, pattern, check_time)

    _require(not any(_is_known(match[0]) for _, match in found(_ESCAPED)))
    places = [offset for offset, _ in few(found(ENCRYPT))]
    references = [match for _, match in few(found(REFERENCE))]
    trailers = _trailers(part, check_time)
    _require(len(references) == len(places) == len(trailers))
    _require(len({match[0] for match in references}) == 1)
    if references[0][1] is not None:
        begin = _object(part, references[0], check_time)
    else:
        _require(len(places) == 1)
        begin = places[0] + len(references[0][0])
    said = _said(part, begin)
    _require(said.get(b"/Filter") == b"/Standard")
    _require(len(few(found(_STANDARD))) == 1 and not any(found(_INDIRECT)))
    _require(not (any(found(_XREF_STREAM)) and any(found(_UNDECODED))))
    identifiers = {match[1] for trailer in trailers if (match := _ID.match(trailer.get(b"/ID", b"")))}
    return Encryption(said, identifiers.pop() if len(identifiers) == 1 else b"")


def _require(condition: object) -> None:
    require(condition, Reason.ENCRYPTED_DOCUMENT)


def _is_known(name: bytes) -> bool:
    """Whether it stands for such a name; poppler ends it at #00."""
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), name).partition(b"\0")[0] in _KNOWN


def _trailers(part: Part, check_time: Callable[[], None]) -> list[dict[bytes, bytes]]:
    """Those that have an encryption dictionary; none that leads to a document may be without."""
    encrypted = []
    for begin in _beginnings(part):
        check_time()
        said = _said(part, begin)
        _require(b"/Encrypt" in said or b"/Root" not in said)
        encrypted += [said] if b"/Encrypt" in said else []
    return encrypted


def _said(part: Part, begin: int) -> dict[bytes, bytes]:
    """The dictionary here."""
    found = dictionary(part.read(begin, LONGEST).lstrip())
    if found is None:
        raise Unsure(Reason.ENCRYPTED_DOCUMENT)
    return found.values


def _beginnings(part: Part) -> Iterator[int]:
    trailers, streams = few(matches(part, _TRAILER)), few(matches(part, _XREF_STREAM))
    _require(len(trailers) + len(streams) <= MOST)
    yield from (offset + len(match[0]) for offset, match in trailers)
    for offset, _ in streams:
        start = max(0, offset - LONGEST // 2)
        before = part.read(start, offset - start).rfind(b"obj")
        _require(before >= 0)
        yield start + before + len(b"obj")


def _object(part: Part, reference: re.Match[bytes], check_time: Callable[[], None]) -> int:
    """Where the content of the one object with this number begins."""
    number = rb"(?<![0-9])0*%d%b{1,64}0*%d%b{1,64}obj" % (
        *(int(reference[1]), _SPACE),
        *(int(reference[2]), _SPACE),
    )
    found = few(matches(part, re.compile(number), check_time))
    _require(len(found) == 1 and b"%" not in found[0][1][0])
    return found[0][0] + len(found[0][1][0])


def is_plain(data: bytes) -> bool:
    """Whether the beginning of a deflated stream is not encrypted: then it unpacks as it is."""
    decoder = zlib.decompressobj()
    try:
        content = decoder.decompress(data[:_SAMPLE], _PLAIN)
    except zlib.error:
        return False
    return decoder.eof or len(content) >= _PLAIN or len(data) >= _SAMPLE
