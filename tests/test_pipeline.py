from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest

from scanner.admission import Budget, Slots
from scanner.crypto.attachment import AttachmentKey
from scanner.errors import EngineError, Unavailable
from scanner.events import (
    EngineFailed,
    FlightJoined,
    Occasion,
    Scanned,
    Source,
    StageTimed,
    VerdictLookedUp,
)
from scanner.media import Body, BodyWriter, MediaRef, Sample
from scanner.pipeline import Identify, Pipeline
from scanner.verdict import (
    Alias,
    ContentId,
    Detection,
    IndexSecret,
    Outcome,
    Reason,
    Report,
    Verdict,
    VerdictKey,
)
from scanner.verdict_cache.memory import Memory
from tests.fake_homeserver import until
from tests.fakes import RecordingSink, StubEngine, a_body, encrypted, encrypted_file_of, silent_engine

REF = MediaRef("example.org", "theMedia")
OTHER_REF = MediaRef("example.org", "anotherMedia")
CLEAN_TTL = 3600.0


def occasion(ref: MediaRef = REF, *, is_encrypted: bool = False) -> Occasion:
    return Occasion(ref, Source.DOWNLOAD, is_encrypted, "request-id")


class ObservedCache(Memory):
    """A VerdictCache that notes what it is told, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.lifetimes: list[float] = []

    async def remember(self, key: VerdictKey, verdict: Verdict, lifetime: float) -> None:
        self.told.append("remember")
        self.lifetimes.append(lifetime)
        await super().remember(key, verdict, lifetime)

    async def link(self, alias: Alias, content: ContentId) -> None:
        self.told.append("link")
        await super().link(alias, content)


class StubQuarantine:
    """Notes the plaintexts that it was given to keep."""

    outcomes = frozenset({Outcome.INFECTED})

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.verdicts: list[Verdict] = []

    async def keep(self, sample: Sample, verdict: Verdict) -> bool:
        self.kept.append(sample.read(0, sample.size))
        self.verdicts.append(verdict)
        return True


class SlowQuarantine(StubQuarantine):
    """Writes nothing until `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.keeping = 0
        self.gate = asyncio.Event()

    async def keep(self, sample: Sample, verdict: Verdict) -> bool:
        self.keeping += 1
        await self.gate.wait()
        return await super().keep(sample, verdict)


async def unidentified(sample: Sample) -> str:
    return "text/plain"


@dataclass
class Bench:
    """A pipeline and everything around it."""

    engines: list[StubEngine] = field(default_factory=lambda: [StubEngine()])
    cache: ObservedCache = field(default_factory=ObservedCache)
    sink: RecordingSink = field(default_factory=RecordingSink)
    slots: Slots = field(default_factory=lambda: Slots(2, 5))
    identify: Identify = unidentified
    bodies: list[Body] = field(default_factory=list)
    quarantine: StubQuarantine | None = None
    keep_encrypted: bool = True

    def __post_init__(self) -> None:
        self.pipeline = Pipeline(
            engines=self.engines,
            cache=self.cache,
            slots=self.slots,
            index=IndexSecret(bytes(32)),
            identify=self._identify,
            publish=self.sink,
            clean_ttl=CLEAN_TTL,
            quarantine=self.quarantine,
            keep_encrypted=self.keep_encrypted,
        )

    async def _identify(self, sample: Sample) -> str:
        return await self.identify(sample)

    @property
    def engine(self) -> StubEngine:
        return self.engines[0]

    async def inspect(self, data: bytes, *, seconds: float = 5) -> Verdict:
        """A plain media."""
        return await self._inspect(occasion(), data, None, seconds)

    async def inspect_encrypted(
        self, ciphertext: bytes, key: AttachmentKey, ref: MediaRef = REF, *, seconds: float = 5
    ) -> Verdict:
        return await self._inspect(occasion(ref, is_encrypted=True), ciphertext, key, seconds)

    async def inspect_keyless(self, data: bytes) -> Verdict:
        """What may be ciphertext whose key nobody gave us."""
        return await self._inspect(occasion(), data, None, 5, keyless=True)

    async def _inspect(
        self, what: Occasion, data: bytes, key: AttachmentKey | None, seconds: float, *, keyless: bool = False
    ) -> Verdict:
        body = a_body(data)
        self.bodies.append(body)
        end = asyncio.get_running_loop().time() + seconds
        material = None if key is None else key.secret_material()
        try:
            return await self.pipeline.inspect(what, Sample(body, key, keyless=keyless), end, material)
        finally:
            body.release()

    async def idle(self) -> bool:
        """Whether nothing is held any more, one moment later."""
        await settle()
        return (
            not self.slots.in_flight and not self.slots.waiting and not any(e.running for e in self.engines)
        )


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


@pytest.fixture(autouse=True)
def nothing_is_logged_by_the_loop(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Such as an exception that nobody retrieved."""
    yield
    assert caplog.records == []


# -- judging -------------------------------------------------------------------------------------


async def test_content_is_judged_by_every_engine_and_remembered() -> None:
    bench = Bench([StubEngine("one"), StubEngine("two", Outcome.UNSCANNABLE)])
    verdict = await bench.inspect(b"data")
    assert verdict.outcome is Outcome.UNSCANNABLE
    assert [report.engine for report in verdict.reports] == ["one", "two"]
    assert await bench.inspect(b"data") == verdict
    assert [engine.seen for engine in bench.engines] == [[b"data"], [b"data"]]
    assert bench.cache.lifetimes == [CLEAN_TTL]
    assert [event.result for event in bench.sink.of(VerdictLookedUp)] == ["miss", "hit"]
    assert len(bench.sink.of(Scanned)) == 1
    assert {event.stage for event in bench.sink.of(StageTimed)} == {"queue", "engine"}
    assert await bench.idle()


@pytest.mark.parametrize(("size", "running"), [(Slots.SMALL, [1, 0]), (Slots.SMALL + 1, [1, 1])])
async def test_engines_look_at_a_big_sample_at_the_same_time(size: int, running: list[int]) -> None:
    bench = Bench([StubEngine("one"), StubEngine("two")])
    for engine in bench.engines:
        engine.gate.clear()
    inspection = asyncio.create_task(bench.inspect(bytes(size)))
    await settle()
    assert [engine.running for engine in bench.engines] == running
    for engine in bench.engines:
        engine.gate.set()
    assert (await inspection).outcome is Outcome.CLEAN


async def test_engine_sees_the_plaintext_of_an_attachment(bench: Bench) -> None:
    ciphertext, key = encrypted(b"plaintext")
    await bench.inspect_encrypted(ciphertext, key)
    assert bench.engine.seen == [b"plaintext"]


async def test_same_plaintext_under_another_key_is_known(bench: Bench) -> None:
    for _ in range(2):
        await bench.inspect_encrypted(*encrypted(b"plaintext"))
    await bench.inspect(b"plaintext")
    assert bench.engine.seen == [b"plaintext"]


async def test_two_keys_for_one_ciphertext_at_once_are_two_scans_of_two_plaintexts(bench: Bench) -> None:
    """A wrong key whose garbage is clean must not speak for the right one."""
    bench.engine.gate.clear()
    ciphertext, right = encrypted(b"a virus, let us say")
    wrong = AttachmentKey.parse(encrypted_file_of(ciphertext, bytes(32), bytes(16)))
    both = [asyncio.create_task(bench.inspect_encrypted(ciphertext, key)) for key in (wrong, right)]
    await settle()
    assert bench.engine.running == 2
    bench.engine.gate.set()
    await asyncio.gather(*both)
    assert len(set(bench.engine.seen)) == 2
    assert b"a virus, let us say" in bench.engine.seen
    assert bench.sink.of(FlightJoined) == []


async def test_no_engine_at_all_is_a_failure() -> None:
    bench = Bench([])
    for _ in range(2):
        assert (await bench.inspect(b"data")).outcome is Outcome.FAILED
    assert bench.cache.told == []


# -- failing engines -----------------------------------------------------------------------------

CRASHES = [
    (EngineError("no answer", "timeout"), Reason.ENGINE_TIMEOUT),
    (EngineError("closed", "eof"), Reason.ENGINE_UNAVAILABLE),
    (EngineError("refused", "unavailable"), Reason.ENGINE_UNAVAILABLE),
    (EngineError("odd", "error"), Reason.ENGINE_ERROR),
    (ZeroDivisionError("secret"), Reason.ENGINE_ERROR),
    (TimeoutError(), Reason.ENGINE_ERROR),
    (RecursionError(), Reason.ENGINE_ERROR),
    (MemoryError(), Reason.ENGINE_ERROR),
    (ExceptionGroup("secret", [OSError("secret")]), Reason.ENGINE_ERROR),
    (StopAsyncIteration(), Reason.ENGINE_ERROR),
    (asyncio.CancelledError("something inside the engine was cancelled"), Reason.ENGINE_ERROR),
]


@pytest.mark.parametrize(("failure", "reason"), CRASHES)
async def test_engine_that_crashes_is_neither_clean_nor_infected_and_is_not_remembered(
    failure: BaseException, reason: Reason
) -> None:
    bench = Bench([StubEngine("fine"), StubEngine("broken")])
    bench.engines[1].failure = failure
    for _ in range(2):
        verdict = await bench.inspect(b"data")
        assert (verdict.outcome, verdict.reports[1].reason) == (Outcome.FAILED, reason)
    assert bench.cache.told == []
    assert len(bench.engine.seen) == 2
    problems = [event.problem for event in bench.sink.of(EngineFailed)]
    assert len(problems) == 2
    assert "secret" not in "".join(problems)
    assert await bench.idle()
    bench.engines[1].failure = None
    assert (await bench.inspect(b"data")).outcome is Outcome.CLEAN


async def test_engine_failure_does_not_hide_what_another_found() -> None:
    bench = Bench([silent_engine(), StubEngine("finder", Outcome.INFECTED)])
    assert (await bench.inspect(b"data")).outcome is Outcome.INFECTED
    assert bench.cache.told == [], "the silent one may have had more to say"


async def test_engine_that_reports_failure_itself_is_not_remembered(bench: Bench) -> None:
    bench.engine.outcome = Outcome.FAILED
    await bench.inspect(b"data")
    assert bench.cache.told == []


async def test_crash_of_one_engine_waits_for_the_others_before_the_plaintext_goes() -> None:
    bench = Bench([StubEngine("slow"), StubEngine("broken")])
    bench.engine.gate.clear()
    bench.engines[1].failure = asyncio.CancelledError()
    ciphertext, key = encrypted(b"plaintext")
    inspection = asyncio.create_task(bench.inspect_encrypted(ciphertext, key))
    await settle()
    bench.engine.gate.set()
    assert (await inspection).outcome is Outcome.FAILED
    assert bench.engine.seen == [b"plaintext"]


# -- versions ------------------------------------------------------------------------------------


async def test_new_version_of_an_engine_means_a_new_scan(bench: Bench) -> None:
    await bench.inspect(b"data")
    bench.engine.version = "2"
    bench.engine.outcome = Outcome.INFECTED
    assert (await bench.inspect(b"data")).outcome is Outcome.INFECTED
    assert (await bench.inspect(b"data")).outcome is Outcome.INFECTED
    assert len(bench.engine.seen) == 2


async def test_new_version_of_any_engine_means_a_new_scan() -> None:
    bench = Bench([StubEngine("one"), StubEngine("two")])
    await bench.inspect(b"data")
    bench.engines[1].version = "2"
    await bench.inspect(b"data")
    assert [len(engine.seen) for engine in bench.engines] == [2, 2]


async def test_verdict_of_an_uncertain_version_is_neither_remembered_nor_recalled() -> None:
    bench = Bench([StubEngine("certain"), StubEngine("uncertain")])
    bench.engines[1].version = None
    for _ in range(2):
        assert (await bench.inspect(b"data")).outcome is Outcome.CLEAN
    assert bench.cache.told == []
    assert len(bench.engine.seen) == 2


async def test_version_that_becomes_uncertain_stops_recalling(bench: Bench) -> None:
    await bench.inspect(b"data")
    bench.engine.version = None
    await bench.inspect(b"data")
    assert len(bench.engine.seen) == 2


async def test_version_that_changes_during_a_scan_is_that_of_its_start(bench: Bench) -> None:
    bench.engine.gate.clear()
    inspection = asyncio.create_task(bench.inspect(b"data"))
    await settle()
    bench.engine.version = "2"
    bench.engine.gate.set()
    await inspection
    await bench.inspect(b"data")
    assert len(bench.engine.seen) == 2


async def test_any_version_in_force_recalls() -> None:
    """Backends that disagree for a while."""

    class TwoBackends(StubEngine):
        def versions(self) -> frozenset[str]:
            return frozenset({"1", "2"})

    bench = Bench([TwoBackends(), StubEngine("other")])
    bench.engine.version = "2"
    for _ in range(2):
        await bench.inspect(b"data")
    assert len(bench.engine.seen) == 1


async def test_file_that_took_too_long_is_remembered_for_ten_minutes_only() -> None:
    class Slow(StubEngine):
        async def scan(self, sample: Sample) -> Report:
            return Report(self.name, Outcome.UNSCANNABLE, self.version, Reason.TIME_LIMIT)

    bench = Bench([Slow()])
    await bench.inspect(b"data")
    assert bench.cache.lifetimes == [600]


# -- infected ------------------------------------------------------------------------------------


async def test_infected_verdict_says_what_the_plaintext_is(bench: Bench) -> None:
    bench.engine.outcome = Outcome.INFECTED
    plaintext = bytes(range(256)) * 3000
    verdict = await bench.inspect_encrypted(*encrypted(plaintext))
    assert verdict.mime_type == "text/plain"
    assert verdict.hashes is not None
    assert verdict.hashes.sha256 == hashlib.sha256(plaintext).hexdigest()
    assert verdict.hashes.sha1 == hashlib.sha1(plaintext, usedforsecurity=False).hexdigest()
    assert verdict.hashes.md5 == hashlib.md5(plaintext, usedforsecurity=False).hexdigest()


class Finder(StubEngine):
    """Finds something in an archive."""

    async def scan(self, sample: Sample) -> Report:
        found = Detection("Eicar").inside(b"secret plan.pdf")
        return Report(self.name, Outcome.INFECTED, self.version, Reason.MALWARE, (found,))


async def test_where_in_an_archive_is_told_to_nobody_but_who_asked() -> None:
    quarantine = StubQuarantine()
    bench = Bench([Finder()], quarantine=quarantine)
    told = [(await bench.inspect(b"data")).detections for _ in range(2)]
    assert [found.path for (found,) in told] == ["secret plan.pdf", ""]
    (scanned,) = bench.sink.of(Scanned)
    assert scanned.verdict.detections == quarantine.verdicts[0].detections == (Detection("Eicar"),)


async def test_an_archive_judged_under_other_signatures_than_the_whole_is_not_remembered() -> None:
    class Asking(StubEngine):
        async def scan(self, sample: Sample) -> Report:
            return Report(self.name, Outcome.CLEAN, self.version, asked=frozenset({("stub", "2")}))

    bench = Bench([StubEngine(), Asking("archive")])
    assert (await bench.inspect(b"data")).outcome is Outcome.CLEAN
    assert bench.cache.told == []
    bench.engine.version = "2"
    assert (await bench.inspect(b"data")).outcome is Outcome.CLEAN
    assert bench.cache.told == ["remember"]


async def test_infected_is_infected_although_its_type_cannot_be_told(bench: Bench) -> None:
    async def fail(sample: Sample) -> str:
        raise EngineError("libmagic is stuck", "timeout")

    bench.engine.outcome = Outcome.INFECTED
    bench.identify = fail
    verdict = await bench.inspect(b"")
    assert (verdict.outcome, verdict.mime_type) == (Outcome.INFECTED, "application/octet-stream")
    assert verdict.hashes is not None


async def test_an_infected_verdict_without_its_sample_does_not_pass_for_one_with_it() -> None:
    """Where hashes alone are kept of encrypted rooms: the same content may be sent in another one."""
    quarantine = StubQuarantine()
    bench = Bench(quarantine=quarantine, keep_encrypted=False)
    bench.engine.outcome = Outcome.INFECTED
    attachment = encrypted(b"plaintext")
    for _ in range(2):
        assert not (await bench.inspect_encrypted(*attachment)).kept
    assert (quarantine.kept, len(bench.engine.seen)) == ([], 1)
    assert await bench.pipeline.recall_content(hashlib.sha256(b"plaintext").digest(), keyless=False) is None
    for _ in range(2):
        assert (await bench.inspect(b"plaintext")).kept
    assert (quarantine.kept, len(bench.engine.seen)) == ([b"plaintext"], 2)


async def test_who_asks_in_an_encrypted_room_at_the_same_time_takes_no_sample_away() -> None:
    quarantine = StubQuarantine()
    bench = Bench(quarantine=quarantine, keep_encrypted=False)
    bench.engine.outcome = Outcome.INFECTED
    await asyncio.gather(bench.inspect_encrypted(*encrypted(b"plaintext")), bench.inspect(b"plaintext"))
    assert quarantine.kept == [b"plaintext"]


async def test_nothing_is_kept_of_clean_content(bench: Bench) -> None:
    verdict = await bench.inspect(b"data")
    assert verdict.hashes is None
    assert verdict.mime_type == "application/octet-stream"


# -- aliases -------------------------------------------------------------------------------------


async def test_attachment_seen_before_is_recalled_without_its_bytes(bench: Bench) -> None:
    ciphertext, key = encrypted(b"plaintext")
    verdict = await bench.inspect_encrypted(ciphertext, key)
    assert await bench.pipeline.recall(REF, key.secret_material()) == verdict


async def test_alias_is_written_only_after_the_bytes_were_hashed(bench: Bench) -> None:
    ciphertext, key = encrypted(bytes(3_000_000))
    inspection = asyncio.create_task(bench.inspect_encrypted(ciphertext, key))
    for _ in range(4):
        await asyncio.sleep(0)
        assert bench.cache.told == []
        assert await bench.pipeline.recall(REF, key.secret_material()) is None
    await inspection
    assert bench.cache.told == ["link", "remember"]


async def test_alias_is_not_written_when_hashing_is_cut_short(bench: Bench) -> None:
    ciphertext, key = encrypted(bytes(3_000_000))
    inspection = asyncio.create_task(bench.inspect_encrypted(ciphertext, key))
    for _ in range(4):
        await asyncio.sleep(0)
    inspection.cancel()
    with suppress(asyncio.CancelledError):
        await inspection
    assert bench.cache.told == []


async def test_alias_under_another_media_id_is_no_hit(bench: Bench) -> None:
    """Else an attacker could name his own upload beside a victim's hash."""
    ciphertext, key = encrypted(b"plaintext")
    await bench.inspect_encrypted(ciphertext, key)
    for ref in (OTHER_REF, MediaRef("example.com", REF.media_id)):
        assert await bench.pipeline.recall(ref, key.secret_material()) is None


async def test_alias_under_another_key_is_no_hit(bench: Bench) -> None:
    ciphertext, key = encrypted(b"plaintext")
    await bench.inspect_encrypted(ciphertext, key)
    for k, iv in ((bytes(32), bytes(16)), (b"\1" * 32, bytes(16))):
        other = AttachmentKey.parse(encrypted_file_of(ciphertext, k, iv))
        assert await bench.pipeline.recall(REF, other.secret_material()) is None


async def test_recalled_attachment_is_stale_when_an_engine_has_changed(bench: Bench) -> None:
    ciphertext, key = encrypted(b"plaintext")
    await bench.inspect_encrypted(ciphertext, key)
    bench.engine.version = "2"
    assert await bench.pipeline.recall(REF, key.secret_material()) is None
    assert bench.sink.of(VerdictLookedUp)[-1].result == "stale"


async def test_plain_media_writes_no_alias(bench: Bench) -> None:
    await bench.inspect(b"data")
    assert bench.cache.told == ["remember"]


# -- one scan at a time --------------------------------------------------------------------------


async def test_requests_for_one_content_share_a_scan(bench: Bench) -> None:
    bench.engine.gate.clear()
    requests = [asyncio.create_task(bench.inspect_encrypted(*encrypted(b"plaintext"))) for _ in range(5)]
    await settle()
    bench.engine.gate.set()
    assert len(set(await asyncio.gather(*requests))) == 1
    assert bench.engine.seen == [b"plaintext"]
    assert bench.sink.of(FlightJoined) == [FlightJoined("local")] * 4


async def test_follower_survives_cancelled_leader_whose_body_is_gone(bench: Bench) -> None:
    bench.engine.gate.clear()
    budget = Budget(16 * 2**20, wait=1)
    ciphertext, key = encrypted(b"plaintext")

    async def request() -> Verdict:
        writer = BodyWriter(await budget.small.reserve(len(ciphertext), "caller"))
        writer.write(ciphertext)
        body = writer.seal()
        try:
            end = asyncio.get_running_loop().time() + 5
            what = occasion(is_encrypted=True)
            return await bench.pipeline.inspect(what, Sample(body, key), end, key.secret_material())
        finally:
            body.release()

    leader, follower = asyncio.create_task(request()), asyncio.create_task(request())
    await settle()
    assert budget.reserved == 2 * len(ciphertext)
    leader.cancel()
    await settle()
    assert leader.cancelled()
    assert budget.reserved == 2 * len(ciphertext), "the scan still reads the leader's body"
    bench.engine.gate.set()
    assert (await follower).outcome is Outcome.CLEAN
    assert bench.engine.seen == [b"plaintext"]
    await settle()
    assert budget.reserved == 0


async def test_last_caller_that_leaves_cancels_the_scan_and_frees_everything(bench: Bench) -> None:
    bench.engine.gate.clear()
    ciphertext, key = encrypted(b"plaintext")
    requests = [asyncio.create_task(bench.inspect_encrypted(ciphertext, key)) for _ in range(2)]
    await settle()
    requests[0].cancel()
    await settle()
    assert bench.engine.running == 1
    requests[1].cancel()
    assert await bench.idle()
    assert bench.cache.told == ["link"]
    assert bench.sink.of(EngineFailed) == [], "cancelled by us, not broken"
    for body in bench.bodies:
        with pytest.raises(RuntimeError):
            body.retain()


async def test_scan_that_nobody_waited_for_leaves_the_next_one_alone(bench: Bench) -> None:
    bench.engine.gate.clear()
    request = asyncio.create_task(bench.inspect(b"data"))
    await settle()
    request.cancel()
    await settle()
    bench.engine.gate.set()
    assert (await bench.inspect(b"data")).outcome is Outcome.CLEAN


async def test_failed_scan_fails_all_who_shared_it_and_nobody_after(bench: Bench) -> None:
    bench.engine.gate.clear()
    bench.engine.failure = EngineError("killed", "eof")
    requests = [asyncio.create_task(bench.inspect(b"data")) for _ in range(3)]
    await settle()
    bench.engine.gate.set()
    assert {verdict.outcome for verdict in await asyncio.gather(*requests)} == {Outcome.FAILED}
    bench.engine.failure = None
    assert (await bench.inspect(b"data")).outcome is Outcome.CLEAN


# -- time and room -------------------------------------------------------------------------------


async def test_deadline_ends_in_unavailable_and_frees_the_slot(bench: Bench) -> None:
    bench.engine.gate.clear()
    with pytest.raises(Unavailable) as refused:
        await bench.inspect(b"data", seconds=0.02)
    assert refused.value.cause == "timeout"
    assert await bench.idle()
    assert bench.cache.told == []


async def test_deadline_that_is_over_already_scans_nothing(bench: Bench) -> None:
    with pytest.raises(Unavailable):
        await bench.inspect_encrypted(*encrypted(bytes(1_000_000)), seconds=-1)
    assert await bench.idle()
    assert bench.cache.told == []


async def test_deadline_of_the_first_caller_is_not_that_of_the_second(bench: Bench) -> None:
    bench.engine.gate.clear()
    hasty = asyncio.create_task(bench.inspect(b"data", seconds=0.02))
    patient = asyncio.create_task(bench.inspect(b"data"))
    with pytest.raises(Unavailable):
        await hasty
    bench.engine.gate.set()
    assert (await patient).outcome is Outcome.CLEAN
    assert len(bench.engine.seen) == 1


@pytest.mark.parametrize(("size", "slots"), [(10, 3), (Slots.SMALL + 1, 1)])
async def test_nobody_waits_to_be_scanned_while_samples_are_written_down(size: int, slots: int) -> None:
    """A disk that flushes slowly is no reason to let clean files wait."""
    quarantine = SlowQuarantine()
    bench = Bench(engines=[StubEngine(outcome=Outcome.INFECTED)], slots=Slots(1, 0.5), quarantine=quarantine)
    samples = [encrypted(bytes([number]) * size) for number in range(slots)]
    infected = [asyncio.create_task(bench.inspect_encrypted(*sample)) for sample in samples]
    await until(lambda: quarantine.keeping == slots)
    bench.engine.outcome = Outcome.CLEAN
    assert (await bench.inspect(b"c" * size)).outcome is Outcome.CLEAN
    assert not any(task.done() for task in infected)
    quarantine.gate.set()
    assert all(verdict.kept for verdict in await asyncio.gather(*infected))
    assert len(quarantine.kept) == slots


async def test_of_samples_that_are_written_down_so_many_alone_are_in_memory() -> None:
    quarantine = SlowQuarantine()
    bench = Bench(engines=[StubEngine(outcome=Outcome.INFECTED)], slots=Slots(1, 0.2), quarantine=quarantine)
    big = Slots.SMALL + 1
    infected = [asyncio.create_task(bench.inspect_encrypted(*encrypted(bytes([n]) * big))) for n in range(9)]
    with pytest.raises(Unavailable, match="too many scans"):
        await infected[-1]
    assert quarantine.keeping < 4
    quarantine.gate.set()
    await asyncio.gather(*infected, return_exceptions=True)


async def test_a_replaced_engine_is_asked_from_then_on_and_the_other_pipeline_keeps_its_own(
    bench: Bench,
) -> None:
    """What is remembered under the one's version is not known under the other's."""
    strict = StubEngine(outcome=Outcome.FORBIDDEN)
    strict.version = "2"
    first, second = bench.pipeline, bench.pipeline.replacing(strict)
    for pipeline, expected in ((first, Outcome.CLEAN), (second, Outcome.FORBIDDEN)) * 2:
        bench.pipeline = pipeline
        assert (await bench.inspect(b"data")).outcome is expected
    assert (len(bench.engine.seen), len(strict.seen)) == (1, 1)


async def test_a_scan_by_replaced_engines_is_not_joined(bench: Bench) -> None:
    strict = StubEngine(outcome=Outcome.FORBIDDEN)
    strict.version = "2"
    bench.engine.gate.clear()
    under_way = asyncio.create_task(bench.inspect(b"data"))
    await settle()
    bench.pipeline = bench.pipeline.replacing(strict)
    assert (await bench.inspect(b"data")).outcome is Outcome.FORBIDDEN
    bench.engine.gate.set()
    assert (await under_way).outcome is Outcome.CLEAN


async def test_a_pipeline_with_the_same_engines_shares_the_scan(bench: Bench) -> None:
    bench.engine.gate.clear()
    under_way = asyncio.create_task(bench.inspect(b"data"))
    await settle()
    bench.pipeline = bench.pipeline.replacing(bench.engine)
    joined = asyncio.create_task(bench.inspect(b"data"))
    await settle()
    bench.engine.gate.set()
    assert (await under_way) == (await joined)
    assert len(bench.engine.seen) == 1


async def test_full_slots_are_overload() -> None:
    bench = Bench(slots=Slots(1, 0.01))
    bench.engine.gate.clear()
    big = [bytes([number]) * 200_000 for number in range(2)]
    running = asyncio.create_task(bench.inspect(big[0]))
    await settle()
    with pytest.raises(Unavailable) as refused:
        await bench.inspect(big[1])
    assert refused.value.cause == "overload"
    bench.engine.gate.set()
    await running
    assert await bench.idle()


async def test_plaintext_is_made_only_in_a_slot() -> None:
    bench = Bench(slots=Slots(1, 5))
    bench.engine.gate.clear()
    requests = [
        asyncio.create_task(bench.inspect_encrypted(*encrypted(bytes([number]) * 200_000)))
        for number in range(3)
    ]
    await settle()
    await settle()
    assert (bench.slots.in_flight, bench.slots.waiting, bench.engine.running) == (1, 2, 1)
    bench.engine.gate.set()
    await asyncio.gather(*requests)
    assert await bench.idle()


# -- ciphertext without its key ------------------------------------------------------------------


class OpaqueEngine(StubEngine):
    """Says OPAQUE of what comes without a key, and of nothing else."""

    async def scan(self, sample: Sample) -> Report:
        report = await super().scan(sample)
        return replace(report, outcome=Outcome.OPAQUE) if sample.keyless else report


async def test_what_is_opaque_is_remembered_as_that_and_not_as_a_plaintext() -> None:
    bench = Bench(engines=[OpaqueEngine()])
    for _ in range(2):
        assert (await bench.inspect_keyless(b"data")).outcome is Outcome.OPAQUE
        assert (await bench.inspect(b"data")).outcome is Outcome.CLEAN
    assert len(bench.engine.seen) == 2


async def test_an_opaque_ciphertext_says_nothing_of_what_is_in_it() -> None:
    """Nor does what is known of its content make the ciphertext anything but opaque."""
    opaque, infected = OpaqueEngine(), StubEngine("other")
    bench = Bench(engines=[opaque, infected])
    ciphertext, key = encrypted(b"plaintext")
    assert (await bench.inspect_keyless(ciphertext)).outcome is Outcome.OPAQUE
    infected.outcome = Outcome.INFECTED
    assert (await bench.inspect_encrypted(ciphertext, key)).outcome is Outcome.INFECTED
    assert (await bench.inspect_keyless(ciphertext)).outcome is Outcome.OPAQUE
    assert infected.seen == [ciphertext, b"plaintext"]


@pytest.mark.parametrize("outcome", [Outcome.CLEAN, Outcome.UNSCANNABLE, Outcome.INFECTED])
async def test_what_is_not_opaque_is_known_as_a_plaintext_too(bench: Bench, outcome: Outcome) -> None:
    bench.engine.outcome = outcome
    assert (await bench.inspect_keyless(b"data")).outcome is outcome
    assert (await bench.inspect(b"data")).outcome is outcome
    assert len(bench.engine.seen) == 1


async def test_an_opaque_file_in_which_something_is_found_is_not_known_as_a_plaintext() -> None:
    """As a plaintext, one of the reports would be another."""
    bench = Bench(engines=[OpaqueEngine(), StubEngine("other", Outcome.INFECTED)])
    assert (await bench.inspect_keyless(b"data")).outcome is Outcome.INFECTED
    assert (await bench.inspect(b"data")).outcome is Outcome.INFECTED
    assert len(bench.engine.seen) == 2


async def test_a_verdict_on_a_plaintext_is_none_on_perhaps_a_ciphertext() -> None:
    bench = Bench(engines=[OpaqueEngine()])
    plain = asyncio.create_task(bench.inspect(b"data"))
    keyless = asyncio.create_task(bench.inspect_keyless(b"data"))
    assert ((await plain).outcome, (await keyless).outcome) == (Outcome.CLEAN, Outcome.OPAQUE)


async def test_content_is_recalled_as_what_it_was_judged_as() -> None:
    bench = Bench(engines=[OpaqueEngine()])
    digest = hashlib.sha256(b"data").digest()
    await bench.inspect_keyless(b"data")
    recalled = await bench.pipeline.recall_content(digest)
    assert recalled is not None
    assert recalled.outcome is Outcome.OPAQUE
    await bench.inspect(b"data")
    recalled = await bench.pipeline.recall_content(digest)
    assert recalled is not None
    assert recalled.outcome is Outcome.OPAQUE
