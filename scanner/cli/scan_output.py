"""What `media-scanner scan` prints: a line for each file on standard output, the rest on standard error."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from scanner.cli.terminal import one_line
from scanner.errors import ScannerError
from scanner.files import Skipped
from scanner.verdict import Detection, Outcome, Reason, Report, Verdict, located

_REASONS = {
    Reason.ENCRYPTED_ARCHIVE: "archive with a password",
    Reason.ENCRYPTED_DOCUMENT: "document with a password",
    Reason.LIMIT: "too large, too deep or too many files when unpacked",
    Reason.TIME_LIMIT: "takes too long to look into",
    Reason.DAMAGED: "damaged",
    Reason.AMBIGUOUS: "can be read in more than one way",
    Reason.READERS_DISAGREE: "programs see different things in it",
    Reason.ENGINE_UNAVAILABLE: "clamd does not answer",
    Reason.ENGINE_ERROR: "an engine failed",
    Reason.ENGINE_TIMEOUT: "clamd did not answer in time",
    Reason.TEST_SIGNATURES: "clamd has only test signatures",
    Reason.CANARY: "clamd does not find the test virus",
}


class Result(StrEnum):
    """What became of one file."""

    CLEAN = "clean"
    INFECTED = "infected"
    FORBIDDEN = "forbidden"
    NOT_SCANNED = "not_scanned"


_STYLES = {Result.INFECTED: "bold red", Result.FORBIDDEN: "red", Result.NOT_SCANNED: "yellow"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one file. `reason` is one of a few fixed words, `info` says it to people.

    `found` says of each signature where in an archive it is.
    """

    path: str
    result: Result
    signatures: tuple[str, ...] = ()
    reason: str | None = None
    info: str = ""
    found: tuple[Detection, ...] = ()

    @classmethod
    def of(cls, path: str, verdict: Verdict) -> Finding:
        """Clean is what every engine called clean; the policy is not asked."""
        if verdict.outcome is Outcome.INFECTED:
            found = located(verdict.detections)
            names = tuple(dict.fromkeys(each.signature for each in found))
            info = " ".join(" in ".join(filter(None, (each.signature, each.path))) for each in found)
            return cls(path, Result.INFECTED, names, Reason.MALWARE, info, found)
        unsure = _worst(verdict, Outcome.FAILED) or _worst(verdict, Outcome.UNSCANNABLE)
        if unsure is not None:
            return cls(path, Result.NOT_SCANNED, (), unsure.reason, _told(unsure.reason))
        if verdict.outcome is Outcome.CLEAN:
            return cls(path, Result.CLEAN)
        if verdict.outcome is Outcome.FORBIDDEN:
            return cls(path, Result.FORBIDDEN, (), Reason.FORBIDDEN_TYPE, "type")
        return cls.not_scanned(path, "no engine looked at it", Reason.ENGINE_ERROR)

    @classmethod
    def not_scanned(cls, path: str, problem: str, reason: str = "unreadable") -> Finding:
        """A file that no engine judged."""
        return cls(path, Result.NOT_SCANNED, (), reason, problem)

    def line(self) -> str:
        """For people."""
        separator = ": " if self.result is Result.NOT_SCANNED else " "
        result = self.result.replace("_", " ")
        return one_line(
            f"{self.path}: {result}{separator}{self.info}" if self.info else f"{self.path}: {result}"
        )

    def document(self) -> str:
        """For programs: JSON on one line. A name that is not UTF-8 is there whole in `path_base64`."""
        raw = os.fsencode(self.path)
        shown = raw.decode(errors="backslashreplace")
        exact = {} if shown == self.path else {"path_base64": base64.b64encode(raw).decode()}
        return json.dumps(asdict(self) | {"path": shown} | exact)


def _worst(verdict: Verdict, outcome: Outcome) -> Report | None:
    return next((report for report in verdict.reports if report.outcome is outcome), None)


def _told(reason: Reason | None) -> str:
    return _REASONS.get(reason, reason) if reason is not None else "cannot be inspected"


class Tally:
    """How many files came to which result."""

    def __init__(self) -> None:
        self.skipped = 0
        self._results = Counter[Result]()

    def add(self, result: Result) -> None:
        self._results[result] += 1

    @property
    def exit_code(self) -> int:
        """2 where anything was not scanned, else 1 where anything was found, else 0."""
        if self._results[Result.NOT_SCANNED]:
            return 2
        return 1 if self._results[Result.INFECTED] or self._results[Result.FORBIDDEN] else 0

    def line(self, seconds: float) -> str:
        """For people."""
        shown = [result for result in Result if self._results[result] or result is not Result.FORBIDDEN]
        counts = [f"{self._results[result]} {result.replace('_', ' ')}" for result in shown]
        skipped = f"; left out: {self.skipped} (links, pipes, sockets, devices)" if self.skipped else ""
        return f"files: {self._results.total()} in {seconds:.1f} s, {', '.join(counts)}{skipped}"

    def document(self, seconds: float, *, complete: bool) -> str:
        """For programs: the last line of JSON."""
        counts = {result.value: self._results[result] for result in Result}
        summary = {"files": self._results.total(), **counts, "skipped": self.skipped}
        return json.dumps({"summary": summary | {"complete": complete, "seconds": round(seconds, 3)}})


class Printer:
    """Prints findings as they come, and counts them; a context manager that shows a bar on a terminal.

    `show` waits where nobody reads what it prints: call it in a thread.
    """

    def __init__(self, *, as_json: bool, clean_too: bool) -> None:
        self.tally = Tally()
        self._as_json = as_json
        self._clean_too = clean_too
        self._began = time.monotonic()
        self._bar = bar()
        self._task = self._bar.add_task("Scanning", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def has_bar(self) -> bool:
        """Whether anybody sees one."""
        return not self._bar.disable

    def expect(self, files: int) -> None:
        """There are so many in all."""
        self._bar.update(self._task, total=files)

    def show(self, finding: Finding | Skipped) -> None:
        """Raises ScannerError where nobody takes it."""
        if isinstance(finding, Skipped):
            self.tally.skipped += 1
            return
        self.tally.add(finding.result)
        self._bar.advance(self._task)
        if self._clean_too or finding.result is not Result.CLEAN:
            self._print(finding.document() if self._as_json else finding.line(), _STYLES.get(finding.result))

    def summarise(self, *, complete: bool) -> None:
        """Count what was shown: JSON on standard output, words on standard error."""
        seconds = time.monotonic() - self._began
        if self._as_json:
            self._print(self.tally.document(seconds, complete=complete))
        else:
            note(self.tally.line(seconds))

    def _print(self, line: str, style: str | None = None) -> None:
        if self.has_bar and sys.stdout.isatty():  # it must go above the bar
            self._bar.console.print(Text(line, style or ""), soft_wrap=True)
            return
        try:
            encoding = sys.stdout.encoding or "utf-8"
            print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)  # noqa: T201
        except OSError as problem:
            # What is left in the buffer would fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise ScannerError(f"standard output: {problem.strerror}") from problem


def note(line: str) -> None:
    """Tell people something that is no result."""
    print(one_line(line), file=sys.stderr, flush=True)  # noqa: T201


def bar() -> Progress:
    """On standard error, where that is a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    visible = sys.stderr.isatty()
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, disable=not visible)
