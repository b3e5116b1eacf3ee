"""The files that are attached to a PDF, as `containers.pdf_attachments` finds them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from scanner.containers.inspection import Inspection, Part, Unsure
from scanner.containers.pdf_attachments import Document
from scanner.containers.pdf_decryption import Decryption
from scanner.containers.pdf_encryption import check_encryption, is_encrypted
from scanner.unpacking.allowance import Unreadable
from scanner.unpacking.entry import Entry, Piece


def entries(container: memoryview) -> Iterator[Entry]:
    """All of them, by the numbers of their objects; raises Unreadable."""
    part = Part(lambda offset, size: bytes(container[offset : offset + size]), 0, len(container))
    # Of its limits none counts: the process has its own.
    inspection = Inspection(_nothing, _nothing, _nothing, math.inf, lambda: False)
    with _translated():
        encryption = check_encryption(part, inspection.check_time) if is_encrypted(part) else None
        document = Document(part, inspection, Decryption(*encryption) if encryption else None)
        for number, pieces in document.attachments():
            yield Entry(b"object %d" % number, _pieces(pieces))


def _pieces(pieces: Iterator[bytes]) -> Iterator[Piece]:
    with _translated():
        yield from pieces


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Unsure as unsure:
        raise Unreadable(unsure.reason) from None


def _nothing(_: Part) -> None:
    return None
