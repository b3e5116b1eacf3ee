"""The template as a process of its own, with this test as the service."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.unpacking.fork_server import TEMPLATE
from scanner.unpacking.protocol import (
    Born,
    Done,
    Failed,
    Found,
    GoOn,
    Job,
    Message,
    Ready,
    close_all,
    decode,
    receive,
    send,
)
from tests.archives import zip_of
from tests.unpacking.scene import memory_file

ROOT = Path(__file__).parents[2]


class Template:
    """Running, and ready."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            arguments = [sys.executable, "-m", TEMPLATE]
            self.process = subprocess.Popen(arguments, stdin=theirs.fileno(), cwd=ROOT, env={})
        assert isinstance(heard(self.socket), Ready)

    def child(self, data: bytes, reader: bytes = b"libarchive") -> socket.socket:
        ours, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        container = memory_file(data)
        with childs:
            send(self.socket, Job(2**20, 10_000, reader), [container, childs.fileno()])
        os.close(container)
        return ours


def heard(source: socket.socket) -> Message:
    datagram, descriptors = receive(source)
    close_all(descriptors)
    return decode(datagram)


@pytest.fixture
def template() -> Iterator[Template]:
    made = Template()
    yield made
    made.socket.close()
    made.process.kill()
    made.process.wait()


def test_a_child_says_what_it_finds_when_it_is_asked(template: Template) -> None:
    with template.child(zip_of({"a/": b"", "b": b"text"})) as child:
        assert heard(child) == Born()
        child.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard(child)
        child.setblocking(True)
        send(child, GoOn(10, 10, 1000))
        assert heard(child) == Found(4, 2, b"b")
        send(child, GoOn(8, 6, 1000))
        assert heard(child) == Done(0)
        with pytest.raises(EOFError):
            heard(child)


def test_a_child_holds_to_what_it_may(template: Template) -> None:
    for members, size in ((1, 10), (2, 3)):
        with template.child(zip_of({"a/": b"", "b": b"text"})) as child:
            assert heard(child) == Born()
            send(child, GoOn(members, size, 1000))
            assert heard(child) == Failed(b"limit")


@pytest.mark.slow
def test_a_child_ends_by_itself_when_its_time_is_over(template: Template) -> None:
    """If the service does not see to it, because it is gone or stopped."""
    with template.child(zip_of({str(number): b"text" for number in range(50_000)})) as child:
        assert heard(child) == Born()
        send(child, GoOn(10, 10, 1))
        with pytest.raises(EOFError):
            heard(child)


def test_it_ends_when_the_service_does(template: Template) -> None:
    template.socket.close()
    assert template.process.wait(5) == 0


def test_it_reaps_its_children(template: Template) -> None:
    for _ in range(3):
        template.child(b"nothing").close()
    with template.child(zip_of({"b": b"text"})) as child:
        assert heard(child) == Born()
    tasks = Path(f"/proc/{template.process.pid}/task/{template.process.pid}/children")
    while tasks.read_text():
        pass
