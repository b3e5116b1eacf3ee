"""The template process as the service sees it: started, watched, replaced.

Nothing here waits for another process but on the event loop. A template that ended is replaced at once; one
that stands still, as soon as somebody has waited two seconds for a child.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import scanner
from scanner.errors import EngineError
from scanner.events import ProcessChanged, Publish
from scanner.media import reopened
from scanner.unpacking.library import LIBRARY
from scanner.unpacking.protocol import (
    LONGEST_TEXT,
    Broken,
    Job,
    Malformed,
    Message,
    Ready,
    close_all,
    decode,
    receive,
    send,
)
from scanner.unpacking.worker import Worker

# In events.
NAME = "unpacking"
TEMPLATE = "scanner.unpacking.template"
# libarchive-c looks there first, and then asks other programs.
_ENVIRONMENT = {"LIBARCHIVE": LIBRARY, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_ATTEMPTS = 3
# To load the libraries, on a machine that is busy; to fork.
_START_TIMEOUT, _FORK_TIMEOUT = 5.0, 2.0


class ForkServer:
    """Starts a template, from `module`, with the first worker, and has one until it is closed."""

    def __init__(self, publish: Publish, module: str = TEMPLATE) -> None:
        self._publish = publish
        self._module = module
        self._template: _Template | None = None

    async def worker(self, job: Job, container: int) -> Worker:
        """A child for `job`, with a descriptor of its own for `container`. Raises EngineError and OSError."""
        for _ in range(_ATTEMPTS):
            template = self._template = self._template or self._start()
            try:
                return await template.fork(job, container)
            except _Lost:
                self._replace(template)
            except EOFError:
                pass  # with its template, which we hear of, or alone
        raise EngineError("no process for unpacking can be had", "unavailable")

    async def close(self) -> None:
        """End the template; its children end with those who have them."""
        template, self._template = self._template, None
        if template is not None:
            await template.close()

    def _start(self) -> _Template:
        return _Template(self._module, self._publish, self._replace)

    def _replace(self, template: _Template) -> None:
        """At once, but for one that never came to be of use: the next one starts when it is needed."""
        if template is self._template:
            how = "template_ended" if template.ended else "template_stalled"
            self._publish(ProcessChanged(NAME, "ended", how))
            self._template = None
            _ = template.close()
            if template.useful:
                with suppress(OSError):  # whoever needs one tries again
                    self._template = self._start()


class _Lost(Exception):
    """The template ended, or stands still."""


class _Template:
    """A running process, in a session of its own. `lost` is told when it ends by itself."""

    def __init__(self, module: str, publish: Publish, lost: Callable[[_Template], None]) -> None:
        self._publish = publish
        self._lost = lost
        self._told = asyncio.Event()
        self._problem = ""
        self.useful = self.ended = False
        self._socket, standard_input = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)  # noqa: FBT003 - it takes nothing else
        try:
            with standard_input:
                self._process = _run(module, standard_input)
        except OSError:
            self._socket.close()
            raise
        loop = asyncio.get_running_loop()
        self._start_by = loop.time() + _START_TIMEOUT  # whoever comes then has not to wait
        loop.add_reader(self._socket.fileno(), self._hear)

    async def fork(self, job: Job, container: int) -> Worker:
        """Raises _Lost, EOFError where the child ends at once, OSError, and EngineError where none can be."""
        await _unless_lost(self._told.wait(), self._start_by)
        if self._problem:
            raise EngineError(f"archives cannot be unpacked: {self._problem}", "unavailable")
        if self.ended:
            raise _Lost
        connection, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = Worker(connection)
        try:
            with childs:
                self._order(job, container, childs)
            await _unless_lost(worker.born(), asyncio.get_running_loop().time() + _FORK_TIMEOUT)
        except BaseException:
            worker.close()
            raise
        return worker

    def close(self) -> Awaitable[int]:
        """Kill it; the answer is there when it is gone."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self.ended = True
        self._told.set()
        self._process.kill()
        return loop.run_in_executor(None, self._process.wait)

    def _order(self, job: Job, container: int, childs: socket.socket) -> None:
        # For a few messages: nobody is to keep many memory files on their way to us.
        childs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST_TEXT)
        with reopened(container) as own:
            try:
                send(self._socket, job, (own, childs.fileno()))
            except (ConnectionError, BlockingIOError):
                raise _Lost from None

    def _hear(self) -> None:
        try:
            datagram, descriptors = receive(self._socket)
            close_all(descriptors)
            self._take(decode(datagram))
        except BlockingIOError:
            return
        except (EOFError, OSError, Malformed):
            self.ended = True
            self._lost(self)
        self._told.set()

    def _take(self, told: Message) -> None:
        match told:
            case Broken(text):
                self._problem = text.decode(errors="replace")
                self._publish(ProcessChanged(NAME, "problem", self._problem))
            case Ready(confined, text):
                self.useful = True
                state, how = ("ready", "with") if confined else ("problem", "without")
                self._publish(ProcessChanged(NAME, state, f"{text.decode()}, {how} seccomp"))
            case _:
                raise Malformed


def _run(module: str, standard_input: socket.socket) -> subprocess.Popen[bytes]:
    # Not asyncio's own subprocess: uvloop leaks descriptors into its children.
    return subprocess.Popen(
        [sys.executable, "-E", "-s", "-m", module],
        stdin=standard_input.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
        cwd=Path(scanner.__file__).parents[1],
        start_new_session=True,
    )


async def _unless_lost(awaited: Awaitable[object], deadline: float) -> None:
    try:
        async with asyncio.timeout_at(deadline):
            await awaited
    except TimeoutError:
        raise _Lost from None
