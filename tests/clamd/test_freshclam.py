"""Our freshclam: the real one against a mirror on loopback, and programs that end as it seldom does."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from scanner.clamd import freshclam as freshclam_module
from scanner.clamd.backend import Clamd, ClamdBackend
from scanner.clamd.freshclam import (
    COOLDOWN,
    CURRENT,
    FAILED,
    UPDATED,
    Freshclam,
    databases,
    find_daemon,
    is_ours,
    judge,
)
from scanner.clamd.home import DATABASE, OWN_DATABASE
from scanner.clamd.protocol import ClamdAddress
from scanner.clamd.sources import Sources
from scanner.clamd.supervisor import EmbeddedClamd
from scanner.errors import ConfigError
from scanner.events import Event, ProcessChanged, SignaturesUpdated
from scanner.verdict import Outcome
from tests.clamd.mirror import Mirror, running_mirror
from tests.clamd.samples import sample, until
from tests.clamd.test_leash import group_is_empty

OWN = b"what this operator calls bad"

_SERVICE = """
import asyncio, sys
from pathlib import Path
from scanner.clamd.freshclam import Freshclam
from scanner.clamd.sources import Sources
async def serve():
    place = Path(sys.argv[1])
    async with Freshclam(lambda event: None, Sources(), home=place, own=None, shared=place / "shared",
                         always=True, binary=str(place / "freshclam")):
        await asyncio.sleep(60)
asyncio.run(serve())
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name, with a database in it that is ours."""
    with tempfile.TemporaryDirectory(prefix="f-") as directory:
        (Path(directory) / "shared").mkdir()
        yield Path(directory)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with running_mirror() as mirror:
        yield mirror


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshclam_module, "_PAUSE", 0.3)
    monkeypatch.setattr(freshclam_module, "_FIRST_RETRY", 0.05)


class Heard(list[SignaturesUpdated | ProcessChanged]):
    def __call__(self, event: Event) -> None:
        assert isinstance(event, SignaturesUpdated | ProcessChanged)
        self.append(event)

    @property
    def results(self) -> list[str]:
        return [event.result for event in self if isinstance(event, SignaturesUpdated)]

    async def update(self, result: str) -> str:
        """What the next such result says."""
        await until(lambda: result in self.results)
        return next(event.detail for event in self if isinstance(event, SignaturesUpdated))


@asynccontextmanager
async def freshclam(
    place: Path, *urls: str, heard: Heard | None = None, proxy: str | None = None, binary: str = "freshclam"
) -> AsyncIterator[Freshclam]:
    updater = Freshclam(
        Heard() if heard is None else heard,
        Sources(urls, proxy),
        home=place,
        own=None,
        shared=place / "shared",
        always=True,
        binary=binary,
    )
    async with updater:
        yield updater


def program(place: Path, body: str) -> str:
    """A freshclam that does this."""
    path = place / "freshclam"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return str(path)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def own_signatures(name: str) -> bytes:
    return f"{name}:0:*:{OWN.hex()}\n".encode()


# -- the real freshclam --------------------------------------------------------------------------


@pytest.mark.real
async def test_a_file_of_signatures_arrives_and_is_fetched_again_only_when_it_is_newer(
    place: Path, mirror: Mirror
) -> None:
    heard, mirror.files = Heard(), {"own.ndb": own_signatures("Own.First")}
    async with freshclam(place, f"{mirror.url}/path/own.ndb", heard=heard) as updater:
        await heard.update(UPDATED)
        assert (place / "shared" / "own.ndb").read_bytes() == mirror.files["own.ndb"]
        assert updater.problem == ""
        assert updater.last_success == pytest.approx(time.time(), abs=5)
    assert mirror.asked[0] == "/path/own.ndb"
    assert names(place) == {"shared"}


@pytest.mark.real
async def test_its_database_reaches_a_running_clamd_and_a_newer_one_after_it(
    place: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the test set to what freshclam brings, and on, without a restart of ours."""
    monkeypatch.setattr("scanner.clamd.supervisor._DATABASE_POLL", 0.05)
    monkeypatch.setattr(freshclam_module, "_PAUSE", 1.0)
    shared = place / "shared"
    async with EmbeddedClamd(lambda _: None, databases=[shared], home=place / "home") as embedded:
        assert await embedded.ready(20)
        known = Clamd(
            ClamdAddress.parse(f"unix:{embedded.socket}"),
            database=lambda: embedded.database,
            last_load=embedded.last_load,
        )
        backend = ClamdBackend(known, publish=lambda _: None, scan_timeout=10)
        watching = asyncio.create_task(backend.watch(0.1))
        with sample(OWN) as bad:
            assert embedded.test_signatures
            assert (await backend.scan(bad)).outcome is Outcome.CLEAN
            mirror.files = {"own.ndb": own_signatures("Own.First")}
            async with freshclam(place, f"{mirror.url}/own.ndb"):
                await found(backend, "Own.First")
                mirror.files = {"own.ndb": own_signatures("Own.Second")}
                await found(backend, "Own.Second")
        watching.cancel()


