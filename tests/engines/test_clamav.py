from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pyclamd
import pytest
import pyzipper
from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
from cryptography.hazmat.primitives.ciphers import Cipher

from scanner.clamd import backend as backend_module
from scanner.clamd import database as database_module
from scanner.clamd.backend import Clamd
from scanner.clamd.database import Load
from scanner.clamd.home import clamd_config, marker
from scanner.clamd.protocol import ClamdAddress
from scanner.engines.clamav import ClamAV
from scanner.errors import EngineError
from scanner.events import BackendChanged, EngineAnswered, Event
from scanner.verdict import Detection, Outcome, Reason, Report
from tests import real_clamd as real
from tests.clamd.fake_clamd import (
    VERSION,
    Behaviour,
    FakeClamd,
    found,
    hang_up,
    ok,
    says,
    stall_after_sample,
)
from tests.clamd.samples import sample, until

BROKEN = says(b"PREFIX: Can't allocate memory ERROR\0")


class Fakes:
    """An engine on fake clamds."""

    def __init__(self, clamds: list[FakeClamd], engine: ClamAV) -> None:
        self.clamds = clamds
        self.engine = engine

    def scans(self) -> list[int]:
        """How many scans each one was asked for."""
        return [len([c for c in fake.commands if c in {"FILDES", "INSTREAM"}]) for fake in self.clamds]


@asynccontextmanager
async def fakes(tmp_path: Path, *behaviours: Behaviour, scan_timeout: float = 5.0) -> AsyncIterator[Fakes]:
    async with AsyncExitStack() as stack:
        clamds = []
        for number, behaviour in enumerate(behaviours):
            directory = tmp_path / str(number)
            directory.mkdir()
            clamds.append(await stack.enter_async_context(FakeClamd(directory, behaviour)))
        engine = ClamAV(
            [Clamd(fake.tcp) for fake in clamds], publish=lambda _: None, scan_timeout=scan_timeout
        )
        yield Fakes(clamds, engine)


async def scan(engine: ClamAV, data: bytes = b"some bytes") -> Report:
    with sample(data) as given:
        return await engine.scan(given)


async def test_a_failed_scan_is_retried_on_another_clamd(tmp_path: Path) -> None:
    async with fakes(tmp_path, BROKEN, found) as pool:
        assert (await scan(pool.engine)).outcome is Outcome.INFECTED
        assert pool.scans() == [1, 1]


async def test_one_retry_is_all(tmp_path: Path) -> None:
    async with fakes(tmp_path, BROKEN, hang_up, ok) as pool:
        with pytest.raises(EngineError):
            await scan(pool.engine)
        assert pool.scans() == [1, 1, 0]


async def test_no_retry_when_half_of_the_time_is_gone(tmp_path: Path) -> None:
    async with fakes(tmp_path, stall_after_sample, ok, scan_timeout=0.2) as pool:
        with pytest.raises(EngineError) as failed:
            await scan(pool.engine)
        assert failed.value.result == "timeout"
        assert pool.scans() == [1, 0]


async def test_a_clamd_that_failed_is_asked_last(tmp_path: Path) -> None:
    async with fakes(tmp_path, BROKEN, ok) as pool:
        for _ in range(4):
            await scan(pool.engine)
        assert pool.scans() == [1, 4]


async def test_the_only_clamd_is_asked_again_after_it_failed(tmp_path: Path) -> None:
    async with fakes(tmp_path, hang_up) as pool:
        with pytest.raises(EngineError):
            await scan(pool.engine)
        pool.clamds[0].behaviour = ok
        assert (await scan(pool.engine)).outcome is Outcome.CLEAN


async def test_the_least_busy_clamd_is_asked(tmp_path: Path) -> None:
    async with fakes(tmp_path, stall_after_sample, stall_after_sample) as pool:
        scanning = [asyncio.create_task(scan(pool.engine)) for _ in range(6)]
        await until(lambda: sum(pool.scans()) == 6)
        assert pool.scans() == [3, 3]
        for task in scanning:
            task.cancel()
        await asyncio.gather(*scanning, return_exceptions=True)


