"""The story: a sample comes in, a verdict goes out. No HTTP, no files, no configuration.

    content -> known? -> one scan per content -> a slot -> plaintext -> engines -> verdict -> remembered

Nothing is clean unless the engines said so about exactly these bytes; an engine that fails makes the
verdict FAILED, and a failed verdict is never remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import lru_cache
from typing import Self

from scanner.admission import Slot, Slots
from scanner.errors import EngineError, Unavailable
from scanner.events import (
    EngineFailed,
    FlightJoined,
    Occasion,
    Publish,
    Scanned,
    StageTimed,
    VerdictLookedUp,
)
from scanner.media import STEP, MediaRef, Sample
from scanner.ports import Engine, Quarantine, VerdictCache
from scanner.single_flight import SingleFlight
from scanner.verdict import (
    UNKNOWN_TYPE,
    Alias,
    ContentId,
    Hashes,
    IndexSecret,
    Outcome,
    Reason,
    Report,
    Verdict,
    verdict_key,
)

Identify = Callable[[Sample], Awaitable[str]]

# A file that took too long may be judged in time when there is less to do.
_TIME_LIMIT_TTL = 600.0
# Samples whose plaintext is in memory without a slot, while they are written down.
_SMALL_KEPT_AT_ONCE = 64
_BIG_KEPT_AT_ONCE = 2
_FAILURES = {
    "timeout": Reason.ENGINE_TIMEOUT,
    "eof": Reason.ENGINE_UNAVAILABLE,
    "unavailable": Reason.ENGINE_UNAVAILABLE,
}


class Pipeline:
    """Judges samples with all engines, each content once per set of engine versions.

    Of encrypted samples the quarantine is given none where `keep_encrypted` is false.
    """

    def __init__(  # noqa: PLR0913 - each is another part, or a setting
        self,
        *,
        engines: Sequence[Engine],
        cache: VerdictCache,
        slots: Slots,
        index: IndexSecret,
        identify: Identify,
        publish: Publish,
        clean_ttl: float,
        quarantine: Quarantine | None = None,
        keep_encrypted: bool = True,
    ) -> None:
        self._engines = tuple(engines)
        self._cache = cache
        self._slots = slots
        self._index = index
        self._identify = identify
        self._publish = publish
        self._clean_ttl = clean_ttl
        self._quarantine = quarantine
        self._keeps = quarantine.outcomes if quarantine is not None else frozenset[Outcome]()
        self._keep_encrypted = keep_encrypted
        self._small_kept = asyncio.Semaphore(_SMALL_KEPT_AT_ONCE)
        self._big_kept = asyncio.Semaphore(_BIG_KEPT_AT_ONCE)
        self._flights: SingleFlight[Hashable, Verdict] = SingleFlight(
            joined=lambda: publish(FlightJoined("local"))
        )

    def replacing(self, engine: Engine) -> Self:
        """Another with `engine` in the place of its namesake; they share everything else.

        So a scan under way is joined only by those who would ask the same engines.
        """
        other = copy(self)
        engines = tuple(engine if engine.name == own.name else own for own in self._engines)
        other._engines = engines  # noqa: SLF001 - it is one of us
        return other

    async def recall(self, ref: MediaRef, attachment: bytes) -> Verdict | None:
        """What is known of an encrypted attachment before its bytes are here. Never an access grant."""
        content = await self._cache.content(self._alias(ref, attachment))
        return (
            None if content is None else await self._known(content, seen=True, keyless=False, encrypted=True)
        )

    async def recall_content(self, sha256: bytes, *, keyless: bool = True) -> Verdict | None:
        """What is known of bytes with this digest. Never an access grant."""
        return await self._known(self._index.content(sha256), seen=False, keyless=keyless)

    async def inspect(
        self,
        occasion: Occasion,
        sample: Sample,
        deadline: float,
        attachment: bytes | None = None,
        caller: str = "",
    ) -> Verdict:
        """The verdict on `sample`, which names its content; `deadline` is in the event loop's time.

        `attachment` is what names an encrypted one, its bytes having come from `occasion.ref`. Callers take
        turns. Raises Unavailable where no verdict can be had in time.
        """
        try:
            async with asyncio.timeout_at(deadline):
                content, seen = await self._content(occasion.ref, sample, attachment)
                known = await self._known(
                    content, seen=seen, keyless=sample.keyless, encrypted=sample.encrypted
                )
                if known is not None:
                    return known
                hash_only = sample.encrypted and not self._keep_encrypted
                key = (content, sample.keyless, hash_only, *(engine.versions() for engine in self._engines))
                flight = self._flights.join(key, lambda: self._scan(occasion, sample, content, caller))
                with flight as scan:
                    return replace(await scan.value(), content=content)
        except TimeoutError:
            raise Unavailable("not scanned in time, try again", "timeout") from None

    async def _content(
        self, ref: MediaRef | None, sample: Sample, attachment: bytes | None
    ) -> tuple[ContentId, bool]:
        """What the sample is, and whether this very attachment was seen before."""
        if attachment is None or ref is None:
            return self._index.content(await sample.digest()), False
        alias = self._alias(ref, attachment)
        content = await self._cache.content(alias)
        if content is not None:
            return content, True
        with self._timed("decrypt"):
            content = self._index.content(await sample.digest())
        await self._cache.link(alias, content)
        return content, False

    def _alias(self, ref: MediaRef, attachment: bytes) -> Alias:
        return self._index.alias(ref.origin, ref.media_id, attachment)

    async def _known(
        self, content: ContentId, *, seen: bool, keyless: bool, encrypted: bool = False
    ) -> Verdict | None:
        for versions in self._possible_versions():
            verdict = await self._cache.verdict(verdict_key(content, versions, keyless=keyless))
            if verdict is not None and not self._is_to_keep(verdict, encrypted=encrypted):
                self._publish(VerdictLookedUp(self._cache.name, "hit"))
                return replace(verdict, content=content)
        self._publish(VerdictLookedUp(self._cache.name, "stale" if seen else "miss"))
        return None

    def _possible_versions(self) -> Sequence[Mapping[str, str]]:
        return _combined(tuple((engine.name, engine.versions()) for engine in self._engines))

    async def _scan(self, occasion: Occasion, sample: Sample, content: ContentId, caller: str) -> Verdict:
        body = sample.body.retain()  # whoever asked first may leave before the scan ends
        try:
            verdict = await self._judge(sample, caller)
        finally:
            body.release()
        told = verdict.without_paths()
        self._publish(Scanned(occasion.source, occasion.encrypted, sample.size, told))
        to_keep = self._is_to_keep(verdict, encrypted=sample.encrypted)
        if verdict.conclusive and verdict.versions is not None and not to_keep:
            await self._remember(content, told, verdict.versions, keyless=sample.keyless)
        return verdict

    async def _remember(
        self, content: ContentId, verdict: Verdict, versions: Mapping[str, str], *, keyless: bool
    ) -> None:
        """What holds for keyless bytes holds for them as a plaintext, too, unless they are opaque."""
        opaque = any(report.outcome is Outcome.OPAQUE for report in verdict.reports)
        for as_keyless in {keyless, keyless and opaque}:
            key = verdict_key(content, versions, keyless=as_keyless)
            await self._cache.remember(key, verdict, self._lifetime(verdict))

    async def _judge(self, sample: Sample, caller: str) -> Verdict:
        queued = time.monotonic()
        with await self._slots.take(sample.size, caller) as slot:
            self._publish(StageTimed("queue", time.monotonic() - queued))
            with self._timed("engine"):
                async with sample.opened():
                    verdict = await self._verdict(await self._reports(sample), sample)
                    return await self._kept(verdict, sample, slot)

    async def _reports(self, sample: Sample) -> tuple[Report, ...]:
        """All engines' at once; one after the other for a small sample, for which tasks cost too much."""
        if sample.size <= Slots.SMALL:
            return tuple([await self._ask(engine, sample) for engine in self._engines])
        return tuple(await asyncio.gather(*(self._ask(engine, sample) for engine in self._engines)))

    async def _ask(self, engine: Engine, sample: Sample) -> Report:
        try:
            return await engine.scan(sample)
        except EngineError as problem:
            self._publish(EngineFailed(engine.name, problem.info))
            reason = _FAILURES.get(problem.result, Reason.ENGINE_ERROR)
        except (Exception, asyncio.CancelledError) as problem:
            if _is_ours(problem):
                raise
            self._publish(EngineFailed(engine.name, type(problem).__name__))
            reason = Reason.ENGINE_ERROR
        return Report(engine.name, Outcome.FAILED, reason=reason)

    async def _verdict(self, reports: tuple[Report, ...], sample: Sample) -> Verdict:
        verdict = Verdict(reports, judged_at=time.time())
        if verdict.outcome is not Outcome.INFECTED and verdict.outcome not in self._keeps:
            return verdict
        return Verdict(reports, verdict.judged_at, await self._type(sample), await _hashes(sample))

    async def _kept(self, verdict: Verdict, sample: Sample, slot: Slot) -> Verdict:
        """The verdict, once the quarantine has its sample: before that nobody is refused for it.

        Who waits for a disk needs no `slot` for that, unless too many do.
        """
        if self._quarantine is None or not self._is_to_keep(verdict, encrypted=sample.encrypted):
            return verdict
        async with self._small_kept if sample.size <= Slots.SMALL else self._big_kept:
            slot.give_back()
            with self._timed("quarantine"):
                return replace(verdict, kept=await self._quarantine.keep(sample, verdict.without_paths()))

    def _is_to_keep(self, verdict: Verdict, *, encrypted: bool) -> bool:
        """A verdict without its sample is not remembered: the next sight of the content brings it.

        It is, where the sample is not wanted; but then it holds for samples that are not wanted, alone.
        """
        wanted = verdict.outcome in self._keeps and (self._keep_encrypted or not encrypted)
        return wanted and not verdict.kept

    async def _type(self, sample: Sample) -> str:
        """For the detection's record; what goes wrong here must not lose the detection."""
        try:
            return await self._identify(sample)
        except Exception as problem:  # noqa: BLE001 - as in `_ask`
            self._publish(EngineFailed("mime", type(problem).__name__))
            return UNKNOWN_TYPE

    def _lifetime(self, verdict: Verdict) -> float:
        out_of_time = any(report.reason is Reason.TIME_LIMIT for report in verdict.reports)
        return min(_TIME_LIMIT_TTL, self._clean_ttl) if out_of_time else self._clean_ttl

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._publish(StageTimed(stage, time.monotonic() - began))


@lru_cache(maxsize=64)
def _combined(engines: tuple[tuple[str, frozenset[str]], ...]) -> Sequence[Mapping[str, str]]:
    """Each engine with one of its versions; the same few, for every file."""
    names = [name for name, _ in engines]
    combinations = itertools.product(*(sorted(versions) for _, versions in engines))
    return [dict(zip(names, versions, strict=True)) for versions in combinations]


def _is_ours(problem: BaseException) -> bool:
    """Whether this scan was cancelled, and not something inside the engine."""
    task = asyncio.current_task()
    return isinstance(problem, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def _hashes(sample: Sample) -> Hashes:
    digests = hashlib.sha256(), hashlib.sha1(usedforsecurity=False), hashlib.md5(usedforsecurity=False)
    for offset in range(0, sample.size, STEP):
        piece = sample.read(offset, STEP)
        for digest in digests:
            digest.update(piece)
        await asyncio.sleep(0)
    sha256, sha1, md5 = (digest.hexdigest() for digest in digests)
    return Hashes(sha256, sha1, md5)