async def found(backend: ClamdBackend, signature: str) -> None:
    async with asyncio.timeout(20):
        while True:
            with sample(OWN) as bad:
                try:
                    report = await backend.scan(bad)
                except Exception:  # noqa: BLE001 - it is starting anew
                    report = None
            if report and any(signature in found.signature for found in report.detections):
                return
            await asyncio.sleep(0.1)


@pytest.mark.real
@pytest.mark.parametrize(
    ("status", "files", "path", "problem"),
    [
        (200, {}, "/tok3n/own.ndb", "file not found"),
        (500, {}, "/tok3n/own.ndb", "Unexpected response (500)"),
        (200, {"own.ndb": b"broken\n"}, "/tok3n/own.ndb", "Failed to load new database: Malformed database"),
        (200, {}, "/tok3n/mirror", "file not found"),
        (500, {}, "/tok3n/mirror", "Unexpected response (500)"),
        (200, {"main.cvd": b"ClamAV-VDB:a:27801:1:90:x:x:x:1".ljust(999)}, "/x", "Can't verify database"),
    ],
)
async def test_what_a_mirror_does_wrong_is_said_in_one_line(
    place: Path, mirror: Mirror, status: int, files: dict[str, bytes], path: str, problem: str
) -> None:
    """Without its path, which may be a subscriber's token; and what was there stays."""
    (place / "shared" / "own.ndb").write_bytes(own_signatures("Own.Old"))
    os.utime(place / "shared" / "own.ndb", (1, 1))
    heard, mirror.status, mirror.files = Heard(), status, files
    async with freshclam(place, mirror.url + path, heard=heard) as updater:
        detail = await heard.update(FAILED)
        assert problem in detail
        assert mirror.url.removeprefix("http://") in detail
        assert "tok3n" not in detail
        assert updater.problem
    assert (place / "shared" / "own.ndb").read_bytes() == own_signatures("Own.Old")


@pytest.mark.real
async def test_a_mirror_that_is_away_is_named(place: Path) -> None:
    heard = Heard()
    async with freshclam(place, "http://127.0.0.1:1", heard=heard):
        assert await heard.update(FAILED) == "Couldn't connect to server (127.0.0.1:1)"


@pytest.mark.real
async def test_a_second_mirror_stands_in_for_the_first(place: Path, mirror: Mirror) -> None:
    heard = Heard()
    async with freshclam(place, "http://127.0.0.1:1", mirror.url, heard=heard):
        await heard.update(FAILED)
    assert "/daily.cvd" in mirror.asked or "/main.cvd" in mirror.asked


@pytest.mark.real
@pytest.mark.parametrize("status", [403, 429])
async def test_a_cool_down_is_no_success_although_freshclam_says_so(
    place: Path, mirror: Mirror, status: int
) -> None:
    heard, mirror.status = Heard(), status
    async with freshclam(place, mirror.url, heard=heard) as updater:
        await until(lambda: heard.results[:2] == [FAILED, COOLDOWN])
        assert updater.last_success is None
        assert "wants us to wait until" in updater.problem


@pytest.mark.real
async def test_one_source_that_fails_keeps_no_other_from_its_turn(place: Path, mirror: Mirror) -> None:
    heard, mirror.files = Heard(), {"own.ndb": own_signatures("Own.First")}
    async with freshclam(place, mirror.url, f"{mirror.url}/own.ndb", heard=heard):
        assert "file not found" in await heard.update(FAILED)
    assert (place / "shared" / "own.ndb").exists()


@pytest.mark.real
async def test_a_proxy_is_the_way_to_every_source(place: Path, mirror: Mirror) -> None:
    heard, mirror.files = Heard(), {"own.ndb": own_signatures("Own.First")}
    async with freshclam(place, "http://soc.test/own.ndb", heard=heard, proxy=mirror.url):
        await heard.update(UPDATED)
    assert mirror.asked[:2] == ["soc.test:80", "/own.ndb"]


@pytest.mark.real
async def test_a_proxy_that_is_away_is_named(place: Path) -> None:
    heard = Heard()
    async with freshclam(place, "http://soc.test", heard=heard, proxy="http://127.0.0.1:1"):
        detail = await heard.update(FAILED)
    assert detail == "Couldn't connect to server (soc.test), through the proxy http://127.0.0.1:1"


