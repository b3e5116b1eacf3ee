"""Containers opened by processes that have nothing to lose, one for each.

A compromised one can lie about its own container, and about no other. Whatever happens to it, crash, hang or
limit, is said of this container alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Self

from scanner.containers.readers import Reader
from scanner.errors import Unavailable
from scanner.events import ProcessChanged, Publish
from scanner.media import free
from scanner.unpacking.allowance import Allowance, Unreadable
from scanner.unpacking.fork_server import NAME, TEMPLATE, ForkServer
from scanner.unpacking.protocol import Done, Failed, Found, GoOn, Job, Malformed
from scanner.unpacking.worker import Content, Worker
from scanner.verdict import Reason

# The only ones that a worker may give.
_REASONS = {
    reason.encode(): reason
    for reason in (Reason.DAMAGED, Reason.LIMIT, Reason.ENCRYPTED_ARCHIVE, Reason.AMBIGUOUS)
}


@dataclass(frozen=True, slots=True)
class Member:
    """What lies in a container under `path`: `size` bytes, more than none, in a sealed memory file.

    `fd` is the receiver's own: whoever gets one closes it. `path` is at most 4 KiB of anything.
    """

    path: bytes
    fd: int
    size: int


class Unpacker:
    """Use it as an async context manager. `at_once` processes work at the same time, others wait."""

    def __init__(self, publish: Publish, at_once: int, template: str = TEMPLATE) -> None:
        self._publish = publish
        self._turns = asyncio.Semaphore(at_once)
        self._fork_server = ForkServer(publish, template)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._fork_server.close()

    async def members(
        self, fd: int, reader: Reader, allowance: Allowance, largest: int
    ) -> AsyncGenerator[Member]:
        """What lies in the container in the memory file `fd`, one by one, but for what has no content.

        No member has more than `largest` bytes. The next one is read when it is asked for: close the
        generator (`contextlib.aclosing`) when no more are wanted. Raises Unreadable where it cannot be read
        to its end, after what could be; EngineError and Unavailable where no process can be had.
        """
        reading = _Reading(fd, reader, allowance, largest)
        try:
            while (member := await self._next(reading)) is not None:
                yield member
        finally:
            reading.close()

    async def _next(self, reading: _Reading) -> Member | None:
        try:
            async with asyncio.timeout_at(reading.allowance.deadline), self._turns:
                return await reading.next(self._fork_server)
        except TimeoutError:
            raise self._ended("timeout", Reason.TIME_LIMIT) from None
        except EOFError:
            raise self._ended("crash", Reason.DAMAGED) from None
        except Malformed:
            raise self._ended("protocol", Reason.DAMAGED) from None
        except OSError:
            raise Unavailable("too many files are open, try again", "overload") from None

    def _ended(self, reason: str, becomes: Reason) -> Unreadable:
        self._publish(ProcessChanged(NAME, "ended", reason))
        return Unreadable(becomes)


class _Reading:
    """One container being read, by a worker that comes with the first question."""

    def __init__(self, fd: int, reader: Reader, allowance: Allowance, largest: int) -> None:
        self.allowance = allowance
        self._fd = fd
        self._reader = reader
        self._largest = largest
        self._left = allowance.most_of(os.fstat(fd).st_size)
        self._worker: Worker | None = None

    async def next(self, fork_server: ForkServer) -> Member | None:
        """None at the end."""
        if self._worker is None:
            job = Job(self._largest, self._milliseconds(), self._reader.encode())
            self._worker = await fork_server.worker(job, self._fd)
        most = min(self.allowance.size, self._left, self._largest)
        request = GoOn(self.allowance.members, most, self._milliseconds())
        answer = await self._worker.answer(request)
        match answer:
            case Content(found, fd):
                return self._member(found, fd, most)
            case Done(members):
                self.allowance.spend(members, 0)
                return None
            case Failed(text):
                raise Unreadable(_reason(text))

    def _member(self, found: Found, fd: int, most: int) -> Member:
        try:
            self.allowance.spend(found.members, found.size)
            _require(found.size <= most)
        except (Unreadable, Malformed):
            free(fd, found.size)
            raise
        self._left -= found.size
        return Member(found.text, fd, found.size)

    def close(self) -> None:
        """End the worker, wherever it is in its work."""
        if self._worker is not None:
            self._worker.close()

    def _milliseconds(self) -> int:
        """What is left, and a second, so that it is we who end it."""
        seconds = self.allowance.deadline - asyncio.get_running_loop().time()
        return int(1000 * (max(0.0, seconds) + 1))


def _reason(text: bytes) -> Reason:
    _require(text in _REASONS)
    return _REASONS[text]


def _require(condition: bool) -> None:  # noqa: FBT001 - it is all that there is
    if not condition:
        raise Malformed
