from __future__ import annotations

import time
import zlib

import pytest

from scanner.containers.inspection import STEP
from scanner.verdict import Reason
from tests.archives import SOUND, judged, tar_of


def pdf(*objects: bytes, trailer: bytes = b"/Encrypt 999 0 R") -> bytes:
    body = b"".join(
        b"%d 0 obj\n%s\nendobj\n" % (number, content) for number, content in enumerate(objects, 1)
    )
    body += b"999 0 obj\n<< /Filter /Standard /V 1 /R 2 >>\nendobj\n"
    return b"%PDF-1.7\n" + body + b"trailer\n<< /Root 1 0 R " + trailer + b" >>\n%%EOF\n"


def stream(dictionary: bytes, data: bytes = b"\x8f\x12secret") -> bytes:
    return dictionary + b"\nstream\n" + data + b"\nendstream"


FILTERED = stream(b"<< /Length 8 /Filter /FlateDecode >>")
UNFILTERED = stream(b"<< /Length 8 >>")


def test_a_pdf_that_is_not_encrypted_is_plain() -> None:
    assert judged(pdf(UNFILTERED, trailer=b"/EncryptMetadata false")) is None


def test_an_encrypted_pdf_of_filtered_streams_is_left_to_clamd() -> None:
    assert (
        judged(pdf(FILTERED, stream(b"<</Filter[/FlateDecode]/DecodeParms<</Predictor 12>>/Length 8>>")))
        is None
    )


@pytest.mark.parametrize(
    "dictionary",
    [
        b"<< /Length 8 >>",
        b"<< /Length 8 /Params << /Filter /FlateDecode >> >>",
        b"<< /Length 8 /Desc (/Filter /FlateDecode) >>",
        b"<< /Length 8 /Desc (1 0 obj << /Filter /FlateDecode) >>",
        b"<< /Length 8 /Desc (\n1 0 obj << /Filter /FlateDecode) >>",
        b"<< /Length 8 % 1 0 obj << /Filter /FlateDecode\n >>",
        b"<< /Length 8 /Filter [] >>",
        b"<< /Length 8 /Filter /Crypt >>",
        b"<< /Length 8 /Type /Metadata /Subtype /XML >>",
    ],
)
def test_an_encrypted_stream_without_a_filter_is_an_encrypted_document(dictionary: bytes) -> None:
    assert judged(pdf(FILTERED, stream(dictionary))) is Reason.ENCRYPTED_DOCUMENT


def test_the_name_encrypt_may_be_escaped() -> None:
    assert judged(pdf(UNFILTERED, trailer=b"/#45ncry#70t 9 0 R")) is Reason.ENCRYPTED_DOCUMENT


@pytest.mark.parametrize(
    "dictionary",
    [b"/Filter /FlateDecode", b"/Filter [/FlateDecode]", b"/Type /Metadata /Filter /FlateDecode"],
)
def test_a_stream_that_is_not_encrypted_in_a_pdf_that_is_would_be_hidden_from_clamd(
    dictionary: bytes,
) -> None:
    plain = stream(b"<< %b >>" % dictionary, zlib.compress(b"secret"))
    assert judged(pdf(FILTERED, plain)) is Reason.ENCRYPTED_DOCUMENT


def test_a_pdf_that_is_something_else_as_well_is_looked_at_as_a_pdf() -> None:
    document = pdf(FILTERED, trailer=b"/#45ncrypt 9 0 R")
    both = tar_of({"%PDF-1.7": document})
    assert judged(both) is Reason.ENCRYPTED_DOCUMENT
    assert judged(tar_of({"%PDF-1.7": pdf(FILTERED)})) == SOUND


def test_white_space_without_end_costs_no_more_than_its_size() -> None:
    """Else the interpreter is held for half a second by each stream."""
    spaces = b"\n" * 8000
    hostile = [pdf(*[spaces + FILTERED] * 20), pdf(*[stream(b"<< /Filter" + spaces + b">>")] * 20)]
    began = time.monotonic()
    for document in hostile:
        judged(document)
    assert time.monotonic() - began < 1


def test_metadata_that_is_left_plain_is_plain() -> None:
    metadata = stream(b"<< /Type /Metadata /Subtype /XML /Length 99 >>", b'<?xpacket begin=""?><x:xmpmeta/>')
    assert judged(pdf(FILTERED, metadata)) is None


def test_what_nobody_nests_so_deep_is_taken_for_encrypted() -> None:
    nested = b"<< /Filter /FlateDecode /A " + b"(" * 100 + b")" * 100 + b" >>"
    assert judged(pdf(stream(nested))) is Reason.ENCRYPTED_DOCUMENT
    assert judged(pdf(stream(nested.replace(b"(" * 90, b"").replace(b")" * 90, b"")))) is None


def test_a_pdf_full_of_streams_costs_no_more_than_its_size() -> None:
    """Each stream's dictionary is looked for once, and not in all that came before."""
    crowded = b"1 0 obj" + b"(" * 3500 + b")" * 3500 + b" stream\nendstream" * 30
    began = time.process_time()
    assert judged(pdf(*[crowded] * 200)) is None
    assert time.process_time() - began < 5


def test_a_pdf_that_takes_too_long_has_its_end() -> None:
    assert judged(pdf(FILTERED), timeout=-1) is Reason.TIME_LIMIT


@pytest.mark.parametrize("before", range(60, 90, 7))
def test_an_empty_stream_where_two_steps_meet_is_seen_whole(before: int) -> None:
    beginning = b"% " + b"x" * (STEP + 8 * 1024 - before - 40) + b"\n"
    assert judged(pdf(beginning + stream(b"<< /Length 0 >>", b""), FILTERED)) is None
