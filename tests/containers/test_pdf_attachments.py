"""What is attached to a PDF is found wherever readers find it, or the PDF is withheld."""

from __future__ import annotations

import base64
import math
import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest

from scanner.containers.inspection import Inspection, Part, Unsure
from scanner.containers.pdf_attachments import Document
from scanner.containers.readers import Reader
from scanner.verdict import Outcome, Reason
from tests.archives import judged, tar_of, zip_of
from tests.judging import judging_bytes
from tests.pdfs import attached, deflated, in_object_stream, pdf_of, stream
from tests.real_clamd import EICAR, Clamd

CONTENT = b"attached, and more of it " * 9
ATTACHED = (Reader.PDF,)


def document_of(content: bytes) -> Document:
    def nothing(_: Part) -> None:
        return None

    return Document(Part.of(content), Inspection(nothing, nothing, nothing, math.inf, lambda: False))


def attachments(content: bytes) -> list[bytes]:
    return [b"".join(pieces) for _, pieces in document_of(content).attachments()]


WRITTEN = {
    "deflated": attached(deflated(CONTENT)),
    "as it is": attached(stream(CONTENT)),
    "in a list": attached(stream(zlib.compress(CONTENT), b"/Filter [ /FlateDecode ] ")),
    "octet stream": attached(
        deflated(CONTENT, b"/Type /EmbeddedFile /Subtype /application#2Foctet-stream\n")
    ),
    "with parameters": attached(
        deflated(CONTENT, b"/Params << /Size 3 /CheckSum <00> /ModDate (D:2(0)) >> ")
    ),
    "dictionary apart": attached(deflated(CONTENT), specification=b"<< /EF 6 0 R >> 6 0 obj << /UF 4 0 R >>"),
    "in an object stream": attached(
        deflated(CONTENT), specification=in_object_stream({7: b"<< /EF << /F 4 0 R >> >>"})
    ),
    "with a picture": attached(
        deflated(CONTENT), page=stream(b"\xff\xd8\xff\xe0", b"/Filter /DCTDecode /Width 9 ")
    ),
}


def hybrid(listed: bytes) -> bytes:
    """A PDF that LibreOffice opens as the document from which it was made."""
    return pdf_of({1: b"<< /Type /Catalog >>", 4: deflated(CONTENT)}, b"/AdditionalStreams " + listed)


@pytest.mark.parametrize(
    "listed",
    [
        b"[/application#2Fvnd#2Eoasis#2Eopendocument#2Etext 4 0 R\n]\n",
        b"[ /a 4 0 R /b 4 0 R]",
        b"[/a 1 0 R/b  4  0  R ]",
    ],
)
def test_what_libreoffice_opens_instead_is_taken_out(listed: bytes) -> None:
    assert judged(hybrid(listed)) == ATTACHED
    assert attachments(hybrid(listed)) == [CONTENT]


@pytest.mark.parametrize(
    "listed", [b"5 0 R ", b"[4 0 R]", b"[/a 4 0 R % ]\n]", b"[/a 4 0 R [] ]", b"[/a (b) 4 0 R]"]
)
def test_what_libreoffice_lists_otherwise_is_withheld(listed: bytes) -> None:
    with pytest.raises(Unsure):
        attachments(hybrid(listed))


@pytest.mark.parametrize("document", WRITTEN.values(), ids=WRITTEN)
def test_what_programs_attach_is_taken_out(document: bytes) -> None:
    assert judged(document) == ATTACHED
    assert attachments(document) == [CONTENT]


def test_an_empty_file_is_attached_as_nothing() -> None:
    """Qpdf calls it deflated."""
    assert attachments(attached(stream(b"", b"/Filter /FlateDecode "))) == [b""]


def test_length_may_be_elsewhere() -> None:
    content = (
        b"<< /Filter /FlateDecode /Length 9 0 R >> stream\r\n" + zlib.compress(CONTENT) + b"\r\nendstream"
    )
    assert attachments(attached(content)) == [CONTENT]


OUTLINES = b"<< /First 5 0 R /Last 6 0 R /Title (stream \\(a\\) (b)) >>"


@pytest.mark.parametrize(
    "objects",
    [
        {1: b"<< /Type /Catalog >>", 4: deflated(CONTENT)},
        {1: OUTLINES, 4: in_object_stream({5: b"<< /EFF /F /Type /Font >>"})},
        {1: b"<< /S /First >>", 4: stream(b"\xff\xd8", b"/Filter [/ASCII85Decode /DCTDecode] ")},
    ],
)
def test_a_pdf_without_attachments_is_plain(objects: dict[int, bytes]) -> None:
    assert judged(pdf_of(objects)) is None


