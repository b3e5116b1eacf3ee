"""Servers of the benchmark as child processes: none outlives it, and none of anybody else's is touched."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scanner.clamd.leash import LeashedProcess

CHECKOUT = Path(__file__).parents[2]

_START_TIMEOUT = 240.0  # seconds: a clamd with a big database
_GRACE = 8.0


class BenchError(Exception):
    """What the user can do something about: one line, exit code 2."""


class Service:
    """A program that is ready when `ready` agrees; what it writes goes to `log`, which begins anew with us.

    What it leaves in `leavings` is removed when we are killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        ready: Callable[[], bool],
        log: Path,
        environment: Mapping[str, str] | None = None,
        leavings: Path | None = None,
    ) -> None:
        self._command = command
        self._ready = ready
        self._log = log
        log.unlink(missing_ok=True)
        self._environment = {**os.environ, **(environment or {})}
        self._leavings = leavings
        self._process: LeashedProcess | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = LeashedProcess(
                self._command,
                environment=self._environment,
                directory=CHECKOUT,
                output=log,
                leavings=self._leavings,
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._ready():
            self.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{self._command[0]} is not ready; see {self._log}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raises where it has ended."""
        if self._process is None or self._process.poll() is not None:
            raise BenchError(f"{self._command[0]} has ended; see {self._log}")

    def stop(self) -> None:
        """Harmless where it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        deadline = time.monotonic() + _GRACE
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()


def accepts(port: int) -> Callable[[], bool]:
    """Whether somebody listens there."""

    def ready() -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", port)) == 0

    return ready


def media_repository(port: int, corpus: Path, names: Sequence[str], log: Path) -> Service:
    command = [sys.executable, "-m", "tests.bench.media_repository", str(port), str(corpus), *names]
    return Service(command, accepts(port), log)
