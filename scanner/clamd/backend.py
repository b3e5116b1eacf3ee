"""One clamd: how to ask it, whether it is there, and which signatures it has.

The rules of this module: a clamd that cannot be reached, breaks off or is silent is down until it answers
again, and is asked at least every second meanwhile; nobody concludes that it is down from a control command
that waits behind scans, because clamd answers none while it is busy (facts/security.md section 2). A report
carries the version that was known when its scan was sent, and none while that is not certain.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from scanner.clamd import control, findings
from scanner.clamd.control import ClamdVersion
from scanner.clamd.database import DatabaseWatch, Load, process_started_at
from scanner.clamd.findings import ENGINE, RULES
from scanner.clamd.protocol import ClamdAddress, Reply, scan_descriptor, scan_stream
from scanner.errors import EngineError
from scanner.events import BackendChanged, EngineAnswered, Publish
from scanner.media import Sample
from scanner.verdict import Report

_RETRY = 1.0
_GONE = frozenset({"unavailable", "eof", "timeout"})


@dataclass(frozen=True, slots=True)
class Clamd:
    """A clamd to use, and what is known about it beforehand.

    `name` stands in logs and metrics, if not the address. `database` is where its signature files lie, if
    they can be seen; `last_load` as in DatabaseWatch; `settings` any text that stands for its
    configuration; `test_signatures` whether it has the embedded test set and no other.
    """

    address: ClamdAddress
    name: str = ""
    database: Callable[[], Path | None] = lambda: None
    last_load: Callable[[], Load | None] | None = None
    settings: str = ""
    test_signatures: Callable[[], bool] = lambda: False


class ClamdBackend:
    """One instance of clamd in the pool; `name` is a metric label.

    Gauges: `up`, `trusted`, `in_flight` (scans), `version`, `failed_at` (monotonic, 0 if it never failed).
    """

    def __init__(
        self, clamd: Clamd, *, publish: Publish, scan_timeout: float, epoch: Callable[[], int] = lambda: 0
    ) -> None:
        self.name = clamd.name or str(clamd.address)
        self.has_test_signatures = clamd.test_signatures
        self.up = False
        self.trusted = True
        self.in_flight = 0
        self.version: ClamdVersion | None = None
        self.failed_at = 0.0
        self._address = clamd.address
        self._publish = publish
        self._scan_timeout = scan_timeout
        self._epoch = epoch
        self._settings = f"{RULES}.{hashlib.sha256(clamd.settings.encode()).hexdigest()[:8]}"
        self._database = DatabaseWatch(clamd.database, self._started_at, clamd.last_load)
        self._asking: asyncio.Task[None] | None = None
        self._asked_since_up = False
        self._takes_descriptors: bool | None = None if clamd.address.local else False
        self._announced: str | None = None
        self._kept = ""
        self._complaint = ""

    @property
    def identity(self) -> str | None:
        """Signatures and settings in force, or last known of while down; None while that is not certain."""
        digest = self._database.digest
        if self.version is None or digest is None:
            return None
        return _identity(self.version.text, digest, self._settings, self._epoch())

    @property
    def kept(self) -> str:
        """Why it goes on with older signatures than those in its directory; "" if it does not."""
        return self._database.kept

    @property
    def description(self) -> str:
        """Which signatures it has and how old they are, for people."""
        if not self.up or self.version is None:
            return "no answer yet, every file is refused until there is one"
        made = self.version.signature_timestamp
        if self.has_test_signatures():
            return f"{self.version.text}, the tiny test set"
        if made is None:
            return f"{self.version.text}, signatures without a date"
        return f"{self.version.text}, signatures {(time.time() - made) / 3600:.0f} hours old"

    def trust(self, passed: bool) -> None:  # noqa: FBT001 - the canary's one statement
        """Take part in scans again, or no longer."""
        if passed is not self.trusted:
            self.trusted = passed
            self._announce("trusted" if passed else "untrusted")

    async def scan(self, sample: Sample, deadline: float | None = None) -> Report:
        """Judge `sample` on this clamd, trusted or not, until `deadline` (the event loop's time).

        Raises EngineError.
        """
        if deadline is None:
            deadline = asyncio.get_running_loop().time() + self._scan_timeout
        began = time.monotonic()
        self.in_flight += 1
        try:
            report = await self._ask(sample, deadline)
        except EngineError as problem:
            self._failed(problem, time.monotonic() - began)
        finally:
            self.in_flight -= 1
        self._answered("found" if report.reason else "clean", time.monotonic() - began)
        self._is_up()
        return report

    async def watch(self, interval: float) -> NoReturn:
        """Follow clamd's version for ever: every `interval` seconds, every second while it is in doubt."""
        while True:
            await self._look()
            await asyncio.sleep(interval if self.up and self.identity else min(interval, _RETRY))

    async def _ask(self, sample: Sample, deadline: float) -> Report:
        try:
            async with asyncio.timeout_at(deadline):
                if not self._asked_since_up:
                    await asyncio.shield(self._look())
                version = self.identity if self._asked_since_up else None
                reply = await self._exchange(sample)
        except TimeoutError as problem:
            raise EngineError("clamd did not answer in time", "timeout") from problem
        return findings.report(reply.found, version)

    async def _exchange(self, sample: Sample) -> Reply:
        """By descriptor, unless clamd is elsewhere or is not allowed to take one (AppArmor, SELinux).

        A clamd that may not just closes the connection. So may one that crashes: hence the frames are
        tried only as long as no descriptor has gone well, and count only if they go well themselves.
        """
        if self._takes_descriptors is False:
            return await scan_stream(self._address, sample)
        try:
            reply = await scan_descriptor(self._address, sample)
        except EngineError as problem:
            if self._takes_descriptors or problem.result not in {"eof", "error"}:
                raise
            reply = await scan_stream(self._address, sample)
            self._takes_descriptors = False
            self._announce("stream", f"takes no descriptor: {problem.info}")
        else:
            self._takes_descriptors = True
        return reply

    def _look(self) -> asyncio.Task[None]:
        """Ask for the version, once for all who want to know."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._update_version(), name=f"version of {self.name}")
        return self._asking

    async def _update_version(self) -> None:
        await self._database.look()
        try:
            self.version = await control.version(self._address)
            self._is_up()
            self._asked_since_up = True
            await self._database.settle(self.version, self._reload)
        except EngineError as problem:
            self._not_answered(problem)
        self._note_kept()
        identity = self.identity
        if identity is not None and identity != self._announced:
            self._announced = identity
            self._announce("version", identity)

    def _note_kept(self) -> None:
        before, self._kept = self._kept, self.kept
        if self._kept and self._kept != before:
            self._announce("kept", self._kept)
        elif before and not self._kept:
            self._announce("current")

    def _not_answered(self, problem: EngineError) -> None:
        if problem.result == "timeout" and self.in_flight:
            return
        if problem.result in _GONE:
            self._is_down(problem)
        elif problem.info != self._complaint:
            self._complaint = problem.info
            self._announce("problem", problem.info)

    async def _reload(self) -> None:
        await control.reload(self._address)
        self._announce("reload", "its database files have changed")

    def _started_at(self) -> float | None:
        return process_started_at(self._address.path) if self._address.path else None

    def _failed(self, problem: EngineError, seconds: float) -> NoReturn:
        self.failed_at = time.monotonic()
        self._answered("error" if problem.result == "unavailable" else problem.result, seconds)
        if problem.result in _GONE:
            self._is_down(problem)
        raise problem

    def _answered(self, result: str, seconds: float) -> None:
        self._publish(EngineAnswered(ENGINE, self.name, result, seconds))

    def _is_up(self) -> None:
        if not self.up:
            self.up = True
            self._announce("up")

    def _is_down(self, problem: EngineError) -> None:
        self._asked_since_up = False
        if self._takes_descriptors:
            self._takes_descriptors = None
        if self.up:
            self.up = False
            self._announce("down", problem.info)

    def _announce(self, state: str, detail: str = "") -> None:
        self._publish(BackendChanged(ENGINE, self.name, state, detail))


@lru_cache(maxsize=16)
def _identity(version: str, database: str, settings: str, epoch: int) -> str:
    return f"{version} database={database} settings={settings} epoch={epoch}"
