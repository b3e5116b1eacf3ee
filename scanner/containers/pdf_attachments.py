"""Files attached to a PDF. Clamd does not see all of them, and opens fewer archives there than others do.

It misses some that any reader saves: `octet-stream` in the dictionary suffices, or an object without its end
before it (tried, 1.4.6). So attached files are taken out, and judged like files of their own.

Whatever attaches one (attachments, portfolios, associated files, rich media) does so by an /EF dictionary
(ISO 32000-1, 7.11.4), LibreOffice also by /AdditionalStreams. Both may lie in an object stream, whose
dictionary has /First (7.5.7), so all object streams are read. They, and what is referred to so, must be
written as programs write it: a filter that we do not undo is Unsure there, and nowhere else, since pictures
have them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from scanner.containers.inspection import MAX_HELD, MAX_MEMBERS, Inspection, Part, Unsure, ambiguous, require
from scanner.containers.pdf_decryption import Decryption
from scanner.containers.pdf_objects import (
    GAP,
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

_WHITE = rb"[\0\t\n\f\r ]"
_ATTACHES = re.compile(name_pattern(b"EF") + rb"(?=[\0\t\n\v\f\r %<])")
# LibreOffice's own way: what it opens instead of the PDF, each behind its media type.
_HYBRID = re.compile(name_pattern(b"AdditionalStreams"))
_STREAMS = re.compile(
    rb"%b*+\[((?:%b*+/[^\0\s/<>\[\]()%%]++%b++\d{1,10}%b++\d++%b++R)*)%b*+\]" % ((_WHITE,) * 6)
)
_NUMBER = re.compile(rb"%b(\d{1,10})%b++\d++%b++R" % ((_WHITE,) * 3))
_FILES = re.compile(name_pattern(b"F", b"UF", b"DOS", b"Mac", b"Unix"))  # of /EF (table 45)
_FIRST = re.compile(name_pattern(b"First"))
_COUNT = re.compile(name_pattern(b"N") + rb"(?=%b*[-+.0-9])" % GAP)
# What every stream of references has.
_WIDTHS = re.compile(name_pattern(b"W") + rb"(?=%b*(?:\[|\d++%b++\d++%b*R))" % (GAP, GAP, GAP))
_NO_OFFSET = re.compile(rb"[\0\t\n\f\r ]*+[A-Za-z/(<>\[\]]")
_FOLLOWS = re.compile(rb"[\0\t\n\f\r ]{0,32}(?:stream\r?\n|(?P<none>endobj))")
_ENDS = tuple(bytes([byte]) for byte in b">]0123456789" + WHITE)
_NOT_CERTAIN = (b"(", b"%", b"stream")
_CLOSED = re.compile(rb"[^(%<>]{0,256}>>[\0\t\n\f\r ]*+[^%s\0\t\n\f\r ]")
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
_SHORT = 1024


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
        self._minds_aliases = False
        self._seen = set[int]()  # object streams by the ends of their headers

    def attaches(self) -> bool:
        """Whether it may have a file attached; raises Unsure."""
        return any(
            any(self._found(_ATTACHES, text)) or any(self._found(_HYBRID, text)) for text in self._texts()
        )

    def attachments(self) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Numbers and contents of all objects that may be an attached file; raises Unsure."""
        numbers = set[int]()
        self._minds_aliases = True
        for text in self._texts():
            for offset, match in self._found(_FILES, text):
                number = reference(text, offset + len(match[0]))
                numbers |= set() if number is None else {number}
                require(len(numbers) <= MAX_MEMBERS, Reason.LIMIT)
            for offset, match in self._found(_HYBRID, text):
                numbers |= _streams(text.read(offset + len(match[0]), LONGEST))
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
        if any(self._found(_WIDTHS, self._part)):
            yield from map(self._content, self._without_first())

    def _require_outline(self, behind: int) -> None:
        """No stream's dictionary, where somebody may look for an object stream."""
        text = b"<<" + self._part.read(behind, LONGEST)
        found = dictionary(text)
        require(found is not None and _NO_STREAM.match(text, found.size))

    def _object_stream(self, offset: int) -> Part:
        """What lies in the one in whose dictionary /First is at this offset."""
        header = last_header(self._part, offset)
        stream = self._stream(header) if header is not None else None
        if header is None or stream is None or b"/First" not in stream.values or stream.begin < offset:
            ambiguous()
        self._seen.add(header.end)
        first, content = stream.values[b"/First"], self._content(stream)
        require(_DIRECT.fullmatch(first))
        if self._minds_aliases:
            _check_aliases(content, int(first))
        return content

    def _without_first(self) -> Iterator[_Stream]:
        """Other streams with /N, as colour profiles are: MuPDF reads objects from them, too (tried, 1.28).

        Only by a stream of references, which old documents have not.
        """
        last = None
        for offset, match in self._found(_COUNT, self._part):
            if self._has_no_stream(offset + len(match[0])):
                continue
            header = last_header(self._part, offset)
            if header is None:
                require(b"obj" not in self._part.read(max(0, offset - LONGEST), min(offset, LONGEST)))
                continue
            if header == last or header.end in self._seen:
                continue
            last, stream = header, self._stream(header)
            if stream is not None and stream.begin > offset and b"/N" in stream.values:
                yield stream

    def _has_no_stream(self, behind: int) -> bool:
        """Whether no stream follows the dictionary in which this is, for certain."""
        text = self._part.read(behind, LONGEST)
        if _CLOSED.match(text):
            return True
        before, end, _ = text.partition(b"endobj")
        return bool(end) and before[-1:] in _ENDS and not any(word in before for word in _NOT_CERTAIN)

    def _content(self, stream: _Stream) -> Part:
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
        if not _is_deflated(stream.values) or not data.size:  # an empty file, by qpdf
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


def _check_aliases(content: Part, first: int) -> None:
    """None of the objects that begin in an object stream refers to another: pdf.js follows that."""
    for place in content.read(0, min(first, _LARGEST)).split()[1::2]:
        require(_DIRECT.fullmatch(place))
        require(reference(Part.of(b" " + content.read(first + int(place), _SHORT)), 0) is None)


def _streams(text: bytes) -> set[int]:
    """The numbers in a list of media types and references, which begins here."""
    listed = _STREAMS.match(text)
    require(listed)
    return {int(number) for number in _NUMBER.findall(listed[1])} if listed else set()


def _is_deflated(values: dict[bytes, bytes]) -> bool:
    """The one filter that we undo; Unsure where there is another one."""
    require(not any(b"#" in name or name in _UNUSUAL for name in values))
    require(values.get(b"/DecodeParms", b"null") in _NO_PARAMETERS)
    filters = values.get(b"/Filter", b"null").strip(b"[]" + WHITE)
    require(filters in _NO_FILTER or filters == _DEFLATE)
    return filters == _DEFLATE
