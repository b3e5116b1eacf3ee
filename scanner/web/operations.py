"""What operators and their machines ask: alive, ready, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from scanner.web.request import Request
from scanner.web.wire import RETRY_AFTER, Answer, json_answer

# Reason -> what to do about it, in one sentence; empty when ready.
Readiness = Callable[[], Awaitable[dict[str, str]]]
# What does not make us unready yet -> what to do about it.
Warnings = Callable[[], dict[str, str]]
Render = Callable[[str], tuple[bytes, str]]


class Operations:
    """Answers on both listeners; reasons, warnings, `mode` and metrics only on the operations one."""

    def __init__(
        self, readiness: Readiness, render: Render, mode: Callable[[], str], warnings: Warnings
    ) -> None:
        self._readiness = readiness
        self._render = render
        self._mode = mode
        self._warnings = warnings

    async def live(self, request: Request) -> Answer:
        """The process answers: nothing more is asked."""
        return json_answer({"live": True})

    async def ready(self, request: Request) -> Answer:
        """200 or 503, and why. Observing is a mode, and no reason."""
        reasons = await self._readiness()
        return _readiness_answer(
            {"ready": not reasons, "mode": self._mode(), "reasons": reasons, "warnings": self._warnings()}
        )

    async def ready_without_reasons(self, request: Request) -> Answer:
        """200 or 503: strangers need not know why."""
        return _readiness_answer({"ready": not await self._readiness()})

    async def metrics(self, request: Request) -> Answer:
        """Prometheus or OpenMetrics text."""
        accept = request.http.headers.get("Accept", "")
        payload, content_type = await asyncio.to_thread(self._render, accept)  # takes 5 ms and more
        return Answer(200, {"Content-Type": content_type}, payload)


def _readiness_answer(content: Mapping[str, object]) -> Answer:
    if content["ready"]:
        return json_answer(content)
    answer = json_answer(content, 503)
    answer.headers["Retry-After"] = str(RETRY_AFTER)
    return answer
