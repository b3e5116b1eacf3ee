"""What kind of file is it? libmagic's answer, against the operator's lists.

libmagic gets a descriptor, as from `file`, and reads what it wants (up to 7 MiB and the end): with only
the beginning, JSON is plain text and an old Word document any OLE file. Names and headers do not count.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Self

import magic

from scanner.errors import EngineError
from scanner.media import Sample
from scanner.verdict import Outcome, Reason, Report


class Mime:
    """An Engine that forbids media types; use it as an async context manager.

    A list names types exactly (`image/png`) or by their first half (`image/*`); without any, nothing is
    asked of libmagic. `timeout` is in seconds and includes the wait for the one worker thread, because a
    few megabytes of line feeds keep libmagic busy for a third of a second.
    """

    name = "mime"

    def __init__(
        self,
        allowed: Collection[str] | None = None,
        blocked: Collection[str] | None = None,
        timeout: float = 5.0,
    ) -> None:
        self._timeout = timeout
        self._magic = magic.Magic(mime=True)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="libmagic")
        self._take(allowed, blocked)

    def _take(self, allowed: Collection[str] | None, blocked: Collection[str] | None) -> None:
        self._allowed = allowed
        self._blocked = blocked
        self._version = f"{_libmagic_version()}/{_digest(allowed, blocked)}"
        self._clean = Report(self.name, Outcome.CLEAN, self._version)
        self._forbidden = Report(self.name, Outcome.FORBIDDEN, self._version, Reason.FORBIDDEN_TYPE)

    def with_lists(self, allowed: Collection[str] | None, blocked: Collection[str] | None) -> Self:
        """Another with these lists, for as long as this one is open: they share libmagic and its thread."""
        other = copy(self)
        other._take(allowed, blocked)  # noqa: SLF001 - it is one of us
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    def versions(self) -> frozenset[str]:
        """One: libmagic's version and the lists' digest."""
        return frozenset({self._version})

    async def scan(self, sample: Sample) -> Report:
        """CLEAN or FORBIDDEN. Raises EngineError."""
        if self._allowed is None and self._blocked is None:
            return self._clean
        return self._forbidden if self._forbids(await self.identify(sample)) else self._clean

    async def identify(self, sample: Sample) -> str:
        """The media type of an opened sample. Raises EngineError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout):
                return await loop.run_in_executor(self._worker, self._identify, sample)
        except TimeoutError as error:
            raise EngineError("libmagic did not answer in time", "timeout") from error
        except (magic.MagicException, OSError) as error:
            raise EngineError("libmagic could not read the file", "error") from error

    def _identify(self, sample: Sample) -> str:
        if not sample.size:
            return self._magic.from_buffer(b"")
        with sample.as_file() as fd:
            return self._magic.from_descriptor(fd)

    def _forbids(self, mime_type: str) -> bool:
        names = {mime_type, f"{mime_type.partition('/')[0]}/*"}
        allowed = self._allowed is None or not names.isdisjoint(self._allowed)
        return not allowed or (self._blocked is not None and not names.isdisjoint(self._blocked))


def _libmagic_version() -> int:
    return int(magic.version())  # type: ignore[no-untyped-call]


def _digest(*lists: Collection[str] | None) -> str:
    canonical = json.dumps([None if names is None else sorted(set(names)) for names in lists])
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
