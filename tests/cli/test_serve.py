"""`media-scanner serve` as a process: exit codes, hardening, what it tells people."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import yaml

from scanner.crypto.pk import generate_secret
from tests.clamd.fake_clamd import FakeClamd, ok
from tests.cli.command import ROOT
from tests.e2e.machine import clamds_of, own_database
from tests.e2e.scene import scene
from tests.real_clamd import free_port

NOBODY = "65534"
LOCAL = "127.0.0.1"
ABSENT = "unix:/nonexistent/clamd.sock"


def configuration(directory: Path, *clamds: str, **sections: dict[str, Any]) -> Path:
    tree: dict[str, Any] = {
        "state_dir": str(directory / "state"),
        "server": {"listen": f"{LOCAL}:{free_port()}", "ops_listen": f"{LOCAL}:{free_port()}"},
        "clamav": {"addresses": list(clamds or [ABSENT]), "freshclam": "off"},
        "homeserver": {"url": "http://hs.example:8008"},
    }
    for name, keys in sections.items():
        tree[name] = {**tree.get(name, {}), **keys}
    file = directory / "scanner.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def serve(file: Path | None) -> list[str]:
    return [sys.executable, "-m", "scanner", "serve", *(["--config", str(file)] if file else [])]


def refusal(file: Path, launcher: Sequence[str] = ()) -> str:
    """What it says on standard error before it ends with exit code 2: one line."""
    done = subprocess.run(
        [*launcher, *serve(file)], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2, done
    [line] = done.stderr.splitlines()
    assert "Traceback" not in done.stdout
    return line.removeprefix("media-scanner: ")


@asynccontextmanager
async def serving(
    file: Path | None, launcher: Sequence[str] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A service, whose standard error can be read; it must end with 0, by SIGTERM if not by the test."""
    process = await asyncio.create_subprocess_exec(
        *launcher, *serve(file), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield process
        if process.returncode is None:
            process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def greeting(process: asyncio.subprocess.Process) -> list[str]:
    """Its lines, up to the one to try."""
    assert process.stderr is not None
    lines: list[str] = []
    async with asyncio.timeout(20):
        while not lines or not lines[-1].startswith("Try:"):
            lines.append((await process.stderr.readline()).decode().rstrip())
    return lines


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """One that another user can have: pytest's own are closed to them."""
    path = Path(tempfile.mkdtemp(prefix="serve-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


# -- what ends it with exit code 2 ---------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("key", ["listen", "ops_listen"])
def test_a_busy_port_is_one_line_and_leaves_no_clamd_behind(tmp_path: Path, key: str) -> None:
    database = tmp_path / "clamav"
    with socket.create_server((LOCAL, 0)) as other:
        address = f"{LOCAL}:{other.getsockname()[1]}"
        file = configuration(tmp_path, "embedded", server={key: address})
        said = refusal(file, own_database(database))
    assert said == f"server.{key}: cannot listen on {address}: Address already in use"
    assert clamds_of(database) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"crypto": {"secret_file": "/nonexistent/secret"}},
            "crypto.secret_file: /nonexistent/secret: No such",
        ),
        ({"crypto": {"index_secret_file": "/dev/null"}}, "crypto.index_secret_file: /dev/null: "),
        (
            {"server": {"listen": "nowhere.invalid:80"}},
            "server.listen: cannot listen on nowhere.invalid:80: ",
        ),
        (
            {"server": {"listen": "192.0.2.1:80"}},
            "server.listen: cannot listen on 192.0.2.1:80: Cannot assign",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_key(
    tmp_path: Path, sections: dict[str, dict[str, Any]], said: str
) -> None:
    assert refusal(configuration(tmp_path, **sections)).startswith(said)


@pytest.mark.slow
def test_a_state_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    state = tmp_path / "state" / "request-secret"
    assert refusal(configuration(tmp_path)).endswith(f": {state}: Not a directory")


@pytest.mark.slow
def test_both_listeners_on_one_port_is_one_line(tmp_path: Path) -> None:
    address = f"{LOCAL}:{free_port()}"
    said = refusal(configuration(tmp_path, server={"listen": address, "ops_listen": address}))
    assert said == f"server.listen: cannot listen on {address}: Address already in use"


# -- hardening -----------------------------------------------------------------------------------


_HARDENED = """
import ctypes
from resource import RLIMIT_CORE, RLIMIT_NOFILE, getrlimit
from scanner.cli.serve import harden
harden()
print(ctypes.CDLL(None).prctl(3), *getrlimit(RLIMIT_CORE), *getrlimit(RLIMIT_NOFILE))
"""


@pytest.mark.slow
def test_no_core_is_dumped_nobody_may_trace_it_and_descriptors_suffice() -> None:
    limits = ["prlimit", "--nofile=256:4096", "--core=unlimited"]
    done = subprocess.check_output([*limits, sys.executable, "-c", _HARDENED], cwd=ROOT, text=True)
    assert done.split() == ["0", "0", "0", "4096", "4096"]


@pytest.mark.real
@pytest.mark.timeout(90)
async def test_it_scans_as_a_user_without_rights_who_may_not_look_into_it(public_directory: Path) -> None:
    """An undumpable process of such a user still reads its own memory files through /proc/self/fd."""
    database = public_directory / "clamav"
    launcher = [*own_database(database), *_as_nobody(public_directory)]
    accepting = {"accept_test_signatures": True}
    async with scene(public_directory, "embedded", launcher=launcher, clamav=accepting) as stage:
        await stage.until_ready()
        assert await stage.well()
        assert (await stage.download_encrypted(stage.upload_encrypted(b"a letter"))).status == 200

        [clamd], pid = clamds_of(database), stage.product.process.pid
        assert _user_of(pid) == _user_of(clamd) == int(NOBODY)
        assert _owner_of_secrets(pid) == 0  # proc(5): of a process that is not dumpable
        assert _owner_of_secrets(clamd) == int(NOBODY)
        assert _core_limits_of(clamd) == _core_limits_of(pid) == ["0", "0"]
        assert "Running as root" not in stage.product.output()
    assert clamds_of(database) == []


def _user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def _owner_of_secrets(pid: int) -> int:
    return Path(f"/proc/{pid}/environ").stat().st_uid


def _core_limits_of(pid: int) -> list[str]:
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[4:6] for line in limits if line.startswith("Max core file size"))


def _as_nobody(directory: Path) -> list[str]:
    """Its files are given to nobody first."""
    script = f'chown -R {NOBODY}:{NOBODY} "$1" && shift && exec "$@"'
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    return ["sh", "-c", script, "sh", str(directory), *become]


# -- greeting ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("ClamAV 1.4.6", "ClamAV 1.4.6, signatures without a date"),
        ("ClamAV 1.4.6/27800/{date}", "ClamAV 1.4.6/27800/{date}, signatures 30 hours old"),
    ],
)
async def test_it_says_where_it_listens_how_old_the_signatures_are_and_what_to_try(
    tmp_path: Path, version: str, said: str
) -> None:
    date = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - 30 * 3600))
    file = configuration(tmp_path)
    async with FakeClamd(tmp_path, ok, version.format(date=date).encode()) as clamd:
        file = configuration(tmp_path, str(clamd.unix))
        listen, ops = (yaml.safe_load(file.read_text())["server"][key] for key in ("listen", "ops_listen"))
        async with serving(file) as process:
            assert await greeting(process) == [
                f"Listening on http://{listen} in front of http://hs.example:8008",
                f"Metrics and readiness on http://{ops}/metrics and /health/ready",
                *(
                    ["Running as root: give the service a user of its own in production."]
                    if _is_root()
                    else []
                ),
                f"clamd {clamd.unix}: {said.format(date=date)}",
                "The homeserver does not answer: is http://hs.example:8008 right, and is it up?",
                f"Try:  curl http://{listen}/_matrix/media_proxy/unstable/public_key",
            ]


