"""The embedded clamd, with the real one."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from scanner.clamd.home import Home, marker
from scanner.clamd.supervisor import EmbeddedClamd
from scanner.errors import ConfigError
from scanner.events import Event, ProcessChanged
from scanner.readable import readable
from tests.clamd.test_leash import group_is_empty
from tests.real_clamd import EICAR, clamd_binary, received

_SERVICE = """
import asyncio, os, sys, uvloop
from pathlib import Path
from scanner.clamd.supervisor import EmbeddedClamd
async def serve():
    place = Path(sys.argv[1])
    async with EmbeddedClamd(lambda event: None, home=place / "absent" / "home", temporary=place) as clamd:
        assert await clamd.ready(20)
        print(clamd.pid, clamd.home, flush=True)
        await asyncio.sleep(60)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name: a socket's path has 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="s-") as directory:
        yield Path(directory)


class Heard:
    """Everything that was published."""

    def __init__(self) -> None:
        self.events: list[ProcessChanged] = []
        self.times: list[float] = []
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        assert isinstance(event, ProcessChanged)
        self.events.append(event)
        self.times.append(time.monotonic())
        self._news.set()

    @property
    def states(self) -> list[str]:
        return [event.state for event in self.events]

    def detail(self, state: str) -> str:
        return next(event.detail for event in self.events if event.state == state)

    async def wait_for(self, state: str, times: int = 1, within: float = 10.0) -> None:
        async with asyncio.timeout(within):
            while self.states.count(state) < times:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def embedded(
    place: Path,
    heard: Heard | None = None,
    *,
    databases: Sequence[Path] = (),
    binary: str = "clamd",
) -> AsyncIterator[EmbeddedClamd]:
    clamd = EmbeddedClamd(
        heard or Heard(),
        databases=databases,
        home=place / "home",
        temporary=place,
        binary=binary,
    )
    async with clamd:
        yield clamd


async def reply(clamd: EmbeddedClamd, data: bytes) -> str:
    return await asyncio.to_thread(_reply, clamd.socket, data)


def _reply(path: Path, data: bytes) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(b"zINSTREAM\0" + len(data).to_bytes(4, "big") + data + bytes(4))
        return received(connection)


def loaded(clamd: EmbeddedClamd) -> float:
    load = clamd.last_load()
    assert load is not None
    assert not load.problem
    return load.began


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def environment_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text()


def names(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


def own_signatures(directory: Path, name: str = "Own.Signature") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "own.ndb").write_text(f"{name}:0:*:{b'what this operator calls bad'.hex()}\n")
    return directory


async def reload(clamd: EmbeddedClamd) -> None:
    reader, writer = await asyncio.open_unix_connection(clamd.socket)
    writer.write(b"zRELOAD\0")
    assert await reader.read() == b"RELOADING\0"
    writer.close()


@pytest.mark.real
async def test_without_a_database_it_runs_on_the_test_set(place: Path) -> None:
    heard = Heard()
    async with embedded(place, heard) as clamd:
        assert await clamd.ready(20)
        assert clamd.test_signatures
        assert clamd.database == clamd.home / "test-database"
        assert await reply(clamd, EICAR) == "stream: Eicar-Test-Signature.UNOFFICIAL FOUND"
        assert await reply(clamd, b"prefix" + EICAR + b"x") == "stream: Eicar-Test-Signature.UNOFFICIAL FOUND"
        assert await reply(clamd, b"nothing") == "stream: OK"
    assert heard.states == ["started", "ready", "stopped"], "what it finds is not told here"


@pytest.mark.real
async def test_the_test_set_sees_the_end_of_20_mb(place: Path) -> None:
    name = "MediaScanner.Test.AtEnd"
    async with embedded(place) as clamd:
        assert await clamd.ready(20)
        data = os.urandom(20_000_000)
        assert await reply(clamd, data + marker(name)) == f"stream: {name}.UNOFFICIAL FOUND"
        assert await reply(clamd, marker(name) + data) == "stream: OK"


@pytest.mark.real
@pytest.mark.parametrize("name", ["MediaScanner.Test.Whole", "MediaScanner.Test.Marker"])
async def test_the_test_set_has_more_than_eicar(place: Path, name: str) -> None:
    async with embedded(place) as clamd:
        assert await clamd.ready(20)
        assert await reply(clamd, marker(name)) == f"stream: {name}.UNOFFICIAL FOUND"


