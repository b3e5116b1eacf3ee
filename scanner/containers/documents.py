"""PDF that is encrypted where clamd does not say so (Office is in `office`, ODF in `zip`)."""

from __future__ import annotations

import re

from scanner.containers.inspection import Inspection, Part, Unsure, require
from scanner.containers.pdf_attachments import Document
from scanner.containers.pdf_decryption import Decryption
from scanner.containers.pdf_encryption import check_encryption, is_encrypted, is_plain
from scanner.containers.pdf_objects import BIT, bits
from scanner.containers.readers import Reader
from scanner.verdict import Reason

_OVERLAP = 8 * 1024
_MAX_NESTED = 32  # strings or dictionaries in each other, far more than anybody writes

# Runs of white space are read a little at a time: else a hostile one is read again from each of its bytes.
_OBJECT = re.compile(rb"(?:^|[\r\n]|endobj)\s{0,32}\d{1,10}\s{1,32}\d{1,5}\s{1,32}obj\b")
_STREAM = re.compile(rb"(?<!end)stream\r?\n")
_STRING = re.compile(rb"\((?:[^()\\]|\\.)*\)", re.DOTALL)
_HEXADECIMAL = re.compile(rb"(?<!<)<[0-9A-Fa-f\s]*>(?!>)")
_COMMENT = re.compile(rb"%[^\r\n]*")
_DICTIONARY = re.compile(rb"<<[^<>]*>>")
_FILTER = re.compile(rb"/Filter\s{0,32}\[?\s{0,32}/(?!Crypt\b)([A-Za-z0-9]+)")
_XREF = re.compile(rb"/Type\s{0,32}/XRef\b")
_METADATA = re.compile(rb"/Type\s{0,32}/Metadata\b")
_PLAIN_METADATA = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xpacket")
_BEGINNING = 1024
_DEFLATE = (b"FlateDecode", b"Fl")
_TEXT = (b"ASCIIHexDecode", b"ASCII85Decode", b"AHx", b"A85")
_PICTURES = (b"DCTDecode", b"JPXDecode", b"JBIG2Decode", b"CCITTFaxDecode", b"LZWDecode", b"RunLengthDecode")
_EMPTY = re.compile(rb"\s*endstream")


def check_pdf(part: Part, inspection: Inspection, *, alone: bool = True) -> None:
    """Notes an encrypted PDF with a stream that clamd does not decrypt, and what has files attached.

    Other encrypted PDFs are clamd's: it opens them, or says that it cannot (facts/security.md, section 2),
    and may say nothing else of what lies beside. `alone`: it is nothing but a PDF; else attached files are
    Unsure.
    """
    if not is_encrypted(part):
        _check_attachments(Document(part, inspection), inspection, alone=alone)
        return
    inspection.must_be_seen_alone()
    try:
        encryption = check_encryption(part, inspection.check_time)
        _check_streams(part, inspection)
        _check_attachments(Document(part, inspection, Decryption(*encryption)), inspection, alone=alone)
    except Unsure as unsure:
        if unsure.reason is not Reason.ENCRYPTED_DOCUMENT:
            raise
        inspection.is_encrypted(Reason.ENCRYPTED_DOCUMENT)


def check_headless_pdf(part: Part, inspection: Inspection) -> None:
    """What is called a PDF is opened as one, whatever it begins with (tried: poppler, MuPDF, qpdf, pdf.js).

    Clamd goes by its beginning. So nothing may be attached to what has objects of a PDF.
    """
    _check_attachments(Document(part, inspection), inspection, alone=False)


def _check_attachments(document: Document, inspection: Inspection, *, alone: bool) -> None:
    if document.attaches():
        require(alone)
        inspection.must_be_opened()
        inspection.opened_by(Reader.PDF)


def _check_streams(part: Part, inspection: Inspection) -> None:
    behind = 0
    for begin, bit in bits(part, _OVERLAP):
        for match in _STREAM.finditer(bit):
            if match.start() >= BIT:
                break  # the next one sees what follows it
            inspection.check_time()
            _check_stream(part, behind, begin + match.start(), bit[match.end() : match.end() + _BEGINNING])
            behind = begin + match.end()


def _check_stream(part: Part, behind: int, position: int, data: bytes) -> None:
    """Its dictionary lies `behind` the last stream's beginning: so no byte is looked at for two streams."""
    begin = max(behind, position - _OVERLAP)
    dictionary = _outermost(part.read(begin, position - begin))
    if _EMPTY.match(data) or _XREF.search(dictionary):
        return
    if found := _FILTER.search(dictionary):
        require(_hides_content(found[1], data), Reason.ENCRYPTED_DOCUMENT)
        return
    if not (_METADATA.search(dictionary) and _PLAIN_METADATA.match(data)):
        raise Unsure(Reason.ENCRYPTED_DOCUMENT)


def _hides_content(first_filter: bytes, data: bytes) -> bool:
    """Whether it is certainly encrypted, or a picture: what is not, clamd decrypts all the same."""
    if first_filter in _DEFLATE:
        return not is_plain(data)
    if first_filter in _TEXT:
        return not data.isascii()
    return first_filter in _PICTURES


def _outermost(text: bytes) -> bytes:
    """The dictionary that ends `text`, without strings, comments and the dictionaries inside it.

    Nothing where that is not certain.
    """
    headers = list(_OBJECT.finditer(text))
    dictionary = _without(_STRING, text[headers[-1].end() :] if headers else b"")
    if b"(" in dictionary or b")" in dictionary:
        return b""
    dictionary = _HEXADECIMAL.sub(b" ", _COMMENT.sub(b" ", dictionary)).strip()
    return _without(_DICTIONARY, dictionary.removeprefix(b"<<").removesuffix(b">>"))


def _without(nested: re.Pattern[bytes], text: bytes) -> bytes:
    """Remove matches from the innermost to the outermost; nothing is left where they lie too deep."""
    for _ in range(_MAX_NESTED):
        text, found = nested.subn(b" ", text)
        if not found:
            return text
    return b""