async def test_an_untrusted_clamd_is_not_asked(tmp_path: Path) -> None:
    async with fakes(tmp_path, ok, found) as pool:
        pool.engine.backends[0].trust(False)
        for _ in range(3):
            assert (await scan(pool.engine)).outcome is Outcome.INFECTED
        assert pool.scans() == [0, 3]
        pool.engine.backends[0].trust(True)
        pool.clamds[1].behaviour = BROKEN
        assert (await scan(pool.engine)).outcome is Outcome.CLEAN


async def test_an_untrusted_clamd_is_no_second_choice_either(tmp_path: Path) -> None:
    async with fakes(tmp_path, ok, BROKEN) as pool:
        pool.engine.backends[0].trust(False)
        with pytest.raises(EngineError):
            await scan(pool.engine)
        assert pool.scans() == [0, 1]


async def test_without_a_trusted_clamd_everything_fails(tmp_path: Path) -> None:
    async with fakes(tmp_path, ok) as pool:
        await scan(pool.engine)
        assert pool.engine.versions()
        pool.engine.backends[0].trust(False)
        assert await scan(pool.engine) == Report("clamav", Outcome.FAILED, reason=Reason.CANARY)
        assert pool.engine.versions() == frozenset()


@pytest.mark.parametrize("accepted", [True, False])
async def test_the_test_set_calls_nothing_clean_unless_accepted(tmp_path: Path, accepted: bool) -> None:
    async with FakeClamd(tmp_path, ok) as fake:
        engine = ClamAV(
            [Clamd(fake.unix, test_signatures=lambda: True)],
            publish=lambda _: None,
            accept_test_signatures=accepted,
        )
        with sample(b"some bytes") as given:
            assert (await engine.backends[0].scan(given)).outcome is Outcome.CLEAN  # as the canary asks
        report = await scan(engine)
    if accepted:
        assert report.outcome is Outcome.CLEAN
        assert engine.versions() == {report.version}
    else:
        assert report == Report("clamav", Outcome.FAILED, reason=Reason.TEST_SIGNATURES)
        assert engine.versions() == frozenset()


async def test_clamds_that_disagree_have_several_versions(tmp_path: Path) -> None:
    async with fakes(tmp_path, ok, ok) as pool:
        pool.clamds[1].version = VERSION.replace(b"27800", b"27801")
        async with pool.engine:
            await until(lambda: len(pool.engine.versions()) == 2)


async def test_only_a_clamd_that_is_up_has_a_version_in_force(tmp_path: Path) -> None:
    """Unless none is: what they knew last is still the newest that anybody knows."""
    async with fakes(tmp_path, ok, ok) as pool:
        first, second = pool.engine.backends
        pool.clamds[1].version = VERSION.replace(b"27800", b"27801")
        with sample(b"some bytes") as given:
            await first.scan(given)
            await second.scan(given)
            pool.clamds[0].behaviour = pool.clamds[1].behaviour = hang_up
            with pytest.raises(EngineError):
                await first.scan(given)
            assert pool.engine.versions() == {second.identity}
            with pytest.raises(EngineError):
                await second.scan(given)
            assert pool.engine.versions() == {first.identity, second.identity}


async def test_the_engine_starts_and_stops_without_any_clamd(tmp_path: Path) -> None:
    missing = Clamd(ClamdAddress(path=str(tmp_path / "none")))
    async with ClamAV([missing], publish=lambda _: None) as engine:
        assert engine.versions() == frozenset()
        with pytest.raises(EngineError):
            await scan(engine)


# From here on: the real clamd.


@asynccontextmanager
async def engine_on(
    clamd: real.Clamd,
    transport: str = "unix",
    scan_timeout: float = 25.0,
    *,
    watched: bool = False,
    log_seen: bool = True,
) -> AsyncIterator[tuple[ClamAV, list[Event]]]:
    unix = ClamdAddress(path=str(clamd.socket))
    tcp = ClamdAddress(host="127.0.0.1", port=clamd.port)
    known = Clamd(
        unix if transport == "unix" else tcp,
        database=lambda: clamd.database,
        last_load=(lambda: _last_load(clamd)) if log_seen else None,
    )
    events: list[Event] = []
    engine = ClamAV([known], publish=events.append, scan_timeout=scan_timeout, signature_poll=0.1)
    async with AsyncExitStack() as stack:
        if watched:
            await stack.enter_async_context(engine)
        yield engine, events


