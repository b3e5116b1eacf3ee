"""One scan over one connection to clamd: our own wire code, with a strict grammar.

The rules of this module: a reply is what clamd sends until it closes the connection. Only an exact OK
line, after the whole sample was sent and with nothing behind it, is clean; only an exact FOUND line is a
finding; whatever else clamd says, or leaves unsaid, is an EngineError. Nothing here has a deadline of its
own, connecting included: callers put one around it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from dataclasses import dataclass
from typing import Self

from scanner.errors import EngineError
from scanner.media import Sample

FRAME = 256 * 1024
MAX_REPLY = 4096
_MAX_SOCKET_PATH = 107  # unix(7): sun_path, without its NUL
_BACKLOG_PAUSE = 0.02
_FRAME_LENGTH = struct.Struct("!I")

_LINE_END = (b"\0", b"\n")
_DESCRIPTOR_REPLY = re.compile(rb"fd\[\d+\]: (?:OK|([^\0\n]+) FOUND)[\0\n]")
_STREAM_REPLY = re.compile(rb"stream: (?:OK|([^\0\n]+) FOUND)[\0\n]")
_REFUSALS = (
    (re.compile(rb"size limit exceeded|Exceeded max"), "limit"),
    (re.compile(rb"TIMED OUT|Exceeded time limit"), "timeout"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What clamd stated about a whole sample: the name of what it found, or None for an exact OK."""

    found: str | None


@dataclass(frozen=True, slots=True)
class ClamdAddress:
    """Where a clamd listens: `unix:/path` or `tcp:host:port`."""

    path: str | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, with a message for the operator."""
        scheme, _, rest = text.partition(":")
        if scheme == "unix":
            return cls._parse_unix(rest)
        if scheme == "tcp":
            return cls._parse_tcp(rest)
        raise ValueError("must be unix:/path or tcp:host:port")

    @classmethod
    def _parse_unix(cls, path: str) -> Self:
        if not path.startswith("/"):
            raise ValueError("the path of a unix socket must be absolute")
        if len(path.encode()) > _MAX_SOCKET_PATH:
            raise ValueError(f"the path of a unix socket has at most {_MAX_SOCKET_PATH} bytes")
        return cls(path=path)

    @classmethod
    def _parse_tcp(cls, rest: str) -> Self:
        host, _, port = rest.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not host or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
            raise ValueError("must be tcp:host:port with a port from 1 to 65535")
        return cls(host=host, port=int(port))

    @property
    def local(self) -> bool:
        """Whether clamd shares this host, so that a descriptor can be passed to it."""
        return self.path is not None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"


async def scan_descriptor(address: ClamdAddress, sample: Sample) -> Reply:
    """FILDES: clamd reads the sample through a descriptor that we pass; only where it is local."""
    with await _connected(address) as connection:
        try:
            with sample.as_file() as fd:
                socket.send_fds(connection, [b"zFILDES\0\0"], [fd])
        except OSError as problem:
            raise EngineError(f"clamd took no descriptor: {problem.strerror}", "error") from problem
        return parse_reply(await _read_reply(connection), _DESCRIPTOR_REPLY)


async def scan_stream(address: ClamdAddress, sample: Sample) -> Reply:
    """INSTREAM: clamd gets the sample's bytes, in frames."""
    with await _connected(address) as connection:
        try:
            await _send_frames(connection, sample)
        except OSError as problem:
            # It hung up before it had the whole sample. Why, can still be read.
            raise _refusal(await _read_reply(connection)) from problem
        return parse_reply(await _read_reply(connection), _STREAM_REPLY)


def parse_reply(reply: bytes, grammar: re.Pattern[bytes] = _STREAM_REPLY) -> Reply:
    """All that clamd sent on a connection; raises EngineError unless it is one statement."""
    statement = grammar.fullmatch(reply)
    if statement is None or len(reply) > MAX_REPLY:
        raise _refusal(reply)
    name: bytes | None = statement[1]
    try:
        return Reply(None if name is None else name.decode())
    except UnicodeDecodeError as problem:
        raise EngineError("clamd's answer is not UTF-8", "error") from problem


def _refusal(reply: bytes) -> EngineError:
    """Why `reply` is no statement about the whole sample."""
    if not reply:
        return EngineError("clamd closed the connection without an answer", "eof")
    if not reply.endswith(_LINE_END) and len(reply) <= MAX_REPLY:
        return EngineError("clamd closed the connection in the middle of its answer", "eof")
    result = next((label for words, label in _REFUSALS if words.search(reply)), "error")
    return EngineError(f"clamd answered {ascii(reply[:100])[1:]}", result)


async def _send_frames(connection: socket.socket, sample: Sample) -> None:
    """Raises EngineError where clamd says anything before the end: that is not about the whole sample."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, b"zINSTREAM\0")
    for offset in range(0, sample.size, FRAME):
        frame = sample.read(offset, FRAME)
        await loop.sock_sendall(connection, _FRAME_LENGTH.pack(len(frame)))
        await loop.sock_sendall(connection, frame)
    early = _early_answer(connection)
    if early is not None:
        raise _refusal(early)
    await loop.sock_sendall(connection, _FRAME_LENGTH.pack(0))


def _early_answer(connection: socket.socket) -> bytes | None:
    try:
        return connection.recv(MAX_REPLY)
    except BlockingIOError:
        return None


async def _read_reply(connection: socket.socket) -> bytes:
    """All until clamd closes, or a little more than any reply has."""
    loop = asyncio.get_running_loop()
    reply = b""
    try:
        while len(reply) <= MAX_REPLY and (piece := await loop.sock_recv(connection, MAX_REPLY)):
            reply += piece
    except OSError as problem:
        # An end that is no orderly one: even an OK before it may be half of something else.
        raise (_refusal(reply) if b"ERROR" in reply else _refusal(b"")) from problem
    return reply


async def _connected(address: ClamdAddress) -> socket.socket:
    try:
        if address.path is not None:
            return await _connect_unix(address.path)
        return await _connect_tcp(address.host, address.port)
    except OSError as problem:
        raise EngineError(f"clamd cannot be reached: {problem.strerror}", "unavailable") from problem


async def _connect_unix(path: str) -> socket.socket:
    connection = _new_socket(socket.AF_UNIX)
    try:
        while True:
            try:
                connection.connect(path)
            except BlockingIOError:
                # The backlog is full (connect(2), EAGAIN). Nothing says when it no longer is, and
                # asyncio's sock_connect would take it for a connection.
                await asyncio.sleep(_BACKLOG_PAUSE)
            else:
                return connection
    except BaseException:
        connection.close()
        raise


async def _connect_tcp(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    places = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    problem = OSError(0, "no address")
    for family, _, _, _, place in places:
        connection = _new_socket(family)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(connection, place)
        except OSError as failed:
            problem = failed
            connection.close()
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise problem


def _new_socket(family: int) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
