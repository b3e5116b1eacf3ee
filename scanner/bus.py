"""Every event goes to every sink."""

from __future__ import annotations

from collections.abc import Sequence

from scanner.events import Event, Publish


class Bus:
    """Hands every event to every sink, in order, at once."""

    def __init__(self, sinks: Sequence[Publish]) -> None:
        self._sinks = list(sinks)

    def add(self, sink: Publish) -> None:
        """From now on tell `sink`, too."""
        self._sinks.append(sink)

    def publish(self, event: Event) -> None:
        """Sinks do not block and do not raise."""
        for sink in self._sinks:
            sink(event)