# -- freshclams that are none --------------------------------------------------------------------


async def test_success_after_failures_ends_them(place: Path) -> None:
    mended = place / "mended"
    binary, heard = program(place, f"[ -e {mended} ] || {{ echo 'ERROR: out of luck'; exit 3; }}"), Heard()
    async with freshclam(place, heard=heard, binary=binary) as updater:
        await until(lambda: updater.failures == 2)
        assert updater.problem == "out of luck"
        mended.touch()
        await until(lambda: updater.last_success)
        assert (updater.problem, updater.failures) == ("", 0)
    assert heard.results[-1] == CURRENT


@pytest.mark.slow
async def test_pauses_double_up_to_the_usual_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    monkeypatch.setattr(freshclam_module, "_FIRST_RETRY", 0.2)
    monkeypatch.setattr(freshclam_module, "_PAUSE", 0.5)
    updater = Freshclam(
        lambda _: times.append(time.monotonic()),
        Sources(),
        home=place,
        own=None,
        shared=place / "shared",
        always=True,
        binary=program(place, "exit 3"),
    )
    async with updater:
        await until(lambda: len(times) == 5)
    pauses = [after - before for before, after in pairwise(times)]
    assert 0.15 < pauses[0] < 0.36
    assert 0.35 < pauses[1] < 0.6
    assert all(0.44 < pause < 0.8 for pause in pauses[2:])


async def test_a_missing_freshclam_is_said_and_waited_for(place: Path) -> None:
    heard = Heard()
    async with freshclam(place, heard=heard, binary=str(place / "freshclam")) as updater:
        assert "apt-get install clamav-freshclam" in await heard.update(FAILED)
        program(place, "exit 0")
        await until(lambda: updater.last_success)


async def test_a_freshclam_that_cannot_be_run_is_a_failure_and_no_crash(place: Path) -> None:
    (place / "shared").rmdir()
    (place / "shared").touch()
    updater = Freshclam(
        Heard(), Sources(), home=place / "absent", own=place / "own", shared=place / "shared", always=True
    )
    async with updater:
        await until(lambda: updater.problem)
    assert updater.problem.startswith("freshclam cannot be run: ")


async def test_a_freshclam_that_hangs_is_ended(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshclam_module, "_LONGEST_RUN", 0.2)
    heard = Heard()
    async with freshclam(place, heard=heard, binary=program(place, "exec sleep 60")):
        assert "took more than" in await heard.update(FAILED)


async def test_the_service_ends_while_freshclam_runs(place: Path) -> None:
    binary = program(place, f"echo $$ >{place}/pid; exec sleep 60")
    async with freshclam(place, binary=binary):
        await until(lambda: (place / "pid").exists() and (place / "pid").read_text())
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert group_is_empty(int((place / "pid").read_text()))


def test_it_dies_with_a_killed_service(place: Path) -> None:
    program(place, f"echo $$ >{place}/pid; exec sleep 60")
    with subprocess.Popen([sys.executable, "-c", _SERVICE, str(place)]) as service:
        pid = wait_for_pid(place / "pid")
        service.send_signal(signal.SIGKILL)
    assert group_is_empty(pid)


def wait_for_pid(file: Path) -> int:
    deadline = time.monotonic() + 10
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(file.read_text())


async def test_nothing_of_our_environment_reaches_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIA_SCANNER__SECRET", "of the service")
    heard = Heard()
    async with freshclam(place, heard=heard, binary=program(place, f"env >{place}/environment")):
        await heard.update(CURRENT)
    assert "MEDIA_SCANNER" not in (place / "environment").read_text()


async def test_what_a_killed_freshclam_left_is_removed_in_time(place: Path) -> None:
    heard, database = Heard(), place / "shared"
    for name in ("tmp.old", "tmp.new"):
        (database / name).mkdir()
    os.utime(database / "tmp.old", (1, 1))
    async with freshclam(place, heard=heard, binary=program(place, "exit 0")):
        await heard.update(CURRENT)
    assert names(database) == {"tmp.new"}


# -- whose work it is ----------------------------------------------------------------------------