def _last_load(clamd: real.Clamd) -> Load | None:
    """Good enough for one reload: not before the end of it is in the log."""
    log, now = clamd.log.read_text(), asyncio.get_running_loop().time()
    if "Database reload failed" in log:
        return Load(now, "the log says so")
    return Load(now) if "Activating the newly loaded database" in log else None


def nested(depth: int) -> bytes:
    data = b"innermost"
    for _ in range(depth):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as writer:
            writer.writestr("inner.zip", data)
        data = archive.getvalue()
    return data


def encrypted_zip(data: bytes = b"secret" * 100) -> bytes:
    archive = io.BytesIO()
    with pyzipper.AESZipFile(archive, "w", encryption=pyzipper.WZ_AES) as writer:
        writer.setpassword(b"infected")
        writer.writestr("file.txt", data)
    return archive.getvalue()


def many_files(count: int = 10_001) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for number in range(count):
            writer.writestr(str(number), b"123456")
    return archive.getvalue()


_PASSWORD_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def rc4(key: bytes, data: bytes) -> bytes:
    return Cipher(ARC4(key), mode=None).encryptor().update(data)


def encrypted_pdf(content: bytes, password: bytes = b"") -> bytes:
    """A PDF under RC4 with 40 bits, whose encryption dictionary stands in the trailer itself."""
    owner, permissions = bytes(range(32)), (-4 & 0xFFFFFFFF).to_bytes(4, "little")
    padded = (password + _PASSWORD_PADDING)[:32]
    key = hashlib.md5(padded + owner + permissions + b"id", usedforsecurity=False).digest()[:5]
    of_object = hashlib.md5(key + b"\4\0\0\0\0", usedforsecurity=False).digest()[:10]
    stream = rc4(of_object, zlib.compress(content))
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(stream), stream),
    )
    body = b"".join(b"%d 0 obj\n%b\nendobj\n" % (number, text) for number, text in enumerate(objects, 1))
    user = rc4(key, _PASSWORD_PADDING).hex().encode()
    dictionary = b"/Filter /Standard /V 1 /R 2 /O <%b> /U <%b> /P -4" % (owner.hex().encode(), user)
    return (
        b"%PDF-1.4\n" + body + b"trailer\n<< /Size 5 /Root 1 0 R /ID [<6964> <6964>] /Encrypt << "
        b"%b >> >>\nstartxref\n0\n%%%%EOF\n" % dictionary
    )


@pytest.mark.real
@pytest.mark.parametrize(
    ("content", "password", "outcome"),
    [
        (b"nothing to see here", b"", Outcome.CLEAN),
        (marker("MediaScanner.Test.AtEnd"), b"", Outcome.INFECTED),
        (b"nothing to see here", b"secret", Outcome.UNSCANNABLE),
    ],
)
async def test_a_pdf_that_opens_without_asking_is_looked_into_although_clamd_calls_it_encrypted(
    clamd: real.Clamd, content: bytes, password: bytes, outcome: Outcome
) -> None:
    document = encrypted_pdf(content, password)
    assert clamd.scan(document).endswith("Heuristics.Encrypted.PDF FOUND")
    async with engine_on(clamd) as (engine, _):
        report = await scan(engine, document)
    assert report.outcome is outcome


CLEAN = Outcome.CLEAN, None
REAL_SAMPLES: dict[str, tuple[Callable[[], bytes], tuple[Outcome, Reason | None]]] = {
    "empty": (lambda: b"", CLEAN),
    "text": (lambda: b"nothing to see here", CLEAN),
    "eicar": (lambda: real.EICAR, (Outcome.INFECTED, Reason.MALWARE)),
    "at the very end of 20 MiB": (
        lambda: bytes(20 * 2**20 - 64) + marker("MediaScanner.Test.AtEnd"),
        (Outcome.INFECTED, Reason.MALWARE),
    ),
    "nested 3 deep": (lambda: nested(3), CLEAN),
    "nested 20 deep": (lambda: nested(20), (Outcome.UNSCANNABLE, Reason.LIMIT)),
    "10001 files": (many_files, (Outcome.UNSCANNABLE, Reason.LIMIT)),
    "encrypted": (encrypted_zip, (Outcome.UNSCANNABLE, Reason.ENCRYPTED_ARCHIVE)),
}


