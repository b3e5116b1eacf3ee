"""What somebody got who asked for media, and a line of the table."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """The plaintext, or a refusal in the words of whoever refused."""

    status: int
    plaintext: bytes | None = field(default=None, repr=False)
    reason: str = ""
    info: str = ""


@dataclass(frozen=True)
class Line:
    """What was sent, and what came of it; `seconds` is scan and download, asked of the scanner."""

    title: str
    detail: str
    homeserver: str
    scanner: str
    info: str
    harmful: bool
    seconds: float
    as_expected: bool
