"""Every message comes back as it was sent; everything else is refused, and no descriptor is lost."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.unpacking.protocol import (
    LONGEST_TEXT,
    Born,
    Broken,
    Done,
    Failed,
    Found,
    GoOn,
    Job,
    Malformed,
    Message,
    Ready,
    close_all,
    decode,
    encode,
    receive,
    send,
)
from tests.unpacking.scene import descriptors

MESSAGES = (
    Job(2**40, 10_000, b"libarchive"),
    Ready(1, b"libarchive 3.6.2"),
    Broken(b"no library"),
    Born(),
    GoOn(10_000, 2**33, 1),
    Found(2**64 - 1, 0, b"\0\xff/"),
    Done(7),
    Failed(b"damaged"),
)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_come_back_as_they_were_sent(message: Message) -> None:
    assert decode(encode(message)) == message


def test_long_texts_are_cut() -> None:
    assert decode(encode(Found(1, 2, b"x" * 100_000))) == Found(1, 2, b"x" * LONGEST_TEXT)


@given(st.binary())
def test_anything_else_is_malformed(datagram: bytes) -> None:
    try:
        message = decode(datagram)
    except Malformed:
        return
    assert encode(message)[: len(datagram)] == datagram[: LONGEST_TEXT + 1]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_half_a_message_is_malformed(message: Message) -> None:
    head = len(encode(message)) - len(message.text)
    with pytest.raises(Malformed):
        decode(encode(message)[: head - 1])


def test_descriptors_come_along_and_close_on_exec(pair: Pair) -> None:
    with open("/dev/null") as null:  # noqa: PTH123 - a descriptor is what we want
        send(pair[0], Born(), [null.fileno(), null.fileno()])
        datagram, passed = receive(pair[1])
    assert decode(datagram) == Born()
    assert [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in passed] == ["/dev/null"] * 2
    assert not any(map(os.get_inheritable, passed))
    close_all(passed)


def test_too_many_descriptors_are_refused_and_none_is_kept(pair: Pair) -> None:
    before = descriptors()
    socket.send_fds(pair[0], [encode(Born())], [0] * 50)
    with pytest.raises(OSError, match="no room"):
        receive(pair[1])
    assert descriptors() == before


def test_where_no_descriptor_is_left_the_message_is_refused(pair: Pair) -> None:
    before = descriptors()
    send(pair[0], Born(), [0])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="no room"):
            receive(pair[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptors() == before


def test_a_datagram_that_is_too_long_is_malformed_and_its_descriptors_are_closed(pair: Pair) -> None:
    before = descriptors()
    socket.send_fds(pair[0], [bytes(10_000)], [0])
    with pytest.raises(Malformed):
        receive(pair[1])
    assert descriptors() == before


def test_the_end_is_an_end(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(EOFError):
        receive(pair[1])
