"""Samples for the tests of engines, and a way to wait for what other processes and tasks do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
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


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait until `condition` holds, for `within` seconds at most."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  # it is somebody else's event
            await asyncio.sleep(0.01)
