"""A real clamd of the tests' own, on the product's configuration and test signatures.

`DisableCache` makes every scan a scan, and there is a TCP port beside the socket.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from pathlib import Path

from scanner.clamd.home import clamd_config, write_test_signatures
from scanner.clamd.leash import LeashedProcess
from scanner.clamd.supervisor import ENVIRONMENT

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"

_START_TIMEOUT = 30.0


class Clamd:
    """A clamd child process; `start`, `stop`, `pause` and `resume` may be repeated.

    `directory` should be short (a socket's path has 108 bytes). `settings` are lines of clamd.conf that
    count instead of ours (clamd takes the first of two). Logs go to `log`.
    """

    def __init__(self, directory: Path, *, settings: str = "", database: Path | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.database = database or directory / "database"
        self.config = directory / "clamd.conf"
        self.socket = directory / "clamd.sock"
        self.log = directory / "clamd.log"
        self.port = free_port()
        self._settings = f"TCPAddr 127.0.0.1\nTCPSocket {self.port}\nDisableCache yes\n{settings}\n"
        self._process: LeashedProcess | None = None
        if database is None:
            write_test_signatures(self.database)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, "clamd was not started"
        return self._process.pid

    def start(self) -> None:
        """Start clamd and wait until it answers."""
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        self.config.write_text(self._settings + clamd_config(self.database, temporary, self.socket))
        command = [clamd_binary(), "--config-file", str(self.config)]
        with self.log.open("ab") as log:
            self._process = LeashedProcess(
                command, environment=ENVIRONMENT, directory=self.directory, output=log
            )
        self._wait_until_ready()

    def stop(self) -> None:
        """Kill clamd at once, as a crash would; harmless where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: clients can connect, and get no answer."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        os.kill(self.pid, signal.SIGCONT)

    def command(self, name: str, timeout: float = 5.0) -> str:
        """Send a command such as PING or RELOAD; its reply, "" at the end of the stream."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(self.socket))
            connection.sendall(b"z" + name.encode() + b"\0")
            return received(connection)

    def scan(self, data: bytes, timeout: float = 30.0) -> str:
        """The reply of clamd itself to these bytes over INSTREAM: the oracle of the tests."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            connection.sendall(b"zINSTREAM\0" + len(data).to_bytes(4, "big") + data + bytes(4))
            return received(connection)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"clamd did not start: {self.log.read_text()[-1000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self.command("PING") == "PONG"
        except OSError:
            return False


def clamd_binary() -> str:
    """Debian has it in /usr/sbin, which is not in everybody's PATH."""
    found = shutil.which("clamd") or shutil.which("clamd", path="/usr/sbin:/usr/local/sbin")
    assert found, "the tests need clamd: apt-get install clamav-daemon"
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def received(connection: socket.socket) -> str:
    """Everything until the end of the stream, without its terminator."""
    pieces = []
    while piece := connection.recv(4096):
        pieces.append(piece)
    return b"".join(pieces).rstrip(b"\0\n").decode()
