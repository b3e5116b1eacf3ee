"""Samples for the tests of engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from scanner.media import BodyWriter, Sample


@contextmanager
def sample(data: bytes) -> Iterator[Sample]:
    """An unencrypted sample of these bytes."""
    writer = BodyWriter()
    writer.write(data)
    body = writer.seal()
    try:
        yield Sample(body)
    finally:
        body.release()
