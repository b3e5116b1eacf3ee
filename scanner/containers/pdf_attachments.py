"""Files attached to a PDF. Clamd does not see all of them, and opens fewer archives there than others do.

It misses some that any reader saves: `octet-stream` in the dictionary suffices, or an object without its end
before it (tried, 1.4.6). So attached files are taken out, and judged like files of their own.

Whatever attaches one (attachments, portfolios, associated files, rich media) does so by an /EF dictionary
(ISO 32000-1, 7.11.4), which may lie in an object stream, whose dictionary has /First (7.5.7). So all object
streams are read. They, and what an /EF may refer to, must be written as programs write it: a filter that we
do not undo is Unsure there, and nowhere else, since pictures have them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from scanner.containers.inspection import MAX_HELD, MAX_MEMBERS, Inspection, Part, Unsure, ambiguous, require
from scanner.containers.pdf_decryption import Decryption
from scanner.containers.pdf_objects import (
    LONGEST,
    WHITE,
    Header,
    dictionary,
    headers,
    last_header,
    matches,
    name_pattern,
    reference,
)
from scanner.containers.streams import Inflater
from scanner.verdict import Reason

_ATTACHES = re.compile(name_pattern(b"EF") + rb"(?=[\0\t\n\f\r %<])")
_FILES = re.compile(name_pattern(b"F", b"UF", b"DOS", b"Mac", b"Unix"))  # of /EF (table 45)
_FIRST = re.compile(name_pattern(b"First"))
_NO_OFFSET = re.compile(rb"[\0\t\n\f\r ]*+[A-Za-z/(<>\[\]]")
_FOLLOWS = re.compile(rb"[\0\t\n\f\r ]{0,32}(?:stream\r?\n|(?P<none>endobj))")
_NO_STREAM = re.compile(rb"[\0\t\n\f\r ]*+[^%s\0\t\n\f\r ]")
_NO_DICTIONARY = re.compile(rb"[(\[/ntf]|<[^<]|-?\d{1,10}[\0\t\n\f\r ]++endobj")
_END = re.compile(rb"[\0\t\n\f\r ]{0,32}endstream")
_END_WITHIN = 64
_DIRECT = re.compile(rb"\d{1,10}")
_DEFLATE, _NO_FILTER = b"/FlateDecode", (b"", b"null")
_NO_PARAMETERS = (b"null", b"[null]", b"[ null ]")
# What lies elsewhere, and second names of filters and parameters, by which some programs go.
_UNUSUAL = (b"/F", b"/FFilter", b"/DP")
_LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Stream:
    """An object's dictionary, and where the data of its stream begin."""

    header: Header
    values: dict[bytes, bytes]
    begin: int


