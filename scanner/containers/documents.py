"""Documents that are encrypted where clamd does not say so: PDF and Office in OLE2 (ODF is in `zip`)."""

from __future__ import annotations

import re

from scanner.containers.embedded import contains_container
from scanner.containers.inspection import STEP, Inspection, Part, Unsure, require
from scanner.containers.pdf_encryption import check_encryption, is_plain
from scanner.containers.tar import begins_tar_later
from scanner.containers.zip import check_zip, without_rest, zip_end
from scanner.verdict import Reason

_OVERLAP = 8 * 1024
_MAX_NESTED = 32  # strings or dictionaries in each other, far more than anybody writes
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")

# A name may be written with any of its characters as #xx (ISO 32000-1, 7.3.5).
_ENCRYPT = re.compile(
    b"/" + b"".join(b"(?:%c|#%02x|#%02X)" % (c, c, c) for c in b"Encrypt") + rb"(?![A-Za-z#])"
)
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


def check_ole2(part: Part, inspection: Inspection) -> None:
    """Raises Unsure for an Office document behind a password ([MS-OFFCRYPTO] 2.3).

    One that ends in a ZIP (an embedded .xlsx) must be plain as such, too.
    """
    require(not contains_container(part) and not begins_tar_later(part))
    inspection.opened_by()
    if zip_end(part) is not None:
        check_zip(without_rest(part), inspection)
    for _, step in part.steps(overlap=len(_ENCRYPTED_PACKAGE)):
        require(_ENCRYPTED_PACKAGE not in step, Reason.ENCRYPTED_DOCUMENT)


def check_pdf(part: Part, inspection: Inspection) -> None:
    """Raises Unsure for an encrypted PDF with a stream that clamd does not decrypt: one without a filter.

    Other encrypted PDFs are clamd's: it opens them, or says that it cannot (facts/security.md, section 2).
    """
    if not any(_ENCRYPT.search(step) for _, step in part.steps(overlap=64)):
        return
    check_encryption(part, inspection.check_time)
    behind = 0
    for begin, step in part.steps(overlap=_OVERLAP):
        for match in _STREAM.finditer(step):
            if match.start() >= STEP:
                break  # the next step sees what follows it
            inspection.check_time()
            _check_stream(part, behind, begin + match.start(), step[match.end() : match.end() + _BEGINNING])
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
