"""clamd's control commands, through pyclamd: VERSION and RELOAD. Never a verdict.

pyclamd takes a connection that closes without an answer for "nothing found", reads a reply with one
`recv`, may cut what it sends, and probes in its constructor (facts/operations.md section 2). Hence the
subclass, one short-lived object per command, in a worker thread, with five seconds for all of it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from dataclasses import dataclass
from typing import Self

from pyclamd import ClamdUnixSocket

from scanner.clamd.protocol import MAX_REPLY, ClamdAddress
from scanner.errors import EngineError

TIMEOUT = 5.0

_VERSION = re.compile(r"ClamAV [^/\s]{1,64}(?:/([0-9]{1,10})/([ -~]{1,64}))?")


@dataclass(frozen=True, slots=True)
class ClamdVersion:
    """A clamd's VERSION: its text, and number and date (Unix time) of its daily signatures, if it has any."""

    text: str
    signature_version: int | None = None
    signature_timestamp: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError where `text` is no VERSION."""
        known = _VERSION.fullmatch(text)
        if known is None:
            raise ValueError("not a version of ClamAV")
        number, date = known.groups()
        return cls(text, int(number), _timestamp(date)) if number else cls(text)


async def version(address: ClamdAddress) -> ClamdVersion:
    """What clamd and its signatures are; raises EngineError."""
    text = await asyncio.to_thread(_ask, address, "VERSION")
    try:
        return ClamdVersion.parse(text)
    except ValueError as problem:
        raise EngineError(f"clamd answered VERSION with {text[:100]!a}", "error") from problem


async def reload(address: ClamdAddress) -> None:
    """Have clamd load its database again, which takes a while yet; raises EngineError."""
    text = await asyncio.to_thread(_ask, address, "RELOAD")
    if text != "RELOADING":
        raise EngineError(f"clamd answered RELOAD with {text[:100]!a}", "error")


def _ask(address: ClamdAddress, command: str) -> str:
    control = _Control(address)
    try:
        answer: str = control.version() if command == "VERSION" else control.reload()
    except OSError as problem:  # pyclamd's own ConnectionError among them
        raise EngineError(f"clamd did not answer {command}", control.failure(problem)) from problem
    finally:
        control.close()
    return answer


def _timestamp(date: str) -> float | None:
    """Of a ctime(3), which is in clamd's local time: taken for ours."""
    try:
        return time.mktime(time.strptime(date, "%a %b %d %H:%M:%S %Y"))
    except (ValueError, OverflowError):
        return None


class _Control(ClamdUnixSocket):  # type: ignore[misc]  # pyclamd has no types
    """pyclamd for any address, without its faults."""

    clamd_socket: socket.socket

    def __init__(self, address: ClamdAddress) -> None:
        # Not the parent's constructor: it would connect.
        self._address = address
        self._deadline = time.monotonic() + TIMEOUT
        self._connected = False

    def close(self) -> None:
        """Whatever happened before."""
        if self._connected:
            self.clamd_socket.close()

    def failure(self, problem: OSError) -> str:
        """The result that `problem` is: pyclamd replaces most errors by its own."""
        if isinstance(problem, TimeoutError) or isinstance(problem.__context__, TimeoutError):
            return "timeout"
        return "eof" if self._connected else "unavailable"

    def _init_socket(self) -> None:
        address = self._address
        if address.path is None:
            self.clamd_socket = socket.create_connection((address.host, address.port), self._remaining())
        else:
            self.clamd_socket = _connect_unix(address.path, self._remaining())
        self._connected = True

    def _close_socket(self) -> None:
        self.close()

    def _send_command(self, cmd: str) -> None:
        self.clamd_socket.sendall(f"n{cmd}\n".encode())

    def _recv_response(self) -> str:
        answer = b""
        while not answer.endswith(b"\n"):
            self.clamd_socket.settimeout(self._remaining())
            piece = self.clamd_socket.recv(MAX_REPLY)
            if not piece or len(answer) > MAX_REPLY:
                raise ConnectionError
            answer += piece
        return answer[:-1].decode(errors="replace")

    def _remaining(self) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining


def _connect_unix(path: str, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except OSError as problem:
        connection.close()
        # A full backlog (connect(2), EAGAIN) is a clamd that is busy or stopped, not one that is gone.
        raise (TimeoutError() if isinstance(problem, BlockingIOError) else problem) from problem
    return connection
