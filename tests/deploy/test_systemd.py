"""The units of deploy/systemd: valid, tight, and no tighter than the product can bear."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.clamd.supervisor import ENVIRONMENT
from tests.deploy import sandbox
from tests.deploy.dockerfile import CHECKOUT
from tests.deploy.sandbox import settings
from tests.e2e.machine import own_database
from tests.e2e.scene import scene

UNITS = CHECKOUT / "deploy" / "systemd"
UNIT = UNITS / "media-scanner.service"
# Of 10; facts/security.md wants 1.5.
MOST_EXPOSED = 1.5

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short one: a socket's path has 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="unit-") as path:
        yield Path(path)


def installed(directory: Path, unit: str, *drop_ins: str) -> Path:
    """A unit and its drop-ins as they are installed, but for the program: there may be none at /opt here."""
    text = unit.replace("/opt/media-scanner/.venv/bin/media-scanner", "/bin/true")
    file = directory / "media-scanner.service"
    file.write_text(text)
    folder = directory / "media-scanner.service.d"
    folder.mkdir()
    for name in drop_ins:
        shutil.copy(UNITS / name, folder)
    return file


def analyze(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@needs_systemd
@pytest.mark.parametrize("drop_ins", [(), ("embedded-clamd.conf",)])
def test_the_unit_is_valid(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    assert analyze("verify", "--man=no", installed(tmp_path, UNIT.read_text(), *drop_ins)) == ""


@needs_systemd
def test_what_is_added_to_debians_clamd_is_valid(tmp_path: Path) -> None:
    debians = "[Service]\nExecStart=/bin/true\n"
    assert analyze("verify", installed(tmp_path, debians, "clamav-daemon.conf")) == ""


@needs_systemd
@pytest.mark.parametrize("drop_ins", [(), ("embedded-clamd.conf",)])
def test_the_unit_is_hardly_exposed(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    told = analyze("security", "--offline=true", installed(tmp_path, UNIT.read_text(), *drop_ins))
    level = re.search(r"Overall exposure level for .*: ([0-9.]+)", told)
    assert level is not None
    assert float(level[1]) <= MOST_EXPOSED, told


def test_the_unit_starts_the_checkouts_program_as_the_user_that_the_docs_name() -> None:
    [start] = settings(UNIT, "ExecStart")
    assert start.split()[1:] == ["serve", "--config", "/etc/media-scanner.yaml"]
    assert settings(UNIT, "User") == ["media-scanner"]
    assert settings(UNIT, "RestartPreventExitStatus") == ["2"]


def test_debians_clamd_gets_the_allocator_of_the_embedded_one() -> None:
    [variables] = settings(UNITS / "clamav-daemon.conf", "Environment")
    allocator = {name: value for name, value in ENVIRONMENT.items() if name.startswith("MALLOC_")}
    assert dict(word.split("=") for word in variables.split()) == allocator


# -- the filters, in force -----------------------------------------------------------------------

_AS_NOBODY = """
chown -R 65534:65534 "$1"
shift
exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all "$@"
"""
KERNEL = tuple(map(int, os.uname().release.split(".")[:2]))
CONFINED = [sys.executable, sandbox.__file__, str(UNIT)]


@needs_systemd
@pytest.mark.real
@pytest.mark.timeout(90)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become the user of a service")
async def test_it_and_its_clamd_scan_under_the_filters_of_the_unit(directory: Path) -> None:
    as_nobody = ["sh", "-euc", _AS_NOBODY, "sh", str(directory)]
    launcher = [*own_database(directory / "clamav"), *as_nobody, *CONFINED]
    async with scene(
        directory, "embedded", launcher=launcher, clamav={"accept_test_signatures": True}
    ) as stage:
        await stage.until_ready()
        assert await stage.well()
        assert (await stage.download_encrypted(stage.upload_encrypted(b"a letter"))).status == 200


_UNPACK = """
import asyncio
from tests.archives import zip_of
from tests.unpacking.scene import scene

async def main():
    async with scene() as stage:
        print(await stage.unpacked(zip_of({"name": b"content"})))
        print(*(f"{event.state}: {event.detail}" for event in stage.sink.events))

asyncio.run(main())
"""


@needs_systemd
@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become the user of a service")
def test_archives_are_unpacked_under_the_filters_of_the_unit_and_seccomp(directory: Path) -> None:
    as_nobody = ["sh", "-euc", _AS_NOBODY, "sh", str(directory)]
    told = subprocess.check_output([*as_nobody, *CONFINED, sys.executable, "-c", _UNPACK], text=True)
    found, states = told.splitlines()
    assert found == "[(b'name', b'content')]"
    assert re.fullmatch(r"ready: libarchive 3[0-9.]+, with seccomp", states)


@needs_systemd
@pytest.mark.real
@pytest.mark.parametrize("call", ["os.nice(1)", "os.setuid(0)", "os.chroot('/')"])
def test_the_filter_kills_whoever_makes_another_call(call: str) -> None:
    """The control: without this, the test before would pass whatever was in force."""
    assert confined(f"import os; {call}").returncode == -signal.SIGSYS


@needs_systemd
@pytest.mark.real
def test_the_filter_refuses_other_kinds_of_sockets() -> None:
    code = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"
    assert "Address family not supported" in confined(code).stderr


@needs_systemd
@pytest.mark.real
@pytest.mark.skipif(KERNEL < (6, 3), reason="systemd does without the kernel's help, and this test does not")
def test_memory_is_never_writable_and_code() -> None:
    code = "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)"
    assert "PermissionError" in confined(code).stderr


def confined(code: str) -> subprocess.CompletedProcess[str]:
    command = [*CONFINED, sys.executable, "-c", code]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
