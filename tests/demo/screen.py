"""What the demo shows: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tests.demo.outcome import Line

_WIDTH = 80
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class Board:
    """The table so far, and what is being sent now."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.sending: str | None = None
        self._spinner = Spinner("dots")

    @property
    def as_expected(self) -> bool:
        """Whether every line is."""
        return all(line.as_expected for line in self.lines)

    def __rich__(self) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", width=_WIDTH)
        table.add_column("", width=2)
        table.add_column("Alice sends", width=20)
        table.add_column("homeserver alone", width=17)
        table.add_column("through the scanner", width=30)
        table.add_column("ms", width=4, justify="right")
        for line in self.lines:
            table.add_row(*_cells(line))
        if self.sending is not None:
            table.add_row(self._spinner, self.sending)
        return table


class Screen:
    """Where a visitor looks."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.board = Board()

    def banner(self, text: str) -> None:
        self.console.print(_banner(text))

    def say(self, line: str) -> None:
        """A line as it is: a terminal that breaks it does not break what is copied from it."""
        self.console.print(line, soft_wrap=True, markup=False)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what is being done, and how long it took."""
        if not self.console.is_terminal:
            self.console.print(f"{what} ...")
            yield
            return
        began = time.monotonic()
        with self.console.status(what):
            yield
        self.console.print(f"{what}: {time.monotonic() - began:.1f} s")

    @contextmanager
    def table(self) -> Iterator[None]:
        """While the lines come in."""
        self.console.print()
        if self.console.is_terminal:
            with Live(self.board, console=self.console):
                yield
        else:
            yield
            self.console.print(self.board)
        self.console.print()

    def sending(self, title: str) -> None:
        """Show what is under way."""
        self.board.sending = title

    def add(self, line: Line) -> None:
        """Show what came of it."""
        self.board.sending = None
        self.board.lines.append(line)
        if not self.console.is_terminal:
            self.console.print(f"{line.title}: {'as expected' if line.as_expected else 'NOT AS EXPECTED'}")

    def summary(self) -> None:
        self.console.print(_summary(self.board))


def picture(board: Board, banner: str) -> str:
    """The table as SVG, with nothing in it that a browser would have to fetch."""
    console = Console(width=_WIDTH, file=StringIO(), record=True, highlight=False, force_terminal=True)
    for part in (_banner(banner), "", board, "", _summary(board)):
        console.print(part)
    return _FONTS.sub("", console.export_svg(title="make demo", unique_id="demo"))


def save_picture(file: Path, board: Board, banner: str) -> None:
    file.write_text(picture(board, banner))


def _banner(text: str) -> Panel:
    return Panel(text, style="yellow", width=_WIDTH)


def _summary(board: Board) -> Text:
    wrong = sum(not line.as_expected for line in board.lines)
    if wrong:
        return Text(f"{wrong} of {len(board.lines)} lines are not as expected.", "bold red")
    return Text(f"All {len(board.lines)} lines are as expected.", "bold green")


def _cells(line: Line) -> Iterator[RenderableType]:
    yield Text("ok", "green") if line.as_expected else Text("!!", "bold red")
    yield Text.assemble(line.title, "\n", (line.detail, "dim"))
    yield Text(line.homeserver, "red" if line.harmful else "")
    yield Text.assemble((line.scanner, "green" if line.as_expected else "bold red"), "\n", (line.info, "dim"))
    yield f"{line.seconds * 1000:.0f}"
