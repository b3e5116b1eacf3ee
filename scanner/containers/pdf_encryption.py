"""Whether everybody decrypts a PDF in the same way: one encryption dictionary, and all go by it.

Clamd takes `/Encrypt` and the dictionary's object from wherever it finds them, a comment included, and
overlooks escaped names; readers follow the trailer (tried: 1.4.6, qpdf). Where the two could take different
ones, clamd would decrypt what is plain, or with another key, and see nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from itertools import islice

from scanner.containers.inspection import STEP, Part, require
from scanner.verdict import Reason

_Match = tuple[int, re.Match[bytes]]

# Of trailers: a document may have been changed as often.
MOST = 200
_OVERLAP = 1024
_LONGEST = 16 * 1024
# Between tokens (ISO 32000-1, 7.2): white space and comments. Each run is read once, hostile or not.
_SPACE = rb"(?:[\0\t\n\f\r ]|%[^\r\n]{0,200}[\r\n])"
_END = rb"(?![A-Za-z0-9_.#-])"
ENCRYPT = re.compile(rb"/Encrypt(?![A-Za-z])")
REFERENCE = re.compile(rb"/Encrypt\s{0,32}(?:(\d{1,10})\s{1,32}(\d{1,5})\s{1,32}R|(?=<<))")
_ESCAPED = re.compile(rb"/[^\0\s/<>\[\]()%#]{0,64}#[^\0\s/<>\[\]()%]{0,128}")
_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_KNOWN = frozenset({b"/Encrypt", b"/Standard", b"/Filter", b"/XRef", b"/ObjStm", b"/Root"})
_TRAILER = re.compile(rb"trailer%b{0,64}(?=<<)" % _SPACE)
_XREF_STREAM = re.compile(rb"/XRef" + _END)
_STANDARD = re.compile(rb"/Filter%b{0,64}/Standard%b" % (_SPACE, _END))
_INDIRECT = re.compile(rb"/Filter%b{0,64}\d+%b{1,64}\d+%b{1,64}R\b" % (_SPACE, _SPACE, _SPACE))
# An object stream packed so could hold another dictionary, and does not show that it is not encrypted.
_UNMARKED = re.compile(rb"/(?:LZWDecode|RunLengthDecode)" + _END)
# Brackets of dictionaries and lists; strings in hexadecimal and in letters; names; others.
_TOKEN = re.compile(
    rb"\s*+(?:<<|>>|\[|\]|<[0-9A-Fa-f\s]*+>|\((?:[^()\\]|\\.)*+\)|/[^\0\s/<>\[\]()%]*+|[^\0\s/<>\[\]()%]++)",
    re.DOTALL,
)
_OPENING, _CLOSING = (b"<<", b"["), (b">>", b"]")
_SAMPLE, _PLAIN = 1024, 512


def check_encryption(part: Part, check_time: Callable[[], None]) -> None:
    """Unsure (encrypted document) unless there is one encryption dictionary, and every trailer has it."""

    def found(pattern: re.Pattern[bytes]) -> Iterator[_Match]:
        return matches(part, pattern, check_time)

    _require(not any(_is_known(match[0]) for _, match in found(_ESCAPED)))
    places = [offset for offset, _ in few(found(ENCRYPT))]
    references = [match for _, match in few(found(REFERENCE))]
    _require(len(references) == len(places) == _trailers(part, check_time))
    _require(len({match[0] for match in references}) == 1)
    if references[0][1] is not None:
        dictionary = _object(part, references[0], check_time)
    else:
        _require(len(places) == 1)
        dictionary = places[0] + len(references[0][0])
    said = top_level(part.read(dictionary, _LONGEST).lstrip())
    _require(said and said.get(b"/Filter") == b"/Standard")
    _require(len(few(found(_STANDARD))) == 1 and not any(found(_INDIRECT)))
    _require(not (any(found(_XREF_STREAM)) and any(found(_UNMARKED))))


def matches(
    part: Part, pattern: re.Pattern[bytes], check_time: Callable[[], None] = lambda: None
) -> Iterator[_Match]:
    """Matches of up to a kilobyte and where they are; in steps, between which other threads have a turn."""
    for begin, step in part.steps(overlap=_OVERLAP):
        check_time()
        for match in pattern.finditer(step):
            if match.start() < STEP:
                yield begin + match.start(), match


def few(found: Iterator[_Match]) -> list[_Match]:
    """All of them, or one more than anybody has."""
    return list(islice(found, MOST + 1))


def _require(condition: object) -> None:
    require(condition, Reason.ENCRYPTED_DOCUMENT)


def _is_known(name: bytes) -> bool:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), name) in _KNOWN


def _trailers(part: Part, check_time: Callable[[], None]) -> int:
    """How many have an encryption dictionary; none that leads to a document may be without."""
    encrypted = 0
    for begin in _beginnings(part):
        check_time()
        said = top_level(part.read(begin, _LONGEST).lstrip())
        _require(said is not None)
        if said is not None:
            _require(b"/Encrypt" in said or b"/Root" not in said)
            encrypted += b"/Encrypt" in said
    return encrypted


def _beginnings(part: Part) -> Iterator[int]:
    trailers, streams = few(matches(part, _TRAILER)), few(matches(part, _XREF_STREAM))
    _require(len(trailers) + len(streams) <= MOST)
    yield from (offset + len(match[0]) for offset, match in trailers)
    for offset, _ in streams:
        start = max(0, offset - _LONGEST // 2)
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


def top_level(text: bytes) -> dict[bytes, bytes] | None:
    """The names in the dictionary that begins here and the first word of each value.

    None where it is not whole, has a name twice or a comment, or does not begin here.
    """
    if not text.startswith(b"<<"):
        return None
    values, position, name = dict[bytes, bytes](), 0, b""
    inside: list[set[bytes] | None] = []  # the names in each open dictionary, None for a list
    while token := _TOKEN.match(text, position):
        position, word = token.end(), token[0].lstrip()
        if name and len(inside) == 1:
            values[name] = word
        if word in _OPENING:
            inside.append(set() if word == b"<<" else None)
            name = b""
        elif word in _CLOSING:
            inside.pop()
            if not inside:
                return values
            name = b""
        elif (names := inside[-1]) is not None:
            name = b"" if name or not word.startswith(b"/") else word
            if name in names:
                return None
            names |= {name} - {b""}
    return None


def is_plain(data: bytes) -> bool:
    """Whether the beginning of a deflated stream is not encrypted: then it unpacks as it is."""
    decoder = zlib.decompressobj()
    try:
        content = decoder.decompress(data[:_SAMPLE], _PLAIN)
    except zlib.error:
        return False
    return decoder.eof or len(content) >= _PLAIN or len(data) >= _SAMPLE
