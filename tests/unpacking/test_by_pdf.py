from __future__ import annotations

import pytest

from scanner.unpacking import by_pdf
from scanner.unpacking.allowance import Unreadable
from scanner.verdict import Reason
from tests.pdfs import attached, deflated, stream


def entries(document: bytes) -> list[tuple[bytes, bytes]]:
    return [(path, b"".join(map(bytes, pieces))) for path, pieces in by_pdf.entries(memoryview(document))]


def test_attached_files_have_the_numbers_of_their_objects() -> None:
    assert entries(attached(deflated(b"content"))) == [(b"object 4", b"content")]


def test_a_damaged_one_is_unreadable() -> None:
    document = attached(deflated(b"content").replace(b"\nendstream", b"")[:-5])
    with pytest.raises(Unreadable) as refusal:
        entries(document)
    assert refusal.value.reason is Reason.DAMAGED


def test_one_that_is_packed_otherwise_is_unreadable() -> None:
    with pytest.raises(Unreadable) as refusal:
        entries(attached(stream(b"content", b"/Filter /LZWDecode ")))
    assert refusal.value.reason is Reason.AMBIGUOUS
