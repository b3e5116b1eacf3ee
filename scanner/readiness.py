"""Whether we can do our work now, and if not, why: fixed words, each with what to do about it.

Readiness never gates a request: it tells load balancers and people (DESIGN.md, "The canary").
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol


class Dated(Protocol):
    """A clamd's version."""

    @property
    def signature_timestamp(self) -> float | None:
        """Unix time at which its signatures were made; None where clamd does not tell."""
        ...


class Signatures(Protocol):
    """What one clamd says of its signatures."""

    name: str

    @property
    def up(self) -> bool:
        """Whether it answers."""
        ...

    @property
    def version(self) -> Dated | None:
        """None before its first answer."""
        ...

    @property
    def kept(self) -> str:
        """Why it goes on with older ones than those that lie there; "" if it does not."""
        ...

    @property
    def has_test_signatures(self) -> Callable[[], bool]:
        """Whether it has the embedded test set and no other."""
        ...


class Readiness:
    """Asks every part whenever somebody wants to know."""

    def __init__(  # noqa: PLR0913 - each is another part's word
        self,
        *,
        backends: Sequence[Signatures],
        canary_healthy: Callable[[], bool],
        homeserver_reachable: Callable[[], Awaitable[bool]],
        max_signature_age: float | None,
        accept_test_signatures: bool,
        update_problem: Callable[[], str] = lambda: "",
        quarantine_problem: Callable[[], str] = lambda: "",
        overrides_problem: Callable[[], str] = lambda: "",
        admin_problem: Callable[[], str] = lambda: "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._backends = backends
        self._canary_healthy = canary_healthy
        self._homeserver_reachable = homeserver_reachable
        self._max_signature_age = max_signature_age
        self._accept_test_signatures = accept_test_signatures
        self._update_problem = update_problem
        self._quarantine_problem = quarantine_problem
        self._overrides_problem = overrides_problem
        self._admin_problem = admin_problem
        self._now = now
        self.stopping = False

    async def reasons(self) -> dict[str, str]:
        """Reason -> what to do; empty when ready."""
        reasons = self._engine_reasons()
        if self.stopping:
            reasons["stopping"] = "this instance is shutting down; nothing to do"
        if not await self._homeserver_reachable():
            reasons["homeserver"] = "the homeserver does not answer; check homeserver.url and the homeserver"
        return reasons

    def warnings(self) -> dict[str, str]:
        """What makes us not ready if it goes on -> what to do: scanning is as good as it was until then."""
        warnings = {}
        if kept := [f"{backend.name}: {backend.kept}" for backend in self._backends if backend.kept]:
            problems = ", ".join(kept)
            warnings["reload"] = f"a clamd kept its old signatures ({problems}); mend or remove the new ones"
        if problem := self._update_problem():
            warnings["signature_updates"] = f"freshclam: {problem}; check clamav.mirrors and the network"
        if problem := self._quarantine_problem():
            warnings["quarantine"] = f"samples wait in the outbox ({problem}); check the quarantine store"
        if problem := self._overrides_problem():
            warnings["overrides"] = f"analysts' new decisions cannot be read ({problem}); check the store"
        if problem := self._admin_problem():
            warnings["homeserver_quarantine"] = (
                f"infected media are not quarantined in the homeserver ({problem}); check its admin API"
            )
        return warnings

    def _engine_reasons(self) -> dict[str, str]:
        up = [backend for backend in self._backends if backend.up]
        if not up:
            return {"engine": "no clamd answers; check clamav.addresses, and clamd's log"}
        reasons = {}
        asked = [
            backend for backend in up if self._accept_test_signatures or not backend.has_test_signatures()
        ]
        if not asked:
            reasons["test_signatures"] = "clamd has only the test set; run freshclam, then wait a minute"
        elif not any(self._fresh(backend) for backend in asked):
            reasons["signatures"] = "clamd's signatures are too old or without a date; run freshclam"
        if not self._canary_healthy():
            reasons["canary"] = "clamd does not find the test virus; check clamd's log and its signatures"
        return reasons

    def _fresh(self, backend: Signatures) -> bool:
        if self._max_signature_age is None or backend.has_test_signatures():
            return True
        made = backend.version.signature_timestamp if backend.version is not None else None
        # A date in the future is a clock that is wrong, here or there (facts/security.md, section 4).
        return made is not None and -3600 < self._now() - made < self._max_signature_age