class Document:
    """A PDF, whose streams are encrypted where there is a `decryption`."""

    def __init__(self, part: Part, inspection: Inspection, decryption: Decryption | None = None) -> None:
        self._part = part
        self._inspection = inspection
        self._decryption = decryption

    def attaches(self) -> bool:
        """Whether it may have a file attached; raises Unsure."""
        return any(any(self._found(_ATTACHES, text)) for text in self._texts())

    def attachments(self) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Numbers and contents of all objects that may be an attached file; raises Unsure."""
        numbers = set[int]()
        for text in self._texts():
            for offset, match in self._found(_FILES, text):
                number = reference(text, offset + len(match[0]))
                numbers |= set() if number is None else {number}
                require(len(numbers) <= MAX_MEMBERS, Reason.LIMIT)
        for header in headers(self._part, self._inspection.check_time):
            if header.number in numbers and (stream := self._stream(header)) is not None:
                yield header.number, self._pieces(stream)

    def _found(self, pattern: re.Pattern[bytes], text: Part) -> Iterator[tuple[int, re.Match[bytes]]]:
        return matches(text, pattern, self._inspection.check_time)

    # -- where references are written ------------------------------------------------------------

    def _texts(self) -> Iterator[Part]:
        """The document itself, and what lies in its object streams."""
        yield self._part
        for offset, match in self._found(_FIRST, self._part):
            behind = offset + len(match[0])
            if reference(self._part, behind) is not None:
                self._require_outline(behind)
            elif not _NO_OFFSET.match(self._part.read(behind, LONGEST)):
                yield self._object_stream(offset)

    def _require_outline(self, behind: int) -> None:
        """No stream's dictionary, where somebody may look for an object stream."""
        text = b"<<" + self._part.read(behind, LONGEST)
        found = dictionary(text)
        require(found is not None and _NO_STREAM.match(text, found.size))

    def _object_stream(self, offset: int) -> Part:
        """What lies in the one in whose dictionary /First is at this offset."""
        header = last_header(self._part, offset)
        stream = self._stream(header) if header is not None else None
        if stream is None or b"/First" not in stream.values or stream.begin < offset:
            ambiguous()
        content = bytearray()
        for piece in self._pieces(stream):
            self._inspection.spend(len(piece))
            content += piece
            require(len(content) <= _LARGEST, Reason.LIMIT)
        return Part.of(content)

    # -- streams ---------------------------------------------------------------------------------

    def _stream(self, header: Header) -> _Stream | None:
        """What begins here, if it is one."""
        text = self._part.read(header.end, LONGEST)
        written = text.lstrip(WHITE)
        found = dictionary(written)
        if found is None:
            require(_NO_DICTIONARY.match(written))
            return None
        if (follows := _FOLLOWS.match(written, found.size)) is None:
            ambiguous()
        begin = header.end + len(text) - len(written) + follows.end()
        return None if follows["none"] else _Stream(header, found.values, begin)

    def _pieces(self, stream: _Stream) -> Iterator[bytes]:
        """What other programs make of the stream; where it makes no sense decrypted, there is a password."""
        data = self._data(stream)
        if not _is_deflated(stream.values):
            yield from (piece for _, piece in data.steps())
            return
        damaged = Reason.DAMAGED if self._decryption is None else Reason.ENCRYPTED_DOCUMENT
        inflater = Inflater(data, 0, zlib.MAX_WBITS)
        try:
            yield from inflater.pieces()
        except Unsure:
            raise Unsure(damaged) from None
        rest = data.read(inflater.end, _END_WITHIN)
        require(_END.match(rest) or not rest.strip(WHITE), damaged)

    def _data(self, stream: _Stream) -> Part:
        """What lies in it, decrypted."""
        size = self._size(stream)
        if self._decryption is None:
            return self._part.slice(stream.begin, size)
        require(size <= MAX_HELD, Reason.LIMIT)
        return Part.of(self._decryption.decrypt(stream.header, self._part.read(stream.begin, size)))

    def _size(self, stream: _Stream) -> int:
        """As its dictionary says; where that is not certain, deflated data tell themselves where they end."""
        length = stream.values.get(b"/Length", b"")
        if _DIRECT.fullmatch(length) and self._ends(stream.begin + int(length)):
            return int(length)
        require(_is_deflated(stream.values))
        rest = self._part.slice(stream.begin, self._part.size - stream.begin)
        if self._decryption is None:
            return rest.size
        return next((offset for offset, _ in self._found(_END, rest)), rest.size)

    def _ends(self, offset: int) -> bool:
        return bool(_END.match(self._part.read(offset, _END_WITHIN)))


def _is_deflated(values: dict[bytes, bytes]) -> bool:
    """The one filter that we undo; Unsure where there is another one."""
    require(not any(b"#" in name or name in _UNUSUAL for name in values))
    require(values.get(b"/DecodeParms", b"null") in _NO_PARAMETERS)
    filters = values.get(b"/Filter", b"null").strip(b"[]" + WHITE)
    require(filters in _NO_FILTER or filters == _DEFLATE)
    return filters == _DEFLATE
