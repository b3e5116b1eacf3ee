"""One piece of work per key, safe under cancellation.

The rules: the work runs in a task of its own and belongs to nobody, so a caller that goes away takes
nobody with it; when the last caller has gone the work is cancelled; what the work raises reaches only
those who waited for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class Flight(Generic[V]):
    """Work under way, or what came of it."""

    task: asyncio.Task[V]
    callers: int = 0
    landed: bool = False

    async def value(self) -> V:
        """What the work returns, or raises; who is cancelled here leaves it to the others."""
        return await asyncio.shield(self.task)


class SingleFlight(Generic[K, V]):
    """Shares one result among all who ask for the same key while it is being made or used.

    `dispose(value)` is called once, when the last user of a value has left.
    """

    def __init__(
        self,
        *,
        dispose: Callable[[V], None] = lambda value: None,
        joined: Callable[[], None] = lambda: None,
    ) -> None:
        self._flights: dict[K, Flight[V]] = {}
        self._dispose = dispose
        self._joined = joined

    @contextmanager
    def join(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> Iterator[Flight[V]]:
        """Where `work()` is done, once for all concurrent callers; its value is valid inside the block."""
        flight = self._board(key, work)
        try:
            yield flight
        finally:
            self._leave(key, flight)

    def _board(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> Flight[V]:
        flight = self._flights.get(key)
        if flight is None:
            flight = Flight(asyncio.create_task(work()))
            flight.task.add_done_callback(lambda task: self._landed(key, flight))
            self._flights[key] = flight
        else:
            self._joined()
        flight.callers += 1
        return flight

    def _landed(self, key: K, flight: Flight[V]) -> None:
        flight.landed = True
        if flight.task.cancelled() or flight.task.exception() is not None:
            self._forget(key, flight)
        elif not flight.callers:
            self._dispose(flight.task.result())

    def _leave(self, key: K, flight: Flight[V]) -> None:
        flight.callers -= 1
        if flight.callers:
            return
        self._forget(key, flight)
        if not flight.task.done():
            flight.task.cancel()
        elif flight.landed and not flight.task.cancelled() and flight.task.exception() is None:
            self._dispose(flight.task.result())

    def _forget(self, key: K, flight: Flight[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