@pytest.mark.real
async def test_a_database_is_used_where_there_is_one(place: Path) -> None:
    database = own_signatures(place / "database")
    async with embedded(place, databases=[database]) as clamd:
        assert await clamd.ready(20)
        assert not clamd.test_signatures
        assert (clamd.database, clamd.signatures) == (database, str(database))
        assert await reply(clamd, b"what this operator calls bad") == "stream: Own.Signature.UNOFFICIAL FOUND"
        assert await reply(clamd, EICAR) == "stream: OK"


@pytest.mark.real
async def test_signatures_that_come_later_are_taken_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first start before freshclam has finished must not need a second one."""
    monkeypatch.setattr("scanner.clamd.supervisor._DATABASE_POLL", 0.05)
    heard, database = Heard(), place / "database"
    async with embedded(place, heard, databases=[database]) as clamd:
        assert await clamd.ready(20)
        assert clamd.test_signatures
        own_signatures(database)
        await heard.wait_for("ready", times=2)
        assert not clamd.test_signatures
    assert heard.states == ["started", "ready", "restarting", "ended", "started", "ready", "stopped"]


@pytest.mark.real
async def test_a_database_that_comes_first_in_the_order_is_preferred(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scanner.clamd.supervisor._DATABASE_POLL", 0.05)
    heard, first, second = Heard(), place / "first", own_signatures(place / "second")
    async with embedded(place, heard, databases=[first, second]) as clamd:
        assert await clamd.ready(20)
        assert clamd.database == second
        own_signatures(first)
        await heard.wait_for("ready", times=2)
        assert clamd.database == first


@pytest.mark.real
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_is_started_again_after_a_crash(
    place: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(crash_and_restart(place))


async def crash_and_restart(place: Path) -> None:
    heard = Heard()
    async with embedded(place, heard) as clamd:
        assert await clamd.ready(20)
        first, loaded_at = clamd.pid, loaded(clamd)
        assert first
        os.kill(first, signal.SIGKILL)
        await heard.wait_for("ended")
        assert clamd.pid is None
        assert not await clamd.ready(0)
        assert await clamd.ready(20)
        assert clamd.pid not in {first, None}
        assert loaded(clamd) > loaded_at
        assert await reply(clamd, b"nothing") == "stream: OK"
    assert heard.detail("ended") == "killed by signal 9"
    assert group_is_empty(first)


@pytest.mark.slow
async def test_pauses_between_starts_double(place: Path) -> None:
    binary = place / "crashes"
    binary.write_text("#!/bin/sh\necho 'ERROR: no luck today'\nexit 3\n")
    binary.chmod(0o700)
    heard = Heard()
    async with embedded(place, heard, binary=str(binary)):
        await heard.wait_for("ended", times=3)
    ends = [at for at, state in zip(heard.times, heard.states, strict=True) if state == "ended"]
    assert 0.45 < ends[1] - ends[0] < 0.9
    assert 0.95 < ends[2] - ends[1] < 1.8
    assert heard.detail("ended") == "exit status 3"
    assert heard.detail("problem") == "no luck today"


async def test_a_log_that_cannot_be_read_is_a_problem_and_it_is_started_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the kernel has nothing more to wait with (epoll_ctl(2), ENOSPC)."""
    first = asyncio.Event()

    async def once_refused(fd: int) -> None:
        if not first.is_set():
            first.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await readable(fd)

    monkeypatch.setattr("scanner.clamd.leash.readable", once_refused)
    binary, heard = place / "clamd", Heard()
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o700)
    async with embedded(place, heard, binary=str(binary)):
        await heard.wait_for("started", times=2)
    assert heard.detail("problem") == f"cannot run {binary}: [Errno 28] No space left on device"


@pytest.mark.real
async def test_a_missing_clamd_is_said_and_waited_for(place: Path) -> None:
    binary, heard = place / "clamd", Heard()
    async with embedded(place, heard, binary=str(binary)) as clamd:
        await heard.wait_for("missing")
        assert "apt-get install clamav-daemon" in heard.detail("missing")
        assert not await clamd.ready(0)
        binary.symlink_to(clamd_binary())
        assert await clamd.ready(20)


async def test_a_clamd_that_cannot_be_started_is_a_problem_and_no_crash(place: Path) -> None:
    binary, heard = place / "clamd", Heard()
    binary.write_bytes(b"\0no program")
    binary.chmod(0o700)
    async with embedded(place, heard, binary=str(binary)):
        await heard.wait_for("ended")
    assert heard.states == ["started", "ended", "stopped"]


