from __future__ import annotations

import struct

from scanner.verdict import Reason
from tests.archives import judged

VERSION_4, VERSION_5 = b"Rar!\x1a\x07\0", b"Rar!\x1a\x07\1\0"


def header_4(kind: int, flags: int, data: bytes = b"") -> bytes:
    return struct.pack("<HBHHL", 0, kind, flags | 0x8000, 11, len(data)) + data


def header_5(*content: int, extra: bytes = b"") -> bytes:
    body = bytes(content) + extra
    return bytes(4) + bytes([len(body)]) + body


def test_rar_is_never_plain() -> None:
    """Debian's clamd does not open it."""
    for archive in (
        VERSION_4 + header_4(0x73, 0) + header_4(0x74, 0, b"data"),
        VERSION_5 + header_5(1, 0, 0) + bytes(9),
    ):
        assert judged(archive) is Reason.AMBIGUOUS


def test_encrypted_headers_and_members_of_version_4_are_told() -> None:
    assert judged(VERSION_4 + header_4(0x73, 0x80)) is Reason.ENCRYPTED_ARCHIVE
    assert (
        judged(VERSION_4 + header_4(0x73, 0) + header_4(0x74, 0, b"x" * 99) + header_4(0x74, 4))
        is Reason.ENCRYPTED_ARCHIVE
    )


def test_encrypted_headers_and_members_of_version_5_are_told() -> None:
    record = b"\5\1abcd"
    assert judged(VERSION_5 + header_5(4, 0, 0, 0)) is Reason.ENCRYPTED_ARCHIVE
    members = header_5(1, 0, 0) + header_5(2, 1, len(record), 0, extra=record)
    assert judged(VERSION_5 + members) is Reason.ENCRYPTED_ARCHIVE


def test_endless_headers_end() -> None:
    assert judged(VERSION_5 + b"\xff" * 5000) is Reason.AMBIGUOUS
    assert judged(VERSION_5 + header_5(2, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F) + bytes(5000)) is Reason.AMBIGUOUS
