"""What the homeserver is to be told is told, however long that takes, and undone by a release."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from scanner.errors import UpstreamFailed
from scanner.events import HomeserverTold, Occasion, Source
from scanner.media import MediaRef
from scanner.quarantine import homeserver as module
from scanner.quarantine.homeserver import HomeserverQuarantine
from tests.contracts.recorder import Counts, Opens, RecorderContract
from tests.documented import ROOT
from tests.fake_homeserver import until
from tests.fakes import RecordingSink
from tests.quarantine.test_outbox import HASHES, detected

ABC, DEF = "mxc://example.org/abc", "mxc://example.org/def"


class Homeserver:
    """Does what it is told, unless it is `away`; `poison` is a media about which it always fails."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.tries = 0
        self.away = False
        self.poison = ""

    async def quarantine(self, ref: MediaRef) -> str:
        return self._noted("quarantined", ref)

    async def release(self, ref: MediaRef) -> str:
        return self._noted("released", ref)

    def _noted(self, what: str, ref: MediaRef) -> str:
        self.tries += 1
        if self.away or str(ref) == self.poison:
            raise UpstreamFailed("the homeserver could not be reached or broke off")
        self.told.append(f"{what} {ref}")
        return what


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_RETRY", "_POLL"):
        monkeypatch.setattr(module, name, 0.02)


@pytest.fixture
def homeserver() -> Homeserver:
    return Homeserver()


@asynccontextmanager
async def telling(
    directory: Path, homeserver: Homeserver, sink: RecordingSink | None = None
) -> AsyncIterator[HomeserverQuarantine]:
    quarantine = HomeserverQuarantine(
        directory / "list.sqlite",
        quarantine=homeserver.quarantine,
        release=homeserver.release,
        publish=sink or RecordingSink(),
    )
    async with quarantine, running(quarantine):
        yield quarantine


class TestHomeserverQuarantine(RecorderContract):
    @pytest.fixture
    def opens(self) -> Opens:
        return partial(telling, homeserver=Homeserver())

    @pytest.fixture
    def counts(self) -> Counts:
        return lambda directory: len(listed(directory))

    @staticmethod
    def make_unwritable(directory: Path) -> None:
        (directory / "list.sqlite").mkdir()


