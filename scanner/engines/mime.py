"""What kind of file is it? libmagic's answer, against the operator's lists.

Of a keyless sample that libmagic knows as nothing but data it says OPAQUE: it may be a ciphertext. A list of
allowed types is about what is inside, so ciphertext is on each; only one that blocks data forbids it.

libmagic gets a descriptor, as from `file`, and reads what it wants (up to 7 MiB and the end): with only
the beginning, JSON is plain text and an old Word document any OLE file. Names and headers do not count.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from typing import Self

import magic

from scanner.errors import EngineError
from scanner.media import Sample
from scanner.verdict import UNKNOWN_TYPE, Outcome, Reason, Report

# What libmagic guesses from two bytes or so: of random bytes in 13 of 1,000 files, in 2 of 10,000 something
# else (measured, 5.44). Files that really are of these types are not spread as evenly as a cipher's bytes.
_GUESSES = frozenset(
    {
        "application/marc",
        "application/postscript",
        "application/vnd.hp-HPGL",
        "application/x-commodore-basic",
        "application/x-compress-ttcomp",
        "application/x-dosexec",
        "application/x-floppy-image-tc",
        "application/x-ibm-dsk",
        "application/x-object",
        "application/x-tex-tfm",
        "application/zlib",
        "audio/mpeg",
        "audio/x-hx-aac-adts",
        "audio/x-mp4a-latm",
        "audio/x-syx",
        "font/x-amiga-font",
        "image/g3fax",
        "image/x-award-bioslogo",
    }
)
_PROGRAM = b"MZ"  # that much of a guess is enough to run
_SPREAD_OVER = 64 * 1024
# Chi-squared of 255 degrees of freedom: random bytes exceed it twice in 10^8 files.
_EVEN = 400


class Mime:
    """An Engine that forbids media types; use it as an async context manager.

    A list names types exactly (`image/png`) or by their first half (`image/*`); without any, nothing is
    asked of libmagic but what is keyless. `timeout` is in seconds and includes the wait for the one worker
    thread, because a few megabytes of line feeds keep libmagic busy for a third of a second.
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
        self._opaque = Report(self.name, Outcome.OPAQUE, self._version, Reason.OPAQUE)

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
        """CLEAN, OPAQUE or FORBIDDEN. Raises EngineError."""
        if self._allowed is None and self._blocked is None and not sample.keyless:
            return self._clean
        mime_type = await self.identify(sample)
        if sample.keyless and _may_be_ciphertext(mime_type, sample):
            return self._forbidden if self._blocks(UNKNOWN_TYPE) else self._opaque
        return self._forbidden if self._forbids(mime_type) else self._clean

    async def identify(self, sample: Sample) -> str:
        """The media type of an opened sample. Raises EngineError."""
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.wrap_future(self._identifying(sample))
        except TimeoutError as error:
            raise EngineError("libmagic did not answer in time", "timeout") from error
        except (magic.MagicException, OSError) as error:
            raise EngineError("libmagic could not read the file", "error") from error

    def _identifying(self, sample: Sample) -> Future[str]:
        """With a file of its own: the thread goes on when nobody waits for it any more."""
        own = sample.own_file()
        future = self._worker.submit(self._identify, own, sample.size)
        future.add_done_callback(lambda _: os.close(own))
        return future

    def _identify(self, fd: int, size: int) -> str:
        return self._magic.from_descriptor(fd) if size else self._magic.from_buffer(b"")

    def _forbids(self, mime_type: str) -> bool:
        allowed = self._allowed is None or _is_on(self._allowed, mime_type)
        return not allowed or self._blocks(mime_type)

    def _blocks(self, mime_type: str) -> bool:
        return self._blocked is not None and _is_on(self._blocked, mime_type)


def _may_be_ciphertext(mime_type: str, sample: Sample) -> bool:
    if mime_type not in _GUESSES:
        return mime_type == UNKNOWN_TYPE
    head = sample.head(_SPREAD_OVER)
    return not head.startswith(_PROGRAM) and _is_even(head)


def _is_even(content: bytes) -> bool:
    """Whether all bytes are about equally frequent; 3 ms for 64 KiB."""
    squares = sum(count * count for count in Counter(content).values())
    return squares * 256 / len(content) - len(content) < _EVEN


def _is_on(types: Collection[str], mime_type: str) -> bool:
    return not {mime_type, f"{mime_type.partition('/')[0]}/*"}.isdisjoint(types)


def _libmagic_version() -> int:
    return int(magic.version())  # type: ignore[no-untyped-call]


def _digest(*lists: Collection[str] | None) -> str:
    canonical = json.dumps([None if names is None else sorted(set(names)) for names in lists])
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
