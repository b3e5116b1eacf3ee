"""Child processes of the end-to-end tests: they end with the tests, and their output is kept."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_TAIL = 4000
_NOT_EPHEMERAL = range(22000, 32768)  # ip(7), ip_local_port_range; the benchmark has those around 21000


class Child:
    """A process that is terminated when the thread that started it ends, even by SIGKILL.

    What it writes goes to `output`.
    """

    def __init__(self, arguments: Sequence[str], output: Path) -> None:
        self._arguments = list(arguments)
        self.output = output
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `ready` says when it can be used."""
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever started it, and ends it in its turn
            )

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def ended(self) -> bool:
        return self._started().poll() is not None

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._started().kill()
        self._started().wait()

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Ask `ready` until it agrees; raises with the end of the output if that does not happen."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self._started().poll() is not None:
                raise AssertionError(f"ended with {self._started().returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not ready after {seconds} s:\n{self.tail()}")
            time.sleep(0.05)

    def terminate(self, seconds: float) -> int:
        """SIGTERM and the exit status; after `seconds` SIGKILL, and so its status."""
        process = self._started()
        process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.output.read_text(errors="replace")[-_TAIL:]

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, and that no outgoing connection takes meanwhile."""
    servers: list[socket.socket] = []
    while len(servers) < count:
        with contextlib.suppress(OSError):  # somebody does
            servers.append(socket.create_server(("127.0.0.1", random.choice(_NOT_EPHEMERAL))))
    ports: list[int] = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports
