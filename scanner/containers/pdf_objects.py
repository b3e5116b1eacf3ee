"""Objects of a PDF as readers find them (ISO 32000-1, 7.3): names, references, headers, dictionaries.

What is written in a way that no program writes is Unsure: readers forgive much, and not all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from scanner.containers.inspection import Part, require
from scanner.containers.signatures import has_obj

Match = tuple[int, re.Match[bytes]]

BIT = 64 * 1024
# Of trailers: a document may have been changed as often.
MOST = 200
LONGEST = 16 * 1024
# Between tokens (7.2): white space (for qpdf vertical tabs, too) and comments. No group here is possessive:
# with alternatives in it CPython 3.11.2 misses matches (tried).
GAP = rb"(?:[\0\t\n\v\f\r ]|%[^\r\n]*+[\r\n])"
WHITE = b"\0\t\n\f\r "
_WHITE = rb"[\0\t\n\f\r ]"
_BLANK = rb"[\0\t\n\v\f\r ]"
_OVERLAP = 1024
_WINDOW = 4 * 1024
# Brackets of dictionaries and lists; strings in hexadecimal and in letters, up to three in each other; names;
# others.
_LETTERS = rb"\([^()\\]*+(?:\\.[^()\\]*+)*\)"
for _ in range(2):
    _LETTERS = rb"\([^()\\]*+(?:(?:\\.|%b)[^()\\]*+)*\)" % _LETTERS
_TOKEN = re.compile(
    rb"%b*+(?:<<|>>|\[|\]|<[0-9A-Fa-f\s]*+>|%b|/[^\0\s/<>\[\]()%%]*+|[^\0\s/<>\[\]()%%]++)"
    % (_WHITE, _LETTERS),
    re.DOTALL,
)
_OPENING, _CLOSING = (b"<<", b"["), (b">>", b"]")
_REFERENCE = re.compile(rb"%b+\+?0*(\d{1,10})%b+\+?\d++%b*R(?![A-Za-z0-9])" % (GAP, GAP, GAP))
# Numbers as pdf.js and MuPDF take them (4.0, 40e-1, 4 -0), and MuPDF's R.
_NUMBER = rb"[-+.0-9eE_]++"
_LIKE_REFERENCE = re.compile(rb"%b*%b%b+%b%b*(?:R|#52)(?![A-Za-z0-9])" % (GAP, _NUMBER, GAP, _NUMBER, GAP))
_UNFINISHED = re.compile(rb"(?:[\0\t\n\v\f\r -+.0-9eE_]|%[^\r\n]*+[\r\n])*(?:%[^\r\n]*+)?\Z")
# MuPDF undoes escapes in keywords, too.
_OBJ = re.compile(rb"(?:o|#6[fF])(?:b|#62)(?:j|#6[aA])(?![A-Za-z0-9])")
_HEADER = re.compile(rb"\d%b++\+?\d++%b*+obj(?![A-Za-z0-9])" % (_BLANK, _BLANK))
_NUMBERS = re.compile(rb"(?<![-+.0-9eE_])\+?0*(\d{1,10})%b++\+?0*(\d{1,10})%b*+\Z" % (_BLANK, _BLANK))
_LIKE_NUMBERS = re.compile(rb"[-+.0-9eE_]%b++%b%b*+\Z" % (_BLANK, _NUMBER, _BLANK))
_TORN = re.compile(rb"(?:[\r\n]|\A)%b*(?:\+?\d++%b++)?\+?\Z" % (_WHITE, _WHITE))
_BEGINS = re.compile(rb"%b*+(?:<<|%%|\Z)" % _WHITE)
_BEFORE, _ALL_BEFORE = 32, 256


class Header(NamedTuple):
    """`number generation obj`, and the offset behind it."""

    number: int
    generation: int
    end: int


class Dictionary(NamedTuple):
    """Names at its top with their values as they are written; how long it is."""

    values: dict[bytes, bytes]
    size: int


def name_pattern(*names: bytes) -> bytes:
    """Matches these names, any of whose characters may be written as #xx (7.3.5); to poppler #00 ends one."""
    escaped = (b"".join(b"(?:%c|#%02x|#%02X)" % (c, c, c) for c in name) for name in names)
    return rb"/(?:%b)(?:#00[^\0\s/<>\[\]()%%]{0,128}+)?(?![A-Za-z0-9_.#-])" % b"|".join(escaped)


