"""The clamd that all targets share: nearly Debian's configuration, every verdict scanned for and logged."""

from __future__ import annotations

import array
import os
import socket
from pathlib import Path

from tests.bench.services import Service
from tests.real_clamd import clamd_binary

_CONFIGURATION = """\
Foreground yes
LogFile {folder}/clamd.log
LogClean yes
LogFileMaxSize 0
DatabaseDirectory {database}
TemporaryDirectory {temporary}
LocalSocket {folder}/clamd.sock
LocalSocketMode 666
MaxConnectionQueueLength 300
MaxQueue 400
MaxThreads 12
StreamMaxLength 64M
MaxFileSize 100M
MaxScanSize 100M
ReadTimeout 120
CommandReadTimeout 60
SelfCheck 0
DisableCache yes
"""
_TIMEOUT = 180.0


class Clamd(Service):
    """Its socket and log are in `folder`, with a short path; in `scratch` nothing survives us."""

    def __init__(self, folder: Path, database: Path, scratch: Path) -> None:
        temporary = scratch / "clamd"
        temporary.mkdir()
        self.socket = folder / "clamd.sock"
        self.configuration = folder / "clamd.conf"
        self.configuration.write_text(
            _CONFIGURATION.format(folder=folder, database=database, temporary=temporary)
        )
        command = [clamd_binary(), "--config-file", str(self.configuration)]
        super().__init__(command, self._answers, folder / "clamd.out", leavings=scratch)
        self._verdicts = folder / "clamd.log"

    def start(self) -> None:
        super().start()
        self.version = self._command_reply(b"VERSION").partition("/")[0]

    def scans(self) -> int:
        """How many files it has judged so far."""
        lines = self._verdicts.read_bytes().splitlines()
        return sum(line.endswith((b": OK", b" FOUND")) for line in lines)

    def scan(self, body: bytes, tail: bytes) -> str:
        """The reply to a passed memory file (FILDES): the cheapest way there is. Blocks."""
        file = os.memfd_create("bench", os.MFD_CLOEXEC)
        try:
            _write(file, body)
            _write(file, tail)
            with self._connected() as connection:
                descriptors = array.array("i", [file])
                connection.sendall(b"zFILDES\0")
                connection.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
                return _reply(connection)
        finally:
            os.close(file)

    def _answers(self) -> bool:
        try:
            return self._command_reply(b"PING") == "PONG"
        except OSError:
            return False

    def _command_reply(self, name: bytes) -> str:
        with self._connected() as connection:
            connection.sendall(b"z" + name + b"\0")
            return _reply(connection)

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(str(self.socket))
        except OSError:
            connection.close()
            raise
        return connection


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _reply(connection: socket.socket) -> str:
    pieces = []
    while piece := connection.recv(4096):
        pieces.append(piece)
    return b"".join(pieces).rstrip(b"\0").decode()
