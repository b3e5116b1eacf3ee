"""A file, and perhaps its encryption info, as multipart/form-data: taken apart while they arrive.

The reference's proposal calls the file `body` and its info `file`; other clients will have it the other way
round. So the names alone do not decide: of two parts, what looks more like a file is the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from scanner.errors import MalformedRequest, MediaTooLarge, RequestTooLarge, UnsupportedEncoding
from scanner.media import Body, BodyWriter

MOST_INFO = 1024 * 1024
_ENCODINGS = {
    "Content-Encoding": {"identity"},
    "Content-Transfer-Encoding": {"7bit", "8bit", "binary"},
}
# RFC 2046, section 5.1.1.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
# How little a type says of a file: form fields have none, or are text to some libraries.
_JSON, _FIELD, _FILE = range(3)
_TYPES = {"application/json": _JSON, "text/plain": _FIELD, None: _FIELD}


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of the form, and where its bytes go."""

    name: str
    has_filename: bool
    type: int
    writer: BodyWriter

    @property
    def may_be_file(self) -> bool:
        """A form field that is called anything but `body` is none."""
        return self.name != "encrypted_body" and (
            self.has_filename or self.type == _FILE or self.name == "body"
        )

    @property
    def may_be_info(self) -> bool:
        """JSON, even from a file, or a form field."""
        return self.type == _JSON or (self.type == _FIELD and not self.has_filename)

    @property
    def likeness(self) -> tuple[bool, bool, int, bool]:
        """How much it looks like the file, in comparison."""
        return self.may_be_file, self.has_filename, self.type, self.name == "body"


class Form:
    """The parts of one form, in either order: fed with its bytes, then `complete`, or else to `discard`.

    The file may have `most` bytes, its encryption info 1 MiB. Raises MalformedRequest, UnsupportedEncoding,
    MediaTooLarge, RequestTooLarge or Unavailable as soon as that is known.
    """

    def __init__(self, content_type: str, most: int) -> None:
        self._parser = PushMultipartParser(_boundary(content_type), header_charset="latin-1")
        self._most = most
        self._parts: list[_Part] = []

    def feed(self, piece: bytes) -> None:
        """The next bytes; at least one."""
        try:
            for event in self._parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event is not None:
                    self._take(event)
        except MultipartError:
            raise _malformed() from None

    def complete(self) -> tuple[Body, bytes | None]:
        """The file, outside of any share yet, and its encryption info."""
        try:
            self._parser.close()
        except MultipartError:
            raise _malformed() from None
        if not self._parts or not self._file.may_be_file:
            raise _not_one_file()
        info = self._info
        return self._file.writer.seal(), _content(info.writer) if info is not None else None

    def discard(self) -> None:
        """Give everything back."""
        for part in self._parts:
            part.writer.discard()

    @property
    def _file(self) -> _Part:
        return max(self._parts, key=lambda part: part.likeness)

    @property
    def _info(self) -> _Part | None:
        return next((part for part in self._parts if part is not self._file), None)

    def _begin(self, segment: MultipartSegment) -> None:
        _refuse_encoded(segment)
        if len(self._parts) == 2:
            raise _not_one_file()
        kind = _TYPES.get(segment.content_type, _FILE)
        self._parts.append(_Part(segment.name or "", segment.filename is not None, kind, BodyWriter()))
        info = self._info
        if info is not None:
            if not info.may_be_info:
                raise _not_one_file()
            self._limit(info)

    def _take(self, piece: bytes) -> None:
        part = self._parts[-1]
        self._limit(part, len(piece))
        part.writer.write(piece)

    def _limit(self, part: _Part, more: int = 0) -> None:
        size = part.writer.size + more
        if part is not self._file and size > MOST_INFO:
            raise RequestTooLarge("the encryption info is over 1 MiB")
        if size > self._most:
            raise MediaTooLarge(f"the media is larger than {self._most} bytes")


def _boundary(content_type: str) -> str:
    kind, options = parse_options_header(content_type)
    boundary: str = options.get("boundary", "")
    if kind != "multipart/form-data" or not _BOUNDARY.fullmatch(boundary):
        raise MalformedRequest("the request body must be multipart/form-data, with a boundary")
    return boundary


def _refuse_encoded(segment: MultipartSegment) -> None:
    """What is encoded is not what would be uploaded (RFC 7578, section 4.7)."""
    for name, harmless in _ENCODINGS.items():
        if not {value.strip().lower() for key, value in segment.headerlist if key == name} <= harmless:
            raise UnsupportedEncoding("no part of the form may have an encoding")


def _content(writer: BodyWriter) -> bytes:
    body = writer.seal()
    try:
        return body.read(0, body.size)
    finally:
        body.release()


def _malformed() -> MalformedRequest:
    return MalformedRequest("the form is malformed, or breaks off")


def _not_one_file() -> MalformedRequest:
    return MalformedRequest("the form must have one file, and at most its encryption info beside it")