@pytest.mark.real
@pytest.mark.parametrize("transport", ["unix", "tcp"])
@pytest.mark.parametrize("name", REAL_SAMPLES)
async def test_what_the_real_clamd_says_of(clamd: real.Clamd, transport: str, name: str) -> None:
    """And pyclamd, which has code of its own for it, hears the same."""
    make, expected = REAL_SAMPLES[name]
    data = make()
    async with engine_on(clamd, transport) as (engine, _):
        report = await scan(engine, data)
    assert (report.outcome, report.reason) == expected
    assert report.version is not None or transport == "tcp"
    # As a file: of bytes that fill their last chunk pyclamd sends the end twice, which may break the pipe.
    pyclamd_on_clamd = pyclamd.ClamdUnixSocket(str(clamd.socket), timeout=20)
    oracle = pyclamd_on_clamd.scan_stream(io.BytesIO(data), chunk_size=2**16)
    assert (oracle is None) == (report.outcome is Outcome.CLEAN)
    if report.outcome is Outcome.INFECTED:
        assert report.detections == (Detection(oracle["stream"][1]),)


@pytest.mark.real
async def test_over_streammaxlength_is_no_verdict(clamd: real.Clamd) -> None:
    data = bytes(26 * 2**20)
    async with engine_on(clamd, "tcp") as (engine, _):
        with pytest.raises(EngineError) as failed:
            await scan(engine, data)
    assert failed.value.result == "limit"


@pytest.mark.real
async def test_out_of_time_is_unscannable(private_clamd: real.Clamd, monkeypatch: pytest.MonkeyPatch) -> None:
    def hasty_config(*places: Path) -> str:
        return clamd_config(*places).replace("MaxScanTime 20000", "MaxScanTime 1")

    private_clamd.stop()
    monkeypatch.setattr(real, "clamd_config", hasty_config)
    private_clamd.start()
    async with engine_on(private_clamd) as (engine, _):
        report = await scan(engine, many_files(5000))
    assert (report.outcome, report.reason) == (Outcome.UNSCANNABLE, Reason.TIME_LIMIT)


@pytest.mark.real
@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_a_clamd_killed_in_the_middle_of_a_scan_is_no_verdict(
    private_clamd: real.Clamd, transport: str
) -> None:
    async with engine_on(private_clamd, transport) as (engine, events):
        await scan(engine)
        private_clamd.pause()
        scanning = asyncio.create_task(scan(engine, bytes(5 * 2**20) + real.EICAR))
        await asyncio.sleep(0.2)
        private_clamd.stop()
        with pytest.raises(EngineError):
            await scanning
        with pytest.raises(EngineError) as refused:
            await scan(engine)
        assert refused.value.result == "unavailable"
        private_clamd.start()
        assert (await scan(engine, real.EICAR)).outcome is Outcome.INFECTED
    states = [event.state for event in events if isinstance(event, BackendChanged)]
    assert [state for state in states if state in {"up", "down"}] == ["up", "down", "up"]


@pytest.mark.real
@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_a_stopped_clamd_is_left_in_time(private_clamd: real.Clamd, transport: str) -> None:
    async with engine_on(private_clamd, transport, scan_timeout=0.5) as (engine, events):
        await scan(engine)
        private_clamd.pause()
        async with asyncio.timeout(5):
            with pytest.raises(EngineError) as failed:
                await scan(engine, bytes(20 * 2**20))
        assert failed.value.result == "timeout"
        private_clamd.resume()
        assert (await scan(engine)).outcome is Outcome.CLEAN
    results = [event.result for event in events if isinstance(event, EngineAnswered)]
    assert results == ["clean", "timeout", "clean"]