async def test_no_place_for_its_files_is_the_operators_to_change(place: Path) -> None:
    clamd = EmbeddedClamd(Heard(), home=place / "absent" / "home", temporary=place / "absent")
    with pytest.raises(ConfigError, match="cannot write to"):
        await clamd.__aenter__()


@pytest.mark.real
async def test_a_reload_is_timed_by_its_beginning(place: Path) -> None:
    database, heard = own_signatures(place / "database"), Heard()
    async with embedded(place, heard, databases=[database]) as clamd:
        assert clamd.last_load() is None
        assert await clamd.ready(20)
        own_signatures(database, "Own.Newer")
        changed = time.monotonic()
        assert loaded(clamd) < changed
        await reload(clamd)
        await heard.wait_for("reloaded")
        assert changed < loaded(clamd) < heard.times[-1]
    assert heard.detail("reloaded") == "Database correctly reloaded (1 signatures)"


@pytest.mark.real
async def test_a_reload_that_fails_is_said_and_why(place: Path) -> None:
    """Clamd answers RELOADING all the same, and keeps what it had."""
    database, heard = own_signatures(place / "database"), Heard()
    async with embedded(place, heard, databases=[database]) as clamd:
        assert await clamd.ready(20)
        (database / "broken.ndb").write_text("broken\n")
        changed = time.monotonic()
        await reload(clamd)
        await heard.wait_for("problem")
        load = clamd.last_load()
        assert load is not None
        assert load.problem == "broken.ndb: Malformed database"
        assert load.began > changed
        assert await reply(clamd, b"what this operator calls bad") == "stream: Own.Signature.UNOFFICIAL FOUND"
    assert heard.detail("problem") == "Database reload failed, broken.ndb: Malformed database"


@pytest.mark.real
async def test_a_broken_database_is_said(place: Path) -> None:
    database, heard = own_signatures(place / "database"), Heard()
    (database / "broken.ndb").write_text("broken\n")
    async with embedded(place, heard, databases=[database]):
        await heard.wait_for("ended")
    assert "Malformed database" in " ".join(event.detail for event in heard.events)
    assert heard.detail("ended") == "exit status 1"


@pytest.mark.real
async def test_two_services_do_not_meet(place: Path) -> None:
    async with embedded(place) as first, embedded(place) as second:
        assert await first.ready(20)
        assert await second.ready(20)
        assert first.home == place / "home"
        assert second.home.parent == place
        assert second.home != first.home
        assert await reply(first, EICAR) == await reply(second, EICAR)
    assert names(place) == {"home"}


@pytest.mark.real
async def test_nothing_is_left_of_it(place: Path) -> None:
    async with embedded(place) as clamd:
        assert await clamd.ready(20)
        pid = clamd.pid
        assert pid
    assert group_is_empty(pid, within=0)
    assert not exists(pid), "no zombie either"
    assert not names(place / "home")


@pytest.mark.real
@pytest.mark.slow
async def test_a_stopped_clamd_is_killed_in_the_end(place: Path) -> None:
    async with embedded(place) as clamd:
        assert await clamd.ready(20)
        pid = clamd.pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
    assert 2.5 < time.monotonic() - began < 5
    assert not exists(pid)


@pytest.mark.real
async def test_it_runs_apart_from_us(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of its own, so that Ctrl-C is ours alone; nothing of our environment; a private socket."""
    monkeypatch.setenv("MEDIA_SCANNER__SECRET", "of the service")
    async with embedded(place) as clamd:
        assert await clamd.ready(20)
        assert clamd.pid
        assert os.getsid(clamd.pid) == clamd.pid
        environment = environment_of(clamd.pid)
        assert "MEDIA_SCANNER" not in environment
        assert "MALLOC_TOP_PAD_=67108864" in environment
        assert clamd.socket.stat().st_mode & 0o777 == 0o660
        assert clamd.home.stat().st_mode & 0o777 == 0o700


@pytest.mark.real
@pytest.mark.parametrize("run", ["asyncio.run(serve())", "uvloop.run(serve())"])
def test_it_dies_with_a_killed_service_and_the_next_one_tidies_up(place: Path, run: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SERVICE + run, str(place)], stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout
        pid, home = service.stdout.readline().split()
        service.kill()
    assert group_is_empty(int(pid))
    assert Path(home).exists()
    Home.take(place / "absent" / "home", place).leave()
    assert not Path(home).exists()