ELSEWHERE = b"<< /EF << /F 4 0 R >> >>"
ODD = {
    "LZW": attached(stream(b"\x80\x0b", b"/Filter /LZWDecode ")),
    "text": attached(stream(base64.a85encode(CONTENT) + b"~>", b"/Filter /ASCII85Decode ")),
    "two filters": attached(
        deflated(zlib.compress(CONTENT), b"/X 1 ")
        .replace(b"/Fl", b"[/FlateDecode /Fl")
        .replace(b"code /X", b"code] /X")
    ),
    "predictor": attached(deflated(CONTENT, b"/DecodeParms << /Predictor 15 >> ")),
    "second name of a filter": attached(stream(CONTENT, b"/F /LZWDecode ")),
    "filter elsewhere": attached(stream(CONTENT, b"/Filter 9 0 R ")),
    "escaped filter": attached(stream(zlib.compress(CONTENT), b"/Filter /Flate#44ecode ")),
    "escaped name": attached(stream(zlib.compress(CONTENT), b"/F#69lter /FlateDecode ")),
    "filter twice": attached(deflated(CONTENT, b"/Filter /LZWDecode ")),
    "comment in its beginning": attached(deflated(CONTENT)).replace(b"4 0 obj", b"4 %x\n0 obj"),
    "comment in it": attached(deflated(CONTENT, b"% /X\n")),
    "something behind stream": attached(deflated(CONTENT)).replace(b">>\nstream\n", b">>\nstream \n"),
    "a reference to a reference": attached(b"7 0 R"),
    "a reference without end": attached(deflated(CONTENT)).replace(b"4 0 R", b"4%" + b"y" * 9000 + b"\n0 R"),
    "not whole": attached(deflated(CONTENT).replace(b"\nendstream", b"")[:-9]),
    "more behind it": attached(deflated(CONTENT).replace(b"\nendstream", b"\nmore\nendstream")),
}


@pytest.mark.parametrize("document", ODD.values(), ids=ODD)
def test_what_no_program_attaches_so_is_withheld(document: bytes) -> None:
    assert judged(document) == ATTACHED
    with pytest.raises(Unsure):
        attachments(document)


@pytest.mark.parametrize(
    "packed",
    [
        in_object_stream({7: ELSEWHERE}, b"/DecodeParms << /Predictor 12 >> "),
        in_object_stream({7: ELSEWHERE}).replace(b"/FlateDecode", b"/LZWDecode"),
        in_object_stream({7: ELSEWHERE}).replace(b"/FlateDecode", b"9 0 R"),
        in_object_stream({7: ELSEWHERE}).replace(b"/First 4", b"/First%x\n4"),
        in_object_stream({7: ELSEWHERE}).replace(b"/First", b"/F#69rst"),
        in_object_stream({7: ELSEWHERE}).replace(b"/First 4", b"/First 9 0 R"),
        in_object_stream({7: ELSEWHERE}).replace(b"/First 4", b"/First 9 0 R /X (endobj)"),
        in_object_stream({7: ELSEWHERE}, b"% endobj\n"),
    ],
)
def test_an_object_stream_that_is_not_read_is_withheld(packed: bytes) -> None:
    document = attached(deflated(CONTENT), specification=packed)
    assert isinstance(judged(document), Reason)


REFERRED = [b"/F 4 0R", b"/F#00 4 0 R", b"/F\x0b4\x0b0 R", b"/U#46#00x 4 0 R", b"/F +004 00 R"]


@pytest.mark.parametrize("written", REFERRED)
def test_what_some_program_takes_for_a_reference_is_followed(written: bytes) -> None:
    document = attached(deflated(CONTENT)).replace(b"/F 4 0 R", written)
    assert attachments(document) == [CONTENT]


@pytest.mark.parametrize("name", [b"/EF#00 ", b"/E#46#00x ", b"/EF\x0b"])
def test_what_some_program_takes_for_ef_attaches(name: bytes) -> None:
    document = attached(deflated(CONTENT)).replace(b"/EF ", name)
    assert judged(document) == ATTACHED
    assert attachments(document) == [CONTENT]


@pytest.mark.parametrize("written", [b"4.0 0 R", b"40e-1 0 R", b"4 -0 R", b"4 0.0 R", b"4-1 0 R", b"4 0 #52"])
def test_a_reference_by_numbers_that_no_program_writes_is_withheld(written: bytes) -> None:
    with pytest.raises(Unsure):
        attachments(attached(deflated(CONTENT)).replace(b"4 0 R", written))


@pytest.mark.parametrize("written", [b"00000000004 0 obj", b"4 00000000000 obj", b"+4 0 obj", b"4\x0b0 obj"])
def test_an_object_whose_number_is_written_otherwise_is_found(written: bytes) -> None:
    assert attachments(attached(deflated(CONTENT)).replace(b"4 0 obj", written)) == [CONTENT]


@pytest.mark.parametrize("written", [b"4.0 0 obj", b"40e-1 0 obj", b"4 -0 obj", b"4 0 ob#6a", b"4 0 #6fbj"])
def test_an_object_whose_beginning_no_program_writes_is_withheld(written: bytes) -> None:
    with pytest.raises(Unsure):
        attachments(attached(deflated(CONTENT)).replace(b"4 0 obj", written))


