"""Asks one clamd about probes, on the transport that it accepts."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import socket
from dataclasses import dataclass

from scanner.canary import EICAR, sample
from scanner.clamd import findings
from scanner.clamd.protocol import ClamdAddress, scan_descriptor, scan_stream
from scanner.doctor.finding import Notes
from scanner.errors import EngineError
from scanner.verdict import Outcome

_APPARMOR = (
    "let clamd read passed descriptors, as deploy/apparmor/local-usr.sbin.clamd says; until then files are"
    " streamed, which is slower"
)
_NOT_THERE = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH})


@dataclass(frozen=True, slots=True)
class Answer:
    """What clamd said of a probe; `info` is the name that it gave, or why there is no answer.

    INFECTED: it looked there. CLEAN: it did not. UNSCANNABLE: it did not, and says so. FAILED: no answer.
    """

    outcome: Outcome
    info: str = ""
    cause: EngineError | None = None

    @property
    def result(self) -> str:
        """As EngineError's: error, timeout, limit, eof, unavailable; empty where there is an answer."""
        return self.cause.result if self.cause is not None else ""


class Prober:
    """One clamd. `timeout` is in seconds, for each probe; `descriptors` is whether it takes any."""

    def __init__(self, address: ClamdAddress, timeout: float) -> None:
        self.address = address
        self.descriptors = address.local
        self._timeout = timeout

    async def ask(self, probe: bytes, *, streamed: bool = False, within: float | None = None) -> Answer:
        """What clamd says of these bytes; `streamed`: not by descriptor in any case; `within` seconds."""
        scan = scan_stream if streamed or not self.descriptors else scan_descriptor
        within = within or self._timeout
        try:
            async with asyncio.timeout(within), sample(probe) as opened:
                reply = await scan(self.address, opened)
        except EngineError as problem:
            return Answer(Outcome.FAILED, problem.info, problem)
        except TimeoutError:
            info = f"no answer within {within:.0f} s"
            return Answer(Outcome.FAILED, info, EngineError(info, "timeout"))
        return Answer(findings.report(reply.found, None).outcome, reply.found or "")

    async def connect(self, notes: Notes) -> bool:
        """Find out which transport clamd accepts, and whether it finds EICAR."""
        answer = await self.ask(EICAR)
        refused = answer if answer.result in {"eof", "error"} and self.descriptors else None
        if refused is not None:
            self.descriptors = False
            answer = await self.ask(EICAR)
        if answer.outcome is Outcome.FAILED:
            notes.failed("connection", answer.info, _what_to_do(answer.cause))
            return False
        self._note_transport(notes, refused)
        return _note_eicar(notes, answer)

    def _note_transport(self, notes: Notes, refused: Answer | None) -> None:
        if refused is not None:
            notes.warning("transport", f"stream only: it refuses descriptors ({refused.info})", _APPARMOR)
        elif self.descriptors:
            notes.ok("transport", "takes descriptors of sealed memory files")
        else:
            notes.ok("transport", "stream, as it is not on this host")


def _note_eicar(notes: Notes, answer: Answer) -> bool:
    if answer.outcome is Outcome.INFECTED:
        notes.ok("test virus", f"found: {answer.info}")
        return True
    found = f"EICAR is not found, the answer is {answer.info or 'OK'}"
    notes.failed("test virus", found, "run freshclam, then look at clamd's log: it has no usable signatures")
    return False


def _what_to_do(problem: EngineError | None) -> str:
    """About a clamd that answers nothing."""
    cause = problem.__cause__ if problem is not None else None
    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(cause, socket.gaierror):
        return "correct the host in clamav.addresses"
    if number in {errno.EACCES, errno.EPERM}:
        return f"let user {_user()} use the socket: add it to the group of the socket, often clamav"
    if number in _NOT_THERE:
        return "start clamd (systemctl start clamav-daemon), or correct clamav.addresses"
    return "look at clamd's log: it may be busy, stopped or broken; restart it if it stays so"


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
