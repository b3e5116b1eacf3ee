"""What our own reader says of an old Office file: every stream, or a reason."""

from __future__ import annotations

import pytest

from scanner.unpacking.allowance import Unreadable
from scanner.unpacking.by_ole2 import entries
from scanner.verdict import Reason
from tests.compound_files import compound

STREAMS = {
    "small": b"some text",
    "storage/\1large": bytes(300_000),
    "storage/\xe4": b"more text",
    "empty": b"",
}


def read(data: bytes) -> dict[bytes, bytes]:
    return {path: b"".join(map(bytes, pieces)) for path, pieces in entries(memoryview(bytearray(data)))}


@pytest.mark.parametrize("version", [3, 4])
def test_every_stream_is_seen_with_its_storages(version: int) -> None:
    expected = {path.encode(): content for path, content in STREAMS.items()}
    assert read(compound(STREAMS, version=version, shuffled=1)) == expected


def test_a_name_that_is_no_text_is_seen() -> None:
    data = compound({"name": b"some text"}).replace(b"n\0a\0m\0e\0", b"\0\xd8a\0/\0\0\xdc")
    (path,) = read(data)
    assert path == "\ud800a/\udc00".encode(errors="surrogatepass")


def test_what_is_no_compound_file_is_damaged() -> None:
    for data in (b"", b"PK\3\4" + bytes(600), compound(STREAMS)[:5000]):
        with pytest.raises(Unreadable) as caught:
            read(data)
        assert caught.value.reason is Reason.DAMAGED
