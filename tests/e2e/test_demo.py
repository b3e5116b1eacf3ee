"""`make demo` as visitors run it: on a terminal or not, to its end or interrupted."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from tests.demo.outcome import Line
from tests.demo.screen import Board, picture
from tests.demo.shared_files import shared_files
from tests.e2e.machine import descendants_of
from tests.e2e.samples import eicar

CHECKOUT = Path(__file__).parents[2]
PICTURE = CHECKOUT / "docs" / "demo.svg"
DEMO = [sys.executable, "-m", "tests.demo"]
# As installed already: a test installs nothing.
MAKE = ["make", "-o", ".venv/.dev", "-o", ".venv/.run", "demo"]
POLICY = "MEDIA_SCANNER__POLICY__"
TWO_AT_ONCE = """
import os, signal
from tests.demo.interruption import Interruption

both = {signal.SIGINT, signal.SIGHUP}
Interruption().install()
signal.pthread_sigmask(signal.SIG_BLOCK, both)
for number in both:
    os.kill(os.getpid(), number)
try:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
except KeyboardInterrupt:
    print("interrupted")
"""
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\r")

real = pytest.mark.real
slow = pytest.mark.slow
within_two_minutes = pytest.mark.timeout(120)


@pytest.fixture
def folder() -> Iterator[Path]:
    """For the demo's temporary files; short, because sockets lie there. Nothing may be left in it."""
    with tempfile.TemporaryDirectory(prefix="d-") as name:
        yield Path(name)
        assert not list(Path(name).iterdir())


def environment(folder: Path, **variables: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return {**ours, "TMPDIR": str(folder), "LC_ALL": "C.UTF-8", "TERM": "xterm", **variables}


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Without a terminal."""
    return subprocess.run(
        command,
        cwd=CHECKOUT,
        env=environment(folder, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


class Terminal:
    """A demo on a terminal of 80 columns."""

    def __init__(self, command: list[str], variables: Mapping[str, str]) -> None:
        self._terminal, theirs = os.openpty()
        self._written = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            cwd=CHECKOUT,
            env=variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    @property
    def shown(self) -> str:
        return ESCAPES.sub(b"", self._written).decode(errors="replace")

    def until(self, text: str) -> None:
        """Read until `text` is shown."""
        while text not in self.shown:
            self._read()

    def press_ctrl_c(self) -> None:
        os.write(self._terminal, b"\x03")

    def end(self) -> int:
        """Read to the end; the exit status."""
        try:
            while True:
                self._read()
        except OSError:  # how Linux says that nobody has the terminal any more
            return self.process.wait()

    def close(self) -> None:
        os.close(self._terminal)
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        self._written += os.read(self._terminal, 65536)


@contextmanager
def on_terminal(folder: Path, *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal([*DEMO, *arguments], environment(folder, COLUMNS="80"))
    try:
        yield terminal
    finally:
        terminal.close()


def assert_gone(processes: set[int]) -> None:
    """Soon: what the demo leaves to the kernel, such as a watcher's end, may take a moment."""
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in processes):
        assert time.monotonic() < deadline, processes
        time.sleep(0.05)


@real
@slow
@within_two_minutes
def test_the_demo_shows_what_it_promises_and_ends_with_0(folder: Path) -> None:
    ran = run([*MAKE, "ONCE=1"], folder)

    assert ran.returncode == 0, ran.stdout
    assert "TEST SIGNATURES" in ran.stdout
    for file in shared_files():
        arrives = "403 MCS_MEDIA_NOT_CLEAN" if file.withheld else "arrives, byte for byte"
        assert re.search(rf"^ok  {file.title} +{file.arrival} +{arrives} +\d+ *$", ran.stdout, re.MULTILINE)
    assert re.search(r"^ok  the same picture +401 +404 M_NOT_FOUND +\d+ *$", ran.stdout, re.MULTILINE)
    assert "All 8 lines are as expected." in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80


@real
@slow
@within_two_minutes
def test_a_line_that_is_not_as_expected_fails_the_demo(folder: Path) -> None:
    ran = run([*DEMO, "--once"], folder, **{f"{POLICY}ENCRYPTED_ARCHIVES": "deliver"})

    assert ran.returncode == 1, ran.stdout
    assert re.search(
        r"^!!  zip with a password +arrives unseen +arrives, byte for byte", ran.stdout, re.MULTILINE
    )
    assert "1 of 8 lines are not as expected." in ran.stdout