def bits(part: Part, overlap: int) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of one bit after the other, each with `overlap` bytes of the next.

    A pattern holds the interpreter until it is through: for a millisecond in the worst of these.
    """
    for begin in range(0, part.size, BIT):
        yield begin, part.read(begin, BIT + overlap)


def matches(
    part: Part, pattern: re.Pattern[bytes], check_time: Callable[[], None] = lambda: None
) -> Iterator[Match]:
    """Matches of up to a kilobyte and where they are."""
    for begin, bit in bits(part, _OVERLAP):
        check_time()
        for match in pattern.finditer(bit):
            if match.start() >= BIT:
                break
            yield begin + match.start(), match


def few(found: Iterator[Match]) -> list[Match]:
    """All of them, or one more than anybody has."""
    return list(islice(found, MOST + 1))


def reference(part: Part, offset: int) -> int | None:
    """The number of the object to which the value at this offset refers; Unsure where that cannot be told."""
    window = part.read(offset, _WINDOW)
    if found := _REFERENCE.match(window):
        return int(found[1])
    require(not _LIKE_REFERENCE.match(window))
    require(len(window) < _WINDOW or not _UNFINISHED.match(window))
    return None


def headers(part: Part, check_time: Callable[[], None]) -> Iterator[Header]:
    """Where objects begin; Unsure where something unusual lies in such a beginning."""
    for offset, match in matches(part, _OBJ, check_time):
        before = _before(part, offset, _BEFORE)
        numbers = _NUMBERS.search(before) or _NUMBERS.search(before := _before(part, offset, _ALL_BEFORE))
        if numbers and match[0] == b"obj":
            yield Header(int(numbers[1]), int(numbers[2]), offset + len(match[0]))
        elif _TORN.search(before) or _LIKE_NUMBERS.search(before):
            require(not _BEGINS.match(part.read(offset + len(match[0]), _BEFORE)))


def search_for_objects(part: Part) -> Iterator[bool]:
    """For one bit after the other, whether an object may begin in it."""
    for _, bit in bits(part, _OVERLAP):
        yield has_obj(bit) and _HEADER.search(bit) is not None


def last_header(part: Part, offset: int) -> Header | None:
    """The object that begins last before this offset, as far as a dictionary is read; None if unusual."""
    before = _before(part, offset, LONGEST)
    at = before.rfind(b"obj")
    numbers = _NUMBERS.search(before[max(0, at - _BEFORE) : max(0, at)])
    return Header(int(numbers[1]), int(numbers[2]), offset - len(before) + at + 3) if numbers else None


def _before(part: Part, offset: int, length: int) -> bytes:
    begin = max(0, offset - length)
    return part.read(begin, offset - begin)


def dictionary(text: bytes) -> Dictionary | None:
    """The one that begins here.

    None where it is not whole, has a name twice or a comment, or does not begin here.
    """
    if not text.startswith(b"<<"):
        return None
    position, name = 0, b""
    marks = list[tuple[bytes, int]]()  # the names at its top, and the ends of these
    inside: list[set[bytes] | None] = []  # the names in each open dictionary, None for a list
    while token := _TOKEN.match(text, position):
        position, word = token.end(), token[0].lstrip(WHITE)
        if word in _OPENING:
            inside.append(set() if word == b"<<" else None)
            name = b""
        elif word in _CLOSING:
            inside.pop()
            if not inside:
                return Dictionary(_values(text, marks, position - len(word)), position)
            name = b""
        elif (names := inside[-1]) is not None:
            name = b"" if name or not word.startswith(b"/") else word
            if name in names:
                return None
            names |= {name} - {b""}
            if name and len(inside) == 1:
                marks.append((name, position))
    return None


def _values(text: bytes, marks: list[tuple[bytes, int]], end: int) -> dict[bytes, bytes]:
    """What lies between the names."""
    ends = [position - len(name) for name, position in marks[1:]] + [end]
    return {name: text[begin:behind].strip(WHITE) for (name, begin), behind in zip(marks, ends, strict=False)}