async def test_a_database_of_somebody_elses_is_left_to_him(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, heard = place / "shared", Heard()
    (shared / "own.ndb").write_bytes(own_signatures("Own.First"))
    monkeypatch.setattr(freshclam_module, "is_ours", lambda directory: directory != shared)
    updater = Freshclam(heard, Sources(), home=place, own=place / "own", shared=shared, binary="absent")
    async with updater:
        await until(lambda: heard)
        await asyncio.sleep(0.5)
    assert [(event.state, event.detail) for event in heard if isinstance(event, ProcessChanged)] == [
        ("idle", f"left to whoever brought the signatures in {shared}, which is not ours")
    ]
    assert heard.results == []


async def test_a_database_that_is_not_ours_and_empty_is_none(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, heard = place / "shared", Heard()
    monkeypatch.setattr(freshclam_module, "is_ours", lambda directory: directory != shared)
    binary = program(place, f"cp {place}/freshclam.conf {place}/kept")
    async with Freshclam(heard, Sources(), home=place, own=place / "own", shared=shared, binary=binary):
        await heard.update(CURRENT)
    assert f"DatabaseDirectory {place}/own\n" in (place / "kept").read_text()


async def test_where_no_place_lasts_nothing_is_fetched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each start anew, that would be: ClamAV's mirror soon answers 429."""
    monkeypatch.setattr(freshclam_module, "is_ours", lambda _: False)
    heard = Heard()
    async with Freshclam(heard, Sources(), home=place, own=None, shared=place / "shared"):
        await until(lambda: heard)
    assert heard.results == []
    assert "no place that lasts" in str(heard[0])


async def test_a_daemon_keeps_it_in_our_stead_until_it_ends(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemons: list[int | None] = [4711]
    monkeypatch.setattr(freshclam_module, "find_daemon", lambda: daemons[0])
    heard, binary = Heard(), program(place, "exit 0")
    async with Freshclam(heard, Sources(), home=place, own=None, shared=place / "shared", binary=binary):
        await until(lambda: heard)
        assert "process 4711" in str(heard[0])
        daemons[0] = None
        await heard.update(CURRENT)


async def test_always_without_a_place_is_the_operators_to_change(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshclam_module, "is_ours", lambda _: False)
    with pytest.raises(ConfigError, match="cannot write to"):
        async with freshclam(place):
            pass


def _until_executed(process: subprocess.Popen[bytes]) -> None:
    """Until then it has the command line of its parent."""
    while not Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"freshclam\0"):
        time.sleep(0.01)


@pytest.mark.parametrize(("arguments", "daemon"), [([], False), (["-d"], True), (["--daemon"], True)])
def test_a_daemon_is_known_by_its_command_line(arguments: list[str], daemon: bool) -> None:
    assert find_daemon() is None
    command = ["freshclam", "-c", "input()", *arguments]
    with subprocess.Popen(command, executable=sys.executable, stdin=subprocess.PIPE) as process:
        _until_executed(process)
        found = find_daemon()
        process.kill()
    assert found == (process.pid if daemon else None)


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0, reason="needs namespaces")
def test_a_daemon_in_a_container_keeps_another_database() -> None:
    sleeping = [sys.executable, "-c", "input()", "-d"]
    script = 'exec -a freshclam "$0" "$@"'
    command = ["unshare", "--pid", "--fork", "--kill-child", "bash", "-c", script, *sleeping]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as container:
        deadline = time.monotonic() + 5
        while not any(
            Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"freshclam")
            for child in children(container.pid)
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert find_daemon() is None
        container.kill()


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_database_is_ours_if_we_own_it(place: Path) -> None:
    assert is_ours(place)
    assert not is_ours(place / "absent")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_may_write_is_not_yet_his(place: Path) -> None:
    os.chown(place, 65534, 65534)
    assert not is_ours(place)


def test_ours_comes_first_only_where_it_is_always_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshclam_module, "is_ours", lambda _: False)
    assert databases(always=False) == (DATABASE, OWN_DATABASE)
    assert databases(always=True) == (OWN_DATABASE, DATABASE)
    monkeypatch.setattr(freshclam_module, "is_ours", lambda _: True)
    assert databases(always=True) == (DATABASE, OWN_DATABASE)


# -- what it says --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "lines", "said"),
    [
        (0, ["daily.cld is up-to-date"], (CURRENT, "")),
        (0, ["WARNING: You are still on cool-down until after: 2026-11-22 12:40:02"], (COOLDOWN, "")),
        (0, ["Update process terminated"], (FAILED, "freshclam was stopped, exit status 0")),
        (-9, [], (FAILED, "freshclam was stopped, exit status -9")),
        (9, ["ERROR: no\x1b[2J mirror\x00"], (FAILED, "no[2J mirror")),
        (9, ["ERROR: " + "x" * 1000], (FAILED, "x" * 200)),
        (11, ["ERROR: Update failed."], (FAILED, "Update failed.")),
    ],
)
def test_how_a_run_went(status: int, lines: list[str], said: tuple[str, str]) -> None:
    result, detail = judge(status, lines)
    assert result == said[0]
    assert said[1] in detail
