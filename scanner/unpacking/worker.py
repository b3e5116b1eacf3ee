"""A child of the template as the service sees it: asked for one content after the other, believed nothing.

A file may have taken the child over. Then it can say of this file what it likes, and no more: it holds nobody
beyond the deadline, and what it hands over cannot change.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from scanner.readable import readable
from scanner.unpacking.protocol import (
    SEALS,
    Born,
    Done,
    Failed,
    Found,
    GoOn,
    Malformed,
    close_all,
    decode,
    receive,
    send,
)


class Content(NamedTuple):
    """What was found, in a sealed memory file that the receiver closes."""

    found: Found
    fd: int


class Worker:
    """The child at the other end of `connection`. Whoever has one closes it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)  # noqa: FBT003 - it takes nothing else
        self._connection = connection
        self._process: int | None = None

    async def born(self) -> None:
        """Wait until it lives. Raises EOFError if it does not, and OSError."""
        self._register(*await self._received())

    async def answer(self, request: GoOn) -> Content | Done | Failed:
        """What it says to `request`.

        Raises EOFError where it ended, Malformed where it may not say that, and OSError.
        """
        with _ended_if_broken():
            send(self._connection, request)
        datagram, descriptors = await self._received()
        try:
            return _checked(datagram, descriptors)
        except BaseException:
            close_all(descriptors)
            raise

    def close(self) -> None:
        """End it, whatever it is doing, and even if it is not born yet."""
        if self._process is None:
            with suppress(OSError, EOFError, Malformed):
                self._connection.shutdown(socket.SHUT_RD)  # from here on it cannot register, and would end
                self._register(*receive(self._connection))
        self._connection.close()
        if self._process is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            _bury(self._process)
            self._process = None

    def _register(self, datagram: bytes, descriptors: list[int]) -> None:
        try:
            self._process = _born(datagram, descriptors)
        except BaseException:
            close_all(descriptors)
            raise

    async def _received(self) -> tuple[bytes, list[int]]:
        while True:
            with suppress(BlockingIOError), _ended_if_broken():
                return receive(self._connection)
            await readable(self._connection.fileno())


def _born(datagram: bytes, descriptors: list[int]) -> int:
    match decode(datagram), descriptors:
        case Born(), [process]:
            return process
        case _:
            raise EOFError


def _checked(datagram: bytes, descriptors: list[int]) -> Content | Done | Failed:
    match decode(datagram), descriptors:
        case Found() as found, [fd] if _is_content(fd, found.size):
            return Content(found, fd)
        case Done() | Failed() as answer, []:
            return answer
        case _:
            raise Malformed


def _is_content(descriptor: int, size: int) -> bool:
    """Whether it is a memory file of just this size that nobody can change."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != size or size == 0:
        return False
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:  # a file of another kind
        return False


@contextmanager
def _ended_if_broken() -> Iterator[None]:
    try:
        yield
    except ConnectionError:
        raise EOFError from None


def _bury(process: int) -> None:
    """Close its descriptor. Children of a template that ended became ours if we are process 1."""
    try:
        ours = os.waitid(os.P_PIDFD, process, os.WEXITED | os.WNOHANG) is None
    except ChildProcessError:
        ours = False
    if ours:
        _ = asyncio.get_running_loop().run_in_executor(None, _await_end, process)
    else:
        os.close(process)


def _await_end(process: int) -> None:
    try:
        os.waitid(os.P_PIDFD, process, os.WEXITED)
    finally:
        os.close(process)
