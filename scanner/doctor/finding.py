"""What an examination finds: one line for each thing looked at, and what to do about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """How one thing is. Nothing is known of what was skipped."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    `subject` says which of several it belongs to, such as a clamd's address; `advice` is the one thing to do,
    empty where there is nothing to do.
    """

    subject: str
    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(slots=True)
class Notes:
    """Where an examination writes its findings; what stands here survives its being broken off."""

    subject: str = ""
    findings: list[Finding] = field(default_factory=list)

    def ok(self, name: str, found: str) -> None:
        """As it should be."""
        self._add(name, Status.OK, found)

    def warning(self, name: str, found: str, advice: str) -> None:
        """It works, and could be better or soon be worse."""
        self._add(name, Status.WARNING, found, advice)

    def failed(self, name: str, found: str, advice: str) -> None:
        """It does not work, or does not protect."""
        self._add(name, Status.FAILED, found, advice)

    def skipped(self, name: str, found: str, advice: str = "") -> None:
        """Could not be looked at."""
        self._add(name, Status.SKIPPED, found, advice)

    def _add(self, name: str, status: Status, found: str, advice: str = "") -> None:
        self.findings.append(Finding(self.subject, name, status, found, advice))


# Looks at one group of things.
Examine = Callable[[Notes], Awaitable[None]]
