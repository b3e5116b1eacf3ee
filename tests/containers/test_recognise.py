from __future__ import annotations

import pytest

from scanner.verdict import Reason
from tests.archives import judged


@pytest.mark.parametrize(
    "start",
    [
        b"\x28\xb5\x2f\xfd",
        b"\x25\xb5\x2f\xfd",
        b"\x50\x2a\x4d\x18",
        b"\x04\x22\x4d\x18",
        b"LZIP\1",
        b"\x1f\x9d\x90",
        b"\x1f\x9e\x08",
        b"\x1f\x1e\0\0\0\x10\x05",
        b"!<arch>\n",
        b"070701",
        b"xar!",
        b"\xed\xab\xee\xdb",
        b"WARC/1.0",
        b"#mtree",
        b"MSCF\0\0\0\0",
        b"MSWIM\0\0\0",
        b"ITSF",
        b"..-lh5-",
        b"\x60\xea",
        b"hsqs",
        b"vhdxfile",
        b"begin 644 x\n",
        bytes(32769) + b"CD001",
        b"x" * 100 + b"koly" + bytes(508),
    ],
)
def test_containers_that_clamd_opens_partly_or_not_at_all_are_ambiguous(start: bytes) -> None:
    assert judged(start + (b"" if b"koly" in start else bytes(64))) is Reason.AMBIGUOUS


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"hello",
        b"plain text\n" * 20,
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"\0\0\0\x18ftypmp42" + bytes(99),
        b"OggS" + bytes(99),
        b"{\\rtf1 }" + b" " * 20,
        b"<html></html>" + b" " * 20,
        bytes(5000),
        b"\x1f\x8b\x07" + bytes(20),
        b"\x1f\x1e\0\0\0\x10\x1a" + bytes(20),
        b"\x60\xea\0\x0b" + bytes(20),
    ],
)
def test_what_is_no_container_is_plain(content: bytes) -> None:
    assert judged(content) is None
