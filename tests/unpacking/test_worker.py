"""The service's end of a child, with this test as the child: what is not exactly right is refused."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.unpacking.protocol import SEALS, Born, Done, Failed, Found, GoOn, Malformed, Message, send
from scanner.unpacking.worker import Content, Worker
from tests.unpacking.scene import descriptors, taken, until

REQUEST = GoOn(1, 2, 3)


class Child:
    """Says what it is told, with descriptors that it closes."""

    def __init__(self) -> None:
        ours, self.connection = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.worker = Worker(ours)

    def says(self, message: Message, *passed: int) -> None:
        send(self.connection, message, passed)
        for fd in passed:
            os.close(fd)


@pytest.fixture
def child() -> Iterator[Child]:
    before = descriptors()
    made = Child()
    yield made
    made.connection.close()
    made.worker.close()
    assert descriptors() == before


def file(size: int, seals: int = SEALS) -> int:
    fd = os.memfd_create("content", os.MFD_ALLOW_SEALING)
    os.write(fd, bytes(size))
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


async def test_a_sealed_file_of_the_right_size_is_handed_over(child: Child) -> None:
    child.says(Found(5, 1, b"path"), file(5))
    answer = await child.worker.answer(REQUEST)
    assert isinstance(answer, Content)
    assert (answer.found, taken(answer.fd)) == (Found(5, 1, b"path"), bytes(5))


@pytest.mark.parametrize("answer", [Done(3), Failed(b"damaged")])
async def test_what_needs_no_file_comes_without(child: Child, answer: Done | Failed) -> None:
    child.says(answer)
    assert await child.worker.answer(REQUEST) == answer


@pytest.mark.parametrize("missing", [1 << bit for bit in range(4)])
async def test_a_file_without_every_seal_is_refused(child: Child, missing: int) -> None:
    child.says(Found(5, 1, b""), file(5, SEALS & ~missing))
    with pytest.raises(Malformed):
        await child.worker.answer(REQUEST)


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/null", "/proc/self/status"])
async def test_a_file_that_is_no_memory_file_is_refused(child: Child, path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    child.says(Found(os.fstat(fd).st_size, 1, b""), fd)
    with pytest.raises(Malformed):
        await child.worker.answer(REQUEST)


@pytest.mark.parametrize("message", [Born(), REQUEST])
async def test_messages_that_are_not_for_now_are_refused(child: Child, message: Message) -> None:
    child.says(message, file(5))
    with pytest.raises(Malformed):
        await child.worker.answer(REQUEST)


def idle_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


async def test_closing_ends_it_and_reaps_it_if_it_has_become_ours(child: Child) -> None:
    """As process 1 we are the parent of children whose template ended."""
    process = idle_process()
    child.says(Born(), os.pidfd_open(process.pid))
    await child.worker.born()
    child.worker.close()
    await until(lambda: not Path(f"/proc/{process.pid}").exists())
    process.wait()


async def test_closing_ends_one_that_is_born_and_not_yet_heard_of(child: Child) -> None:
    process = idle_process()
    child.says(Born(), os.pidfd_open(process.pid))
    child.worker.close()
    await until(lambda: not Path(f"/proc/{process.pid}").exists())
    process.wait()


async def test_after_closing_none_can_be_born(child: Child) -> None:
    child.worker.close()
    with pytest.raises(BrokenPipeError):
        child.says(Born())


@pytest.mark.parametrize("said", [b"", b"nothing of the kind", bytes(4096)])
async def test_what_is_no_message_is_no_birth_and_what_came_with_it_is_closed(
    child: Child, said: bytes
) -> None:
    """The fixture counts."""
    passed = file(5)
    socket.send_fds(child.connection, [said], [passed])
    os.close(passed)
    with pytest.raises((Malformed, EOFError)):
        await child.worker.born()


async def test_an_end_instead_of_an_answer_is_an_end(child: Child) -> None:
    child.connection.close()
    with pytest.raises(EOFError):
        await child.worker.answer(REQUEST)
    with pytest.raises(EOFError):
        await child.worker.born()
