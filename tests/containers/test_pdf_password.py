from __future__ import annotations

import pytest

from scanner.containers.pdf_password import move_encryption

KEY = b"/Filter /Standard /V 2 /R 3 /O (a\\)b>>) /U <61> /P -4"
ID = b"/ID [<6162> <6162>]"


def pdf(trailer: bytes, *objects: bytes) -> bytes:
    body = b"".join(b"%d 0 obj\n%b\nendobj\n" % (number, text) for number, text in enumerate(objects, 1))
    return b"%PDF-1.7\n" + body + b"trailer\n<< /Root 1 0 R " + trailer + b" >>\n%%EOF\n"


def moved(content: bytes) -> bytes | None:
    changed = bytearray(content)
    return bytes(changed) if move_encryption(changed) else None


@pytest.mark.parametrize(
    ("length", "moved_length"), [(b"", b"40"), (b"/Length 16", b"128"), (b"/Length 128", b"128")]
)
def test_a_dictionary_in_the_trailer_becomes_an_object(length: bytes, moved_length: bytes) -> None:
    document = pdf(b"/Encrypt << " + KEY + length + b" >> " + ID, b"<< /Type /Catalog >>")
    changed = moved(document)
    assert changed is not None
    assert changed.startswith(document.replace(b"/Encrypt", b"/Xncrypt"))
    assert b"/Length " + moved_length + b" " in changed[len(document) :]
    assert changed.endswith(b"trailer\n<< /Encrypt 8388607 0 R /ID [<6162><6162>] >>\n%%EOF\n")


def test_a_dictionary_of_later_versions_is_moved_as_it_is() -> None:
    dictionary = b"<< /CF << /A << /CFM /AESV2 /Length 16 >> >> /V 4 /EncryptMetadata false /U (x) >>"
    changed = moved(pdf(b"/Encrypt 1 0 R", dictionary))
    assert changed is not None
    assert changed.endswith(
        b"8388607 0 obj\n" + dictionary + b"\nendobj\ntrailer\n<< /Encrypt 8388607 0 R /ID [<><>] >>\n%%EOF\n"
    )


@pytest.mark.parametrize(
    "document",
    [
        pdf(b"", b"<< >>"),
        pdf(b"/Encrypt 1 0 R /Encrypt 2 0 R", b"<< /V 1 >>", b"<< /V 2 >>"),
        pdf(b"/Encrypt 9 0 R", b"<< /V 1 >>"),
        pdf(b"/Encrypt 1 0 R", b"<< /V 1 >>") + b"1 0 obj << /V 2 >> endobj",
        pdf(b"/Encrypt 1 0 R /#45ncrypt 2 0 R", b"<< /V 1 >>", b"<< /V 2 >>"),
        pdf(b"/Encrypt << /V 1 >> /Encrypt << /V 2 >>", b"<< >>"),
        pdf(b"/Encrypt 1 0 R /ID [(a)(a)] /ID [(b)(b)]", b"<< /V 1 >>"),
        pdf(b"/Encrypt << /V 1 (", b"<< >>"),
    ],
)
def test_what_is_not_certain_stays(document: bytes) -> None:
    """Readers may go by another one than clamd would."""
    assert moved(document) is None