@pytest.mark.real
@pytest.mark.parametrize("accepted", [True, False])
async def test_the_test_set_is_announced_on_standard_error(tmp_path: Path, accepted: bool) -> None:
    clamav = {"accept_test_signatures": accepted}
    file = configuration(tmp_path, "embedded", clamav=clamav)
    async with serving(file, own_database(tmp_path / "clamav")) as process:
        said = await greeting(process)
    assert "clamd embedded: ClamAV" in "".join(said)
    assert "the tiny test set" in "".join(said)
    banner = "TEST SIGNATURES: this scanner knows EICAR" if accepted else "NO SIGNATURES but a test set"
    assert [line for line in said if banner in line]


@pytest.mark.slow
async def test_it_listens_and_says_so_before_clamd_answers(tmp_path: Path) -> None:
    async with serving(configuration(tmp_path)) as process:
        assert process.stderr is not None
        first = await asyncio.wait_for(process.stderr.readline(), 10)
        assert first.startswith(b"Listening on http://")


@pytest.mark.slow
async def test_observing_is_announced_before_clamd_answers(tmp_path: Path) -> None:
    async with serving(configuration(tmp_path, policy={"mode": "observe"})) as process:
        said = b"".join([await _line(process) for _ in range(7)])
    assert b"OBSERVING: downloads are handed over, malware included." in said


