"""Streams of PDFs that open without a password; what real programs encrypt is in `test_pdf_attachments`."""

from __future__ import annotations

import pytest

from scanner.containers.inspection import Unsure
from scanner.containers.pdf_decryption import Decryption, text
from scanner.containers.pdf_objects import Header
from scanner.verdict import Reason

HEADER = Header(4, 0, 0)
OLD = {b"/V": b"1", b"/R": b"2", b"/O": b"<00>", b"/P": b"-4"}
AES = {b"/V": b"4", b"/R": b"4", b"/O": b"(x)", b"/P": b"-4", b"/StmF": b"/StdCF"}


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        (b"<48 656c6>", b"Hel`"),
        (b"(a\\)b\\\\\\n\\101\\7)", b"a)b\\\n\x41\x07"),
        (b"(a\\\r\nb\\\nc\r\nd\re)", b"abc\nd\ne"),
        (b"(\\x)", b"x"),
    ],
)
def test_strings_stand_for_bytes(string: bytes, expected: bytes) -> None:
    assert text(string) == expected


def test_the_old_cipher_is_its_own_inverse() -> None:
    decryption = Decryption(OLD, b"(id)")
    secret = decryption.decrypt(HEADER, b"content")
    assert secret != b"content"
    assert decryption.decrypt(HEADER, secret) == b"content"
    assert decryption.decrypt(Header(5, 0, 0), secret) != b"content"


@pytest.mark.parametrize(
    "said",
    [
        {},
        OLD | {b"/R": b"x"},
        {name: value for name, value in OLD.items() if name != b"/O"},
        AES,
        AES | {b"/CF": b"<< /StdCF << /CFM /None >> >>"},
        AES | {b"/CF": b"<< /StdCF << /CFM /AESV2 >> >>", b"/StmF": b"/StdCF", b"/EFF": b"/Identity"},
        AES | {b"/CF": b"<< /StdCF << /CFM /AESV2 >> >>", b"/StmF": b"/Identity"},
        AES
        | {b"/V": b"5", b"/R": b"6", b"/CF": b"<< /StdCF << /CFM /AESV3 >> >>", b"/U": b"()", b"/UE": b"()"},
    ],
)
def test_what_no_program_writes_is_an_encrypted_document(said: dict[bytes, bytes]) -> None:
    with pytest.raises(Unsure) as unsure:
        Decryption(said, b"").decrypt(HEADER, bytes(64))
    assert unsure.value.reason is Reason.ENCRYPTED_DOCUMENT


def test_nothing_comes_of_less_than_a_block() -> None:
    decryption = Decryption(AES | {b"/CF": b"<< /StdCF << /CFM /AESV2 >> >>"}, b"")
    assert decryption.decrypt(HEADER, b"short") == b""
    assert decryption.decrypt(HEADER, bytes(16)) == b""
