"""What the service, the template process and its children say to each other: one datagram is one message.

    service  -> template   Job, with the container and the child's socket
    template -> service    Ready or Broken, once
    template -> service    Born, once, with a descriptor of the child's process, where the child would speak
    service  -> child      GoOn
    child    -> service    Found with a memory file, Done or Failed: one for each GoOn

The rules of this module: numbers have fixed widths and texts are bytes, so that reading a message runs no
code of its sender's choice; what a child says is checked by whoever uses it, since a file may have taken
the child over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, fields

LONGEST_TEXT = 4096
# What nobody can change any more, the sender included.
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_LONGEST = LONGEST_TEXT + 256
_MOST_DESCRIPTORS = 2


@dataclass(frozen=True, slots=True)
class Job:
    """Open a container with the reader named `text`.

    No member may be over `largest` bytes, and all of it take `milliseconds` of the processor's time.
    """

    largest: int
    milliseconds: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Ready:
    """The template can fork; `text` says with which libraries, `confined` whether seccomp holds them."""

    confined: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """The template will never be ready; `text` says why not."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Born:
    """A child is there."""

    text: bytes = b""


@dataclass(frozen=True, slots=True)
class GoOn:
    """Read on to the next content, for at most `milliseconds`.

    There may be so many `members` until then, that one included, and it may have `size` bytes.
    """

    members: int
    size: int
    milliseconds: int
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class Found:
    """A content of `size` bytes at the path `text`, the last of so many `members` since the last message."""

    size: int
    members: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The container was read to its end: `members` more, all without content."""

    members: int
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot be read to its end; `text` is a Reason."""

    text: bytes


Message = Job | Ready | Broken | Born | GoOn | Found | Done | Failed
_KINDS: tuple[type[Message], ...] = (Job, Ready, Broken, Born, GoOn, Found, Done, Failed)


class Malformed(Exception):
    """A datagram is no message, or none that may come now."""


def encode(message: Message) -> bytes:
    """A byte for the kind, eight for each number, then the text."""
    *numbers, text = astuple(message)
    head = struct.pack(f"!B{len(numbers)}Q", _KINDS.index(type(message)), *numbers)
    return head + bytes(text[:LONGEST_TEXT])


def decode(datagram: bytes) -> Message:
    """The message in `datagram`; raises Malformed."""
    try:
        kind = _KINDS[datagram[0]]
        layout = struct.Struct(f"!B{len(fields(kind)) - 1}Q")
        _, *numbers = layout.unpack_from(datagram)
    except (IndexError, struct.error):
        raise Malformed from None
    make: Callable[..., Message] = kind
    return make(*numbers, datagram[layout.size :])


def send(to: socket.socket, message: Message, descriptors: Iterable[int] = ()) -> None:
    """Send `message`; the receiver gets `descriptors` of its own. Raises OSError."""
    socket.send_fds(to, [encode(message)], list(descriptors), socket.MSG_NOSIGNAL)


def receive(source: socket.socket) -> tuple[bytes, list[int]]:
    """The next datagram, and descriptors that are now ours. Raises EOFError, Malformed and OSError."""
    room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * struct.calcsize("i"))
    datagram, ancillary, flags, _ = source.recvmsg(_LONGEST, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = [number for _, _, data in ancillary for number in _numbers(data)]
    if datagram and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        return datagram, descriptors
    close_all(descriptors)
    if flags & socket.MSG_CTRUNC:
        raise OSError(errno.EMFILE, "no room for another descriptor")
    raise Malformed if datagram else EOFError


def close_all(descriptors: Iterable[int]) -> None:
    """Close them."""
    for descriptor in descriptors:
        os.close(descriptor)


def _numbers(data: bytes) -> tuple[int, ...]:
    whole = len(data) // struct.calcsize("i")
    return struct.unpack_from(f"{whole}i", data)
