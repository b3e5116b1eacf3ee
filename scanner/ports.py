"""Every seam of the product on one page: implement one of these, name it in `app.py`, done.

Each Protocol has a contract suite in `tests/contracts/` that all its implementations run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from scanner.events import Event
    from scanner.media import Sample
    from scanner.verdict import Alias, ContentId, Report, Verdict, VerdictKey


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


class EventSink(Protocol):
    """Takes note of events; does not block, does not raise."""

    def __call__(self, event: Event) -> None:
        """One event."""
        ...