@real
@slow
@within_two_minutes
def test_what_does_not_start_is_said_without_a_traceback(folder: Path) -> None:
    ran = run([*DEMO, "--once"], folder, **{f"{POLICY}ENCRYPTED_ARCHIVES": "perhaps"})

    assert ran.returncode == 1, ran.stdout
    assert "The demo failed" in ran.stdout
    assert "policy.encrypted_archives" in ran.stdout
    assert "Traceback" not in ran.stdout


@real
@slow
@within_two_minutes
def test_a_scanner_configured_elsewhere_is_not_what_is_shown(folder: Path) -> None:
    """Above all not with its homeserver."""
    elsewhere = {"MEDIA_SCANNER__HOMESERVER__URL": "http://127.0.0.1:9", "MEDIA_SCANNER__NONSENSE": "1"}

    assert run([*DEMO, "--once"], folder, http_proxy="http://127.0.0.1:9", **elsewhere).returncode == 0


@real
@slow
@within_two_minutes
def test_it_stays_up_with_commands_that_work_until_ctrl_c(folder: Path) -> None:
    with on_terminal(folder) as terminal:
        terminal.until("Ctrl-C ends it all.")
        processes = descendants_of(terminal.process.pid)
        commands = [line for line in terminal.shown.splitlines() if line.startswith("curl ")]
        through, past = [subprocess.check_output(["sh", "-c", command]) for command in commands]
        terminal.press_ctrl_c()
        status = terminal.end()

    assert b"MCS_MEDIA_NOT_CLEAN" in through
    assert past.strip() == eicar()
    assert status == 0
    assert len(processes) >= 3
    assert_gone(processes)


@real
@slow
@within_two_minutes
@pytest.mark.parametrize(
    "moment", ["Starting clamd", "Starting Synapse", "Starting the scanner", "log in", "Alice sends"]
)
def test_ctrl_c_in_the_middle_leaves_nothing_behind(folder: Path, moment: str) -> None:
    with on_terminal(folder) as terminal:
        terminal.until(moment)
        processes = descendants_of(terminal.process.pid)
        terminal.press_ctrl_c()
        terminal.press_ctrl_c()
        status = terminal.end()

    assert status == 130, terminal.shown
    assert "Traceback" not in terminal.shown
    assert_gone(processes)


def line(*, as_expected: bool) -> Line:
    return Line(
        "zip with a password",
        "private.zip, 258 B",
        "arrives unseen",
        "403 MCS_MEDIA_NOT_CLEAN",
        "This archive is protected by a password and cannot be inspected",
        harmful=True,
        seconds=1.2345,
        as_expected=as_expected,
    )


def board(*lines: Line) -> Board:
    filled = Board()
    filled.lines.extend(lines)
    return filled


def test_signals_that_come_together_interrupt_once_and_without_a_traceback(folder: Path) -> None:
    """As when Ctrl-C ends the shell in the terminal, too."""
    ran = run([sys.executable, "-c", TWO_AT_ONCE], folder)
    assert (ran.returncode, ran.stdout) == (0, "interrupted\n")


def test_the_table_fits_80_columns_and_names_what_is_wrong() -> None:
    shown = io.StringIO()
    Console(width=80, file=shown).print(board(line(as_expected=True), line(as_expected=False)))

    assert re.findall(r"^(\S\S)  zip.* 1234 *$", shown.getvalue(), re.MULTILINE) == ["ok", "!!"]
    assert "…" not in shown.getvalue()


@pytest.mark.parametrize("drawn", [PICTURE.read_text(), picture(board(line(as_expected=True)), "A banner")])
def test_the_picture_fetches_nothing_and_names_no_machine(drawn: str) -> None:
    assert "MCS_MEDIA_NOT_CLEAN" in drawn
    assert set(re.findall(r"https?://[^\s\"<]+", drawn)) == {
        "http://www.w3.org/2000/svg",
        "https://www.textualize.io",
    }
    assert not re.search(r"@font-face|url\((?!#)|/tmp|/home|/root|syt_|127\.0\.0\.1", drawn)


def test_the_picture_is_of_a_run_in_which_all_was_well() -> None:
    drawn = PICTURE.read_text().replace("&#160;", " ")
    assert "All 8 lines are as expected." in drawn
    for file in shared_files():
        assert file.title in drawn