async def test_what_is_too_much_to_be_remembered_is_said_by_name(
    tmp_path: Path, homeserver: Homeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk, here a directory that is not there, takes nothing."""
    monkeypatch.setattr(module, "_MOST_WANTED", 2)
    sink = RecordingSink()
    async with telling(tmp_path / "away", homeserver, sink) as quarantine:
        for media_id in ("abc", "def", "ghi"):
            await quarantine.want(HASHES.sha256, MediaRef("example.org", media_id))
        lost = [told for told in sink.of(HomeserverTold) if told.problem.startswith("too many wait")]
        assert [(told.media, told.result) for told in lost] == [("mxc://example.org/ghi", "failed")]
        (tmp_path / "away").mkdir()
        await until(lambda: len(homeserver.told) == 2)


@asynccontextmanager
async def running(
    quarantine: HomeserverQuarantine, released: frozenset[str] = frozenset()
) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(quarantine.run()), asyncio.create_task(quarantine.follow(lambda: released))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_detection_is_told_once(tmp_path: Path, homeserver: Homeserver) -> None:
    sink = RecordingSink()
    async with telling(tmp_path, homeserver, sink) as quarantine:
        for _ in range(50):
            await quarantine.record(detected())
        await quarantine.record(detected("def"))
        await until(lambda: len(homeserver.told) == 2)
        await quarantine.record(detected())
        await asyncio.sleep(0.1)
    assert homeserver.told == [f"quarantined {ABC}", f"quarantined {DEF}"]
    assert sink.of(HomeserverTold) == [HomeserverTold(ABC, "quarantined"), HomeserverTold(DEF, "quarantined")]


async def test_what_is_only_observed_uploaded_or_without_a_name_is_not_told(
    tmp_path: Path, homeserver: Homeserver
) -> None:
    seen = detected()
    occasions = [
        replace(seen, decision=replace(seen.decision, deliver=True, observed=True)),
        replace(seen, occasion=replace(seen.occasion, source=Source.UPLOAD)),
        replace(seen, occasion=replace(seen.occasion, source=Source.INSPECT)),
        replace(seen, occasion=Occasion(None, Source.DOWNLOAD, encrypted=False, request_id="1")),
    ]
    async with telling(tmp_path, homeserver) as quarantine:
        for each in occasions:
            await quarantine.record(each)
        await asyncio.sleep(0.1)
    assert homeserver.tries == 0


async def test_a_release_undoes_all_of_a_content_and_a_new_detection_that(
    tmp_path: Path, homeserver: Homeserver
) -> None:
    async with telling(tmp_path, homeserver) as quarantine:
        await quarantine.record(detected())
        await quarantine.record(detected("def"))
        await quarantine.want("cd" * 32, MediaRef("example.org", "other"))
        await until(lambda: len(homeserver.told) == 3)
        quarantine.release(HASHES.sha256)
        await until(lambda: len(homeserver.told) == 5)
        assert set(homeserver.told[3:]) == {f"released {ABC}", f"released {DEF}"}
        await quarantine.record(detected())
        await until(lambda: len(homeserver.told) == 6)
    assert homeserver.told[5] == f"quarantined {ABC}"


async def test_what_analysts_released_is_released_after_a_restart_as_well(
    tmp_path: Path, homeserver: Homeserver
) -> None:
    async with telling(tmp_path, homeserver) as quarantine:
        await quarantine.record(detected())
        await until(lambda: len(homeserver.told) == 1)
    async with telling(tmp_path, homeserver) as quarantine, running(quarantine, frozenset({HASHES.sha256})):
        await until(lambda: len(homeserver.told) == 2)
    assert homeserver.told[1] == f"released {ABC}"


async def test_it_is_tried_until_the_homeserver_is_back(tmp_path: Path, homeserver: Homeserver) -> None:
    sink, homeserver.away = RecordingSink(), True
    async with telling(tmp_path, homeserver, sink) as quarantine:
        await quarantine.record(detected())
        await until(lambda: homeserver.tries >= 3)
        assert quarantine.pending == 1
        homeserver.away = False
        await until(lambda: homeserver.told == [f"quarantined {ABC}"])
        await until(lambda: quarantine.pending == 0)
    failures = [event for event in sink.of(HomeserverTold) if event.result == "failed"]
    assert {(event.media, bool(event.problem)) for event in failures} == {(ABC, True)}


async def test_what_could_not_be_told_survives_a_restart(tmp_path: Path, homeserver: Homeserver) -> None:
    homeserver.away = True
    async with telling(tmp_path, homeserver) as quarantine:
        await quarantine.record(detected())
    homeserver.away = False
    async with telling(tmp_path, homeserver):
        await until(lambda: homeserver.told == [f"quarantined {ABC}"])


async def test_a_media_that_always_fails_is_in_nobodys_way(tmp_path: Path, homeserver: Homeserver) -> None:
    homeserver.poison = ABC
    async with telling(tmp_path, homeserver) as quarantine:
        await quarantine.record(detected())
        await until(lambda: homeserver.tries >= 1)
        for name in ("one", "two", "three"):
            await quarantine.record(detected(name))
        await until(lambda: len(homeserver.told) == 3)


async def test_a_problem_is_one_only_after_minutes(
    tmp_path: Path, homeserver: Homeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    homeserver.away = True
    async with telling(tmp_path, homeserver) as quarantine:
        await quarantine.record(detected())
        await until(lambda: homeserver.tries >= 2)
        assert quarantine.problem == ""
        monkeypatch.setattr(module, "_LONG", 0.0)
        assert "could not be reached" in quarantine.problem
        homeserver.away = False
        await until(lambda: quarantine.problem == "")


async def test_nothing_is_forgotten_while_the_list_cannot_be_written(
    tmp_path: Path, homeserver: Homeserver
) -> None:
    sink = RecordingSink()
    async with telling(tmp_path / "away", homeserver, sink) as quarantine:
        await quarantine.record(detected())
        await until(lambda: bool(sink.of(HomeserverTold)))
        assert sink.of(HomeserverTold)[0].media == ""
        (tmp_path / "away").mkdir()
        await until(lambda: homeserver.told == [f"quarantined {ABC}"])


async def test_only_the_first_of_a_media_waits_for_the_file(tmp_path: Path, homeserver: Homeserver) -> None:
    homeserver.away = True
    async with telling(tmp_path, homeserver) as quarantine:
        await quarantine.record(detected())
        event = detected()
        began = time.process_time()
        for _ in range(5_000):
            await quarantine.record(event)
        assert time.process_time() - began < 0.25


async def test_many_at_once_are_written_together(tmp_path: Path, homeserver: Homeserver) -> None:
    homeserver.away = True
    async with telling(tmp_path, homeserver) as quarantine:
        began = time.monotonic()
        await asyncio.gather(*(quarantine.record(detected(str(number))) for number in range(1_000)))
        assert time.monotonic() - began < 1.0
        assert len(listed(tmp_path)) == 1_000


async def test_no_refusal_waits_for_a_file_that_somebody_locks(
    tmp_path: Path, homeserver: Homeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    async with telling(tmp_path, homeserver) as quarantine:
        await quarantine.record(detected())
        with closing(sqlite3.connect(tmp_path / "list.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            await quarantine.record(detected("def"))
            assert time.monotonic() - began < 1.0
            other.rollback()
        await until(lambda: len(homeserver.told) == 2, 5)


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from scanner.quarantine.homeserver import HomeserverQuarantine
from tests.quarantine.test_outbox import detected

async def never(ref):
    await asyncio.sleep(60)

async def main():
    there = HomeserverQuarantine(
        Path(sys.argv[1]) / "list.sqlite", quarantine=never, release=never, publish=lambda event: None
    )
    async with there:
        running = asyncio.create_task(there.run())
        await asyncio.gather(*(there.record(detected(str(number))) for number in range(20)))
        os.kill(os.getpid(), signal.SIGKILL)  # here the refusals go out

asyncio.run(main())
"""


@pytest.mark.slow
async def test_what_was_recorded_survives_a_sigkill(tmp_path: Path, homeserver: Homeserver) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path)]
    killed = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    assert await killed.wait() == -signal.SIGKILL
    assert len(listed(tmp_path)) == 20
    async with telling(tmp_path, homeserver):
        await until(lambda: len(homeserver.told) == 20)


def listed(directory: Path) -> list[str]:
    with closing(sqlite3.connect(directory / "list.sqlite")) as connection:
        return [media for (media,) in connection.execute("SELECT name FROM media")]
