"""What libraries log becomes an event, without the arguments: a token could be among them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from scanner.events import LibraryWarned, Publish


@contextmanager
def library_log(publish: Publish) -> Iterator[None]:
    """Inside the block, warnings and worse of every library are published."""
    handler = _Handler(publish)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, publish: Publish) -> None:
        super().__init__(logging.WARNING)
        self._publish = publish

    def emit(self, record: logging.LogRecord) -> None:
        self._publish(LibraryWarned(record.name, str(record.msg).partition("\n")[0]))
