"""Every seam of the product on one page: implement one of these, name it in `app.py`, done.

Each Protocol has a contract suite in `tests/contracts/` that all its implementations run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from scanner.events import Detected, Event
    from scanner.media import Sample
    from scanner.verdict import Alias, ContentId, Outcome, Override, Report, Verdict, VerdictKey


class Engine(Protocol):
    """Finds; never decides.

    `name` is a metric label and part of every version. `versions()` are the versions that a report may
    carry now: more than one while backends disagree, none while the version is not certain (then nothing
    is recalled). A version covers signatures and the engine's own settings.
    """

    name: str

    def versions(self) -> frozenset[str]:
        """Versions in force."""
        ...

    async def scan(self, sample: Sample) -> Report:
        """Judge an opened sample, within the engine's own deadline.

        Raises EngineError (any exception, in fact) where it cannot: that becomes a FAILED report.
        """
        ...


class Backend(Protocol):
    """One instance behind an engine that detects, as the canary sees it. `name` is a metric label."""

    name: str

    async def scan(self, sample: Sample) -> Report:
        """As `Engine.scan`, on this instance alone, whether it is trusted or not."""
        ...

    def trust(self, passed: bool) -> None:  # noqa: FBT001 - the one thing it says
        """Take part in scans again, or no longer: what the canary found."""
        ...


class VerdictCache(Protocol):
    """Remembers verdicts and what encrypted attachments lead to. `name` is a metric label (tier).

    Never raises: a store that is gone knows nothing, says so as an event, and costs only speed.
    """

    name: str

    async def verdict(self, key: VerdictKey) -> Verdict | None:
        """What `remember` was told, unless its lifetime is over."""
        ...

    async def remember(self, key: VerdictKey, verdict: Verdict, lifetime: float) -> None:
        """Keep a conclusive verdict for `lifetime` seconds."""
        ...

    async def content(self, alias: Alias) -> ContentId | None:
        """What `link` was told."""
        ...

    async def link(self, alias: Alias, content: ContentId) -> None:
        """The attachment's bytes were fetched, hashed and decrypted, and have this content."""
        ...

    def entries(self) -> int:
        """How many verdicts and aliases are remembered here; a gauge."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """Something in a store: its name, bytes, and when it was put there (Unix time)."""

    key: str
    size: int
    modified: float


class Store(Protocol):
    """Keeps quarantined samples and what belongs to them, by name; `name` is a metric label.

    Names are those of `quarantine.layout`. Every method raises StoreError where the store cannot be had or
    refuses, and StoreError alone.
    """

    name: str

    async def put(self, key: str, content: Path | bytes) -> bool:
        """Keep bytes, or a file that never changes, unless something has that name; whether nothing had."""
        ...

    async def get(self, key: str, largest: int | None = None) -> bytes | None:
        """All of it, None if nothing has that name; b"" if it has more than `largest` bytes."""
        ...

    def listing(self, prefix: str) -> AsyncIterator[Stored]:
        """What there is below `prefix`, by name."""
        ...

    async def delete(self, key: str) -> None:
        """Gone, if it was there."""
        ...

    async def hold(self, key: str, on: bool) -> bool:  # noqa: FBT001 - the one thing it says
        """Let nobody delete what has that name until it is let go; whether this store can see to that."""
        ...


class Quarantine(Protocol):
    """Where detections are safe before anybody is refused. `outcomes` are those whose samples are kept."""

    outcomes: frozenset[Outcome]

    async def keep(self, sample: Sample, verdict: Verdict) -> bool:
        """Seal an opened sample and write it down durably; whether that is done. Does not raise."""
        ...


class Recorder(Protocol):
    """Knows of a detection before anybody is refused for it: no SIGKILL loses what follows from it."""

    async def record(self, detection: Detected) -> None:
        """Write it down, once for all repetitions. Does not raise."""
        ...


class Overrides(Protocol):
    """What analysts decided about contents, whatever the engines say. Asked for every decision."""

    def of(self, content: ContentId) -> Override | None:
        """What holds now. Does not block, does not raise."""
        ...


class EventSink(Protocol):
    """Takes note of events; does not block, does not raise."""

    def __call__(self, event: Event) -> None:
        """One event."""
        ...
