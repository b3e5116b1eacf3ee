"""Every way to end the demo is one KeyboardInterrupt, after which the clean-up is left alone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Returned = TypeVar("Returned")


class Interruption:
    """The handler of these signals: the first one interrupts, the others do nothing."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._interrupted = False

    def install(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._interrupt)

    def run(self, coroutine: Coroutine[Any, Any, Returned]) -> Returned:
        """As asyncio.run, which does this for SIGINT alone: interrupted, the coroutine is cancelled first."""
        try:
            return asyncio.run(self._cancellable(coroutine))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    async def _cancellable(self, coroutine: Coroutine[Any, Any, Returned]) -> Returned:
        self._task = asyncio.current_task()
        try:
            return await coroutine
        finally:
            self._task = None

    def _interrupt(self, number: int, frame: object) -> None:
        # Not SIG_IGN instead: of a signal that came together with the first, Python would print a traceback.
        if self._interrupted:
            return
        self._interrupted = True
        if self._task is None:
            raise KeyboardInterrupt
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)