@pytest.mark.real
async def test_a_changed_database_is_reloaded_and_changes_the_version(private_clamd: real.Clamd) -> None:
    data = b"harmless until somebody knows better"
    async with engine_on(private_clamd, watched=True) as (engine, events):
        before = await scan(engine, data)
        signature = f"Custom.New:0:*:{data.hex()}\n"
        (private_clamd.database / "custom.ndb").write_text(signature)
        await until(lambda: not engine.versions())
        uncertain = await scan(engine, data)
        assert uncertain.version is None
        await until(engine.versions)
        after = await scan(engine, data)
    assert before.outcome is Outcome.CLEAN
    assert after.outcome is Outcome.INFECTED
    assert after.version not in {None, before.version}
    assert "reload" in [event.state for event in events if isinstance(event, BackendChanged)]


@pytest.mark.real
async def test_a_broken_database_leaves_clamd_with_what_it_had_and_is_noticed(
    private_clamd: real.Clamd,
) -> None:
    """To RELOAD clamd says RELOADING, and it keeps its old signatures: they are what is in force."""
    async with engine_on(private_clamd, watched=True) as (engine, events):
        before = await scan(engine, real.EICAR)
        (private_clamd.database / "broken.ndb").write_text("no signature\n")
        await until(lambda: engine.backends[0].kept)
        report = await scan(engine, real.EICAR)
        (private_clamd.database / "broken.ndb").unlink()
        await until(lambda: not engine.backends[0].kept)
        after = await scan(engine, real.EICAR)
    assert (report.outcome, report.version) == (Outcome.INFECTED, before.version)
    assert after.version == before.version
    changes = [event.state for event in events if isinstance(event, BackendChanged)]
    assert changes == ["up", "version", "reload", "kept", "current"]


@pytest.mark.real
async def test_what_an_unseen_reload_left_in_force_is_never_taken_for_certain(
    private_clamd: real.Clamd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever; but what is remembered meanwhile ends with the next start of clamd."""
    async with engine_on(private_clamd, watched=True, log_seen=False) as (engine, _):
        before = await scan(engine, real.EICAR)
        (private_clamd.database / "broken.ndb").write_text("no signature\n")
        await until(lambda: not engine.versions())
        report = await scan(engine, real.EICAR)
        assert (report.outcome, report.version) == (Outcome.INFECTED, None)
        monkeypatch.setattr(database_module, "RELOAD_TIMEOUT", 0.0)
        await until(engine.versions)
        uncertain = await scan(engine, real.EICAR)
    assert uncertain.outcome is Outcome.INFECTED
    assert uncertain.version not in {None, before.version}
    assert "?" in str(uncertain.version)


@pytest.mark.real
async def test_a_clamd_that_kept_an_older_daily_is_noticed_by_its_version(
    private_clamd: real.Clamd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its log: these signatures have a number, which clamd tells, and they cannot be loaded."""
    monkeypatch.setattr(database_module, "RELOAD_TIMEOUT", 0.5)
    async with engine_on(private_clamd, watched=True, log_seen=False) as (engine, _):
        await scan(engine, real.EICAR)
        daily = private_clamd.database / "daily.cvd"
        daily.write_bytes(b"ClamAV-VDB:18 Nov 2026 09-31 +0000:27801:1:90:x:x:me:1".ljust(2000))
        await until(lambda: engine.backends[0].kept)
        assert engine.backends[0].kept == "it has daily none, and in its directory lies 27801"
        report = await scan(engine, real.EICAR)
        assert (report.outcome, report.version) == (Outcome.INFECTED, None)
        daily.unlink()
        await until(lambda: not engine.backends[0].kept)


@pytest.mark.real
async def test_a_dead_clamd_costs_nothing_beside_a_live_one(
    clamd: real.Clamd, private_clamd: real.Clamd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "_RETRY", 0.1)
    addresses = [ClamdAddress(path=str(one.socket)) for one in (private_clamd, clamd)]
    engine = ClamAV([Clamd(address) for address in addresses], publish=lambda _: None)
    async with engine:
        private_clamd.stop()
        for _ in range(10):
            assert (await scan(engine, real.EICAR)).outcome is Outcome.INFECTED
        private_clamd.start()
        await until(lambda: all(backend.up for backend in engine.backends))
