"""One encryption dictionary that everybody goes by; what else clamd would decrypt wrongly is refused."""

from __future__ import annotations

import random
import zlib

import pytest

from scanner.containers.pdf_encryption import is_plain
from scanner.verdict import Reason
from tests.archives import judged

DICTIONARY = b"<< /Filter /Standard /V 1 /R 2 /O <00> /U <00> >>"
OBJECT = b"5 0 obj\n%b\nendobj\n" % DICTIONARY
TRAILER = b"trailer\n<< /Root 1 0 R /ID [(a) (b)] /Encrypt 5 0 R >>\n"
STREAM = b"4 0 obj\n<< /Length 8 /Filter /FlateDecode >>\nstream\n\x8f\x12secret\nendstream\nendobj\n"


def pdf(*parts: bytes) -> bytes:
    return b"%PDF-1.7\n" + STREAM + b"".join(parts) + b"%%EOF\n"


@pytest.mark.parametrize(
    "parts",
    [
        (OBJECT, TRAILER),
        (OBJECT, TRAILER, TRAILER),
        (OBJECT, TRAILER, b"trailer << /Size 9 >>\n"),
        (b"trailer\n<< /Root 1 0 R /Encrypt ", DICTIONARY, b" >>\n"),
        (OBJECT, b"7 0 obj\n<< /Type /XRef /Root 1 0 R /Encrypt 5 0 R /Filter /FlateDecode >>\n"),
        (b"5 0 obj<</StandardEncoding 1/Filter/Standard/CF<</StdCF<</CFM/V2>>>>/StmF/StdCF>>\n", TRAILER),
    ],
)
def test_what_programs_write_is_left_to_clamd(parts: tuple[bytes, ...]) -> None:
    assert judged(pdf(*parts)) is None


DECOY = OBJECT.replace(b"<00>", b"<01>")


@pytest.mark.parametrize(
    "parts",
    [
        (OBJECT, TRAILER.replace(b"Encrypt", b"#45ncrypt")),
        (OBJECT, TRAILER.replace(b"Encrypt", b"Encrypt#00")),
        (OBJECT, b"6 0 obj", DECOY[7:], TRAILER, b"% /Encrypt 6 0 R\n"),
        (OBJECT.replace(b"5 0", b"5%\n0"), DECOY, TRAILER),
        (OBJECT.replace(b"5 0", b"5\0 0"), DECOY, TRAILER),
        (OBJECT.replace(b"5 0", b"05 0"), DECOY, TRAILER),
        (OBJECT.replace(b"5 0", b"15 0"), DECOY, TRAILER),
        (OBJECT.replace(b"/Standard", b"7 0 R"), b"7 0 obj /Standard endobj\n", TRAILER),
        (OBJECT.replace(b"/Standard", b"7 0 R"), DECOY, b"7 0 obj /St#61ndard endobj\n", TRAILER),
        (OBJECT.replace(b"/O <00>", b"/O <01> /O <00>"), TRAILER),
        (OBJECT, b"% /Encrypt 5 0 R\ntrailer << /Root 1 0 R >>\n"),
        (OBJECT, b"trailer << /Root 1 0 R /X (/Encrypt 5 0 R) >>\n"),
        (OBJECT, b"trailer << /Root 1 0 R /X << /Encrypt 5 0 R >> >>\n"),
        (OBJECT, TRAILER, b"trailer%x\n<< /Root 1 0 R >>\n"),
        (OBJECT, TRAILER.replace(b"/Encrypt ", b"/Encrypt%\n"), b"% /Encrypt 5 0 R\n"),
        (OBJECT, TRAILER, b"7 0 obj\n<< /Type /XRef /Root 1 0 R >>\n"),
        (OBJECT, b"7 0 obj\n<< /Type /XRef /Root 1 0 R /Encrypt 5 0 R >>\n/LZWDecode "),
        (b"trailer << /Encrypt ", DICTIONARY, b" >>\ntrailer << /Encrypt ", DICTIONARY, b" >>\n"),
        (TRAILER,),
    ],
)
def test_what_clamd_and_readers_may_decrypt_in_two_ways_is_an_encrypted_document(
    parts: tuple[bytes, ...],
) -> None:
    assert judged(pdf(*parts)) is Reason.ENCRYPTED_DOCUMENT


def test_what_is_encrypted_does_not_unpack() -> None:
    chance = random.Random(1)
    assert not any(is_plain(chance.randbytes(chance.randrange(2, 2000))) for _ in range(20_000))
    assert is_plain(zlib.compress(b"secret"))
    assert is_plain(zlib.compress(chance.randbytes(5000)))
