"""The ClamAV engine: a pool of clamds, any of which will do.

The rules of this module: the least busy clamd that is up and trusted is asked; one failure is retried on
another, if less than half of the time is used; a clamd that the canary caught lying is not asked; where the
embedded test set is all there is, nothing is clean; a PDF that clamd calls encrypted is put in order and
asked about once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Self

from scanner.clamd.backend import Clamd, ClamdBackend
from scanner.clamd.findings import ENGINE
from scanner.containers.pdf_password import move_encryption
from scanner.errors import EngineError
from scanner.events import Publish
from scanner.media import STEP, Body, BodyWriter, Sample
from scanner.verdict import Outcome, Reason, Report

_PDF_WITHIN = 1024
# A copy is made, and another one in memory.
_MENDED_UP_TO = 32 * 1024 * 1024


class ClamAV:
    """ClamAV behind one or several clamds; times are in seconds.

    A clamd that has nothing but the embedded test set is not asked unless `accept_test_signatures`. `epoch`
    is part of every version: when it changes, whatever is remembered is out of date.
    """

    name = ENGINE

    def __init__(
        self,
        clamds: Sequence[Clamd],
        *,
        publish: Publish,
        scan_timeout: float = 25.0,
        signature_poll: float = 5.0,
        accept_test_signatures: bool = False,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.backends = tuple(
            ClamdBackend(clamd, publish=publish, scan_timeout=scan_timeout, epoch=epoch) for clamd in clamds
        )
        self._scan_timeout = scan_timeout
        self._signature_poll = signature_poll
        self._accept_test_signatures = accept_test_signatures
        self._watches = asyncio.TaskGroup()
        self._watching: tuple[asyncio.Task[None], ...] = ()

    async def __aenter__(self) -> Self:
        await self._watches.__aenter__()
        self._watching = tuple(
            self._watches.create_task(backend.watch(self._signature_poll)) for backend in self.backends
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        for watch in self._watching:
            watch.cancel()
        await self._watches.__aexit__(None, None, None)

    def versions(self) -> frozenset[str]:
        """Of the clamds that are up; of all that may be asked while none is up."""
        usable = self._usable()
        in_force = [backend for backend in usable if backend.up] or usable
        return frozenset(backend.identity for backend in in_force if backend.identity is not None)

    async def scan(self, sample: Sample) -> Report:
        """Judge `sample` on one clamd, or a second one; raises EngineError."""
        deadline = asyncio.get_running_loop().time() + self._scan_timeout
        report = await self._scan(sample, deadline)
        if report.reason is Reason.ENCRYPTED_DOCUMENT and (mended := await _mended(sample)) is not None:
            try:
                return await self._scan(Sample(mended), deadline)
            finally:
                mended.release()
        return report

    async def _scan(self, sample: Sample, deadline: float) -> Report:
        usable = self._usable()
        if not usable:
            return Report(ENGINE, Outcome.FAILED, reason=self._why_none())
        now = asyncio.get_running_loop().time
        backend = min(usable, key=_reluctance)
        try:
            return await backend.scan(sample, deadline)
        except EngineError:
            others = [other for other in self._usable() if other is not backend]
            if not others or now() > deadline - self._scan_timeout / 2:
                raise
            return await min(others, key=_reluctance).scan(sample, deadline)

    def _usable(self) -> list[ClamdBackend]:
        return [backend for backend in self.backends if backend.trusted and self._accepts(backend)]

    def _accepts(self, backend: ClamdBackend) -> bool:
        return self._accept_test_signatures or not backend.has_test_signatures()

    def _why_none(self) -> Reason:
        accepted = any(self._accepts(backend) for backend in self.backends)
        return Reason.CANARY if accepted else Reason.TEST_SIGNATURES


async def _mended(sample: Sample) -> Body | None:
    """A PDF, encrypted as clamd wants it; what it says of this holds for the sample."""
    if sample.size > _MENDED_UP_TO or b"%PDF-" not in sample.head(_PDF_WITHIN):
        return None
    content = bytearray()
    for offset in range(0, sample.size, STEP):
        content += sample.read(offset, STEP)
        await asyncio.sleep(0)
    if not await asyncio.to_thread(move_encryption, content):
        return None
    writer = BodyWriter()
    try:
        await writer.write_in_steps(memoryview(content))
        return writer.seal()
    except BaseException:
        writer.discard()
        raise


def _reluctance(backend: ClamdBackend) -> tuple[bool, int, float]:
    """The lower, the sooner a clamd is asked: up, least busy, longest without a failure."""
    return not backend.up, backend.in_flight, backend.failed_at