# -- SIGHUP; what it does to a service that runs is in e2e/test_reload.py ------------------------


@pytest.mark.slow
async def test_sighup_waits_until_there_is_something_to_reload(tmp_path: Path) -> None:
    """It comes while the configuration, a pipe here, is read for the first time."""
    content = configuration(tmp_path).read_bytes()
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    async with serving(pipe) as process:
        with await _opened_by_reader(pipe) as writer:
            process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.1)
            assert process.returncode is None
            writer.write(content)
        assert (await _line(process)).startswith(b"Listening on ")
        with await _opened_by_reader(pipe) as writer:
            writer.write(content)
        while not (said := await _line(process)).startswith(b"Configuration"):
            pass
        assert said == b"Configuration reloaded: nothing has changed\n"


@pytest.mark.slow
async def test_without_a_configuration_file_only_secrets_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = yaml.safe_load(configuration(tmp_path).read_text())
    monkeypatch.setenv("MEDIA_SCANNER__STATE_DIR", tree["state_dir"])
    monkeypatch.setenv("MEDIA_SCANNER__SERVER", yaml.safe_dump(tree["server"]))
    monkeypatch.setenv("MEDIA_SCANNER__CLAMAV__ADDRESSES", f"[{ABSENT}]")
    async with serving(None) as process:
        assert (await _line(process)).startswith(b"Listening on ")
        (tmp_path / "state" / "request-secret").write_text(generate_secret())
        process.send_signal(signal.SIGHUP)
        while not (said := await _line(process)).startswith(b"Configuration"):
            pass
        assert said == b"Configuration reloaded: crypto.secret_file\n"
        assert await _line(process) == b"There is no configuration file: only secret files were read again.\n"


@pytest.mark.slow
async def test_closing_its_terminal_ends_it(tmp_path: Path) -> None:
    """The kernel says so with SIGHUP, too."""
    terminal, its_end = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *["setsid", "--ctty", *serve(configuration(tmp_path))],
        cwd=ROOT,
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
    )
    os.close(its_end)
    said = b""
    while b"Listening on" not in said:
        said += await asyncio.to_thread(os.read, terminal, 4096)
    os.close(terminal)
    assert await asyncio.wait_for(process.wait(), 10) == 0


# -- the end; with work in flight it is in e2e/test_stopping.py ----------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("later", [signal.SIGTERM, signal.SIGHUP])
async def test_signals_that_follow_the_first_do_not_change_how_it_ends(
    tmp_path: Path, first: signal.Signals, later: signal.Signals
) -> None:
    """Up to the very end: Python takes its time between the last line of ours and the exit."""
    async with serving(configuration(tmp_path)) as process:
        await _line(process)
        process.send_signal(first)
        async with asyncio.timeout(10):
            while process.returncode is None:
                with suppress(ProcessLookupError):  # `send_signal` would take its exit code from asyncio
                    os.kill(process.pid, later)
                await asyncio.sleep(0.001)


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stderr is not None
    return await asyncio.wait_for(process.stderr.readline(), 20)


async def _opened_by_reader(pipe: Path) -> BinaryIO:
    return await asyncio.wait_for(asyncio.to_thread(pipe.open, "wb"), 20)


def _is_root() -> bool:
    return os.geteuid() == 0
