from __future__ import annotations

import gzip
import struct
from itertools import count

import pytest
from py7zr import FILTER_LZMA2

from scanner.containers.inspection import SEARCHED, Part
from scanner.containers.opening import Opening, inspect
from scanner.containers.readers import Reader
from scanner.verdict import Reason
from tests.archives import judged, sevenzip_of, zip_of
from tests.compound_cases import DEFLATED, ENCRYPTED, NOISE, PACKED, SECRET, SEEN, hidden
from tests.compound_files import MAGIC, compound, laid_out
from tests.compound_mutants import workbook

OPENED = (Reader.OLE2,)


# -- plain: clamd scans each stream ------------------------------------------------------------------


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("shuffled", [None, 5])
def test_what_clamd_sees_is_plain(name: str, shuffled: int | None) -> None:
    assert judged(compound(SEEN[name], shuffled=shuffled)) is None


def test_several_new_office_files_in_a_stream_are_plain() -> None:
    """PowerPoint writes some. Where they lie in pieces near the file's end, other readers go wrong."""
    slides = b"\x0f\0\xe8\x03" + DEFLATED + bytes(90) + zip_of({"a": NOISE}) + bytes(90)
    assert judged(compound({"PowerPoint Document": slides})) is None
    assert judged(compound({"PowerPoint Document": slides}, shuffled=5)) is Reason.DAMAGED


# -- opened by us: clamd does not scan a stream, or not all that is in it ------------------------------


def test_what_clamd_does_not_see_is_opened() -> None:
    assert {name: judged(data) for name, data in hidden(SECRET).items()} == dict.fromkeys(hidden(b""), OPENED)


def test_a_stream_that_clamd_only_unpacks_is_opened() -> None:
    assert judged(compound({"x": b"MZ\0\0\x78\x9c" + NOISE})) == OPENED


def test_a_stream_that_clamd_would_decrypt_is_opened() -> None:
    """It looks for a key in the fifth sector, whatever that belongs to."""
    layout = laid_out({"large": NOISE, "x": SECRET})
    assert judged(layout.data) is None
    assert judged(layout.with_number(4 * 512 + 20, 0x660E)) == OPENED


# -- a ZIP that clamd does not know -------------------------------------------------------------------


def test_a_packed_zip_in_no_stream_is_ambiguous() -> None:
    """Readers that know no directory find it."""
    layout = laid_out({"x": NOISE}, spare=40)
    free = layout.data.index(bytes(512 * 20), 2048)
    for content, expected in ((DEFLATED, None), (PACKED, Reason.AMBIGUOUS)):
        data = layout.data[:free] + content[: 512 * 20] + layout.data[free + len(content[: 512 * 20]) :]
        assert judged(data + bytes(80_000)) is expected


def test_a_packed_zip_behind_the_file_is_ambiguous() -> None:
    data = compound({"x": NOISE})
    assert judged(data + PACKED) is Reason.AMBIGUOUS
    assert judged(data + DEFLATED) is None


def test_a_container_beside_one_that_was_looked_into_is_ambiguous() -> None:
    streams = {"a": sevenzip_of({"a": NOISE}, {"id": FILTER_LZMA2}), "b": NOISE}
    assert judged(compound(streams)) is None
    assert judged(compound(streams) + b"\xfd7zXZ\0\0\4\xe6\xd6\xb4\x46" + bytes(99)) is Reason.AMBIGUOUS


def test_what_lies_beyond_the_reach_of_7zip_is_not_searched() -> None:
    behind = b"\xff" * SEARCHED + b"\xfd7zXZ\0\0\4\xe6\xd6\xb4\x46" + bytes(99)
    assert judged(compound({"x": behind})) is None
    assert judged(compound({"x": behind[-200_000:]})) is Reason.AMBIGUOUS


# -- damaged and encrypted --------------------------------------------------------------------------


def test_what_is_no_compound_file_but_for_its_magic_is_damaged() -> None:
    assert judged(MAGIC + bytes(1016)) is Reason.DAMAGED
    assert judged(compound({"x": NOISE})[:3000]) is Reason.DAMAGED


def test_a_damaged_one_inside_is_damaged() -> None:
    whole = compound({"x": NOISE})
    assert judged(compound({"x": whole[:3000].ljust(len(whole), b"\0")[:6000]})) is Reason.DAMAGED


@pytest.mark.parametrize("name", ENCRYPTED)
@pytest.mark.parametrize("shuffled", [None, 5])
def test_an_office_file_behind_a_password_is_an_encrypted_document(name: str, shuffled: int | None) -> None:
    document = compound(ENCRYPTED[name], shuffled=shuffled)
    assert judged(document) is Reason.ENCRYPTED_DOCUMENT
    assert judged(zip_of({"mail.doc": document})) is Reason.ENCRYPTED_DOCUMENT


def test_a_text_about_encryption_is_plain() -> None:
    words = "EncryptedPackage".encode("utf-16-le")
    assert judged(compound({"WordDocument": b"\xec\xa5\xc1\0" + bytes(8) + words + NOISE})) is None
    assert judged(compound({"Current User": bytes(12) + b"\x5f\xc0\x91\xe3" + bytes(30)})) is None
    far = workbook(drawings=False)[:26] * 5 + struct.pack("<2H", 0x2F, 54) + bytes(54)
    assert judged(compound({"Workbook": far})) is None


def test_time_counts_while_what_lies_between_containers_is_searched() -> None:
    """Each gap may have as many signatures as a file."""
    assert times_asked(100) - times_asked(0) >= 4 * 100


def times_asked(containers: int) -> int:
    """How often it is asked whether there is any time left, for a file with so many in it."""
    calls = count()
    streams = {f"{number}": gzip.compress(b"x") for number in range(containers)}
    assert inspect(Part.of(compound({"x": NOISE} | streams)), 10, lambda: next(calls) < 0) == Opening("ole2")
    return next(calls)
