"""The streams of an old Office file ([MS-CFB]), as `containers.ole2` reads them."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.containers.inspection import Part, Unsure
from scanner.containers.ole2 import CompoundFile
from scanner.unpacking.allowance import Unreadable
from scanner.unpacking.entry import Entry


def entries(container: memoryview) -> Iterator[Entry]:
    """All streams, with the storages around them; raises Unreadable."""
    part = Part(lambda offset, size: bytes(container[offset : offset + size]), 0, len(container))
    try:
        for stream in CompoundFile(part).streams():
            path = "/".join(stream.path).encode(errors="surrogatepass")
            yield Entry(path, (piece for _, piece in stream.content.steps()))
    except Unsure as unsure:
        raise Unreadable(unsure.reason) from None