WITHOUT_FIRST = [b"", b"/First null ", b"/First /X ", b"/Type /XObject "]
REFERENCES = b"<< /Type /XRef /W [1 2 1] >>"


@pytest.mark.parametrize("said", WITHOUT_FIRST)
def test_mupdf_reads_objects_from_any_stream_with_a_number_of_them(said: bytes) -> None:
    packed = deflated(b"7 4 << /EF << /F 4 0 R >> >>", b"/N 1 " + said)
    document = attached(deflated(CONTENT), specification=packed, page=REFERENCES)
    assert judged(document) == ATTACHED
    assert attachments(document) == [CONTENT]


@pytest.mark.parametrize(
    "objects",
    [
        {4: deflated(CONTENT, b"/N 3 /Alternate /DeviceRGB "), 5: REFERENCES},
        {4: stream(b"\x80\x0b", b"/N 3 /Filter /LZWDecode ")},
        {4: b"<< /Functions [ << /N 1 >> << /N 1 >> ] >>", 5: REFERENCES},
        {4: stream(b"\xff", b"/Filter /DCTDecode /Function << /FunctionType 2 /N 1 >> "), 5: REFERENCES},
        {4: b"<< /AP << /N 9 0 R >> >>", 5: REFERENCES},
    ],
)
def test_a_number_of_something_else_is_innocent(objects: dict[int, bytes]) -> None:
    assert judged(pdf_of({1: b"<< /Type /Catalog >>"} | objects)) is None


def test_an_object_that_is_another_one_in_an_object_stream_is_withheld() -> None:
    """By pdf.js it is followed."""
    packed = in_object_stream({7: b"<< /EF << /F 8 0 R >> >>", 8: b"4 0 R"})
    document = attached(deflated(CONTENT), specification=packed)
    assert judged(document) == ATTACHED
    with pytest.raises(Unsure):
        attachments(document)


HEADLESS = [b"%XDF-1.7\n", b"\0" * 9, b"%PDF 1.7\n", b"\xff\xd8\xff\xe0" * 400, b"junk\n" * 300 + b"%PDF-"]


@pytest.mark.parametrize("begins", HEADLESS)
def test_what_begins_as_no_pdf_and_has_something_attached_is_withheld(begins: bytes) -> None:
    assert judged(attached(deflated(CONTENT)).replace(b"%PDF-1.7\n", begins)) is Reason.AMBIGUOUS
    assert judged(pdf_of({1: b"<< /Type /Catalog >>"}).replace(b"%PDF-1.7\n", begins)) is None


def test_a_pdf_that_is_something_else_as_well_has_nothing_attached() -> None:
    document = WRITTEN["deflated"]
    assert judged(tar_of({"%PDF-1.7": document})) is Reason.AMBIGUOUS
    assert judged(zip_of({"mail.pdf": document})) == (Reader.LIBARCHIVE,)


def restricted(document: bytes, folder: Path, options: str) -> bytes:
    """The same behind an owner's password, by qpdf."""
    source, target = folder / "plain.pdf", folder / "restricted.pdf"
    source.write_bytes(document)
    command = ["qpdf", "--allow-weak-crypto", *options.split(), "--", str(source), str(target)]
    subprocess.run([word.replace("''", "") for word in command], check=True, capture_output=True)
    return target.read_bytes()


ENCRYPTIONS = [
    *("--encrypt '' owner 40", "--encrypt '' owner 128 --use-aes=n", "--encrypt '' owner 128 --use-aes=y"),
    *("--encrypt '' owner 256", "--encrypt '' owner 256 --force-R5"),
    "--encrypt '' owner 128 --use-aes=y --cleartext-metadata",
]
SHAPES = ["--object-streams=disable", "--object-streams=generate", "--object-streams=generate --linearize"]


@pytest.mark.real
@pytest.mark.timeout(180)
@pytest.mark.skipif(shutil.which("qpdf") is None, reason="qpdf writes these")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("encryption", ["", *ENCRYPTIONS])
async def test_malware_in_what_is_attached_is_found(
    clamd: Clamd, tmp_path: Path, encryption: str, shape: str
) -> None:
    """In an archive that clamd does not open; its clean twin is delivered."""
    infected, clean = (
        restricted(
            attached(deflated(zip_of({"a": content}, zipfile.ZIP_LZMA))), tmp_path, f"{shape} {encryption}"
        )
        for content in (EICAR, CONTENT)
    )
    assert clamd.scan(infected).endswith("OK")
    async with judging_bytes(clamd, tmp_path) as judge:
        assert (await judge(infected)).outcome is Outcome.INFECTED
        assert (await judge(clean)).outcome is Outcome.CLEAN


@pytest.mark.real
async def test_what_clamd_overlooks_in_a_pdf_is_found(clamd: Clamd, tmp_path: Path) -> None:
    document = attached(deflated(zip_of({"a": EICAR}), b"/Subtype /application#2Foctet-stream\n"))
    assert clamd.scan(document).endswith("OK")
    async with judging_bytes(clamd, tmp_path) as judge:
        assert (await judge(document)).outcome is Outcome.INFECTED
