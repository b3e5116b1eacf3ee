"""The services of docker-compose.yml, run: clamd, and the scanner in front of a homeserver."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from scanner.clamd.home import write_test_signatures
from tests.deploy.container import Container
from tests.deploy.network import own_network
from tests.e2e.scanner_api import ScannerApi
from tests.e2e.synapse import User
from tests.fake_homeserver import FakeHomeserver, Heard, Step, refusing, serving
from tests.real_clamd import EICAR

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces, and users of their own"),
]

ALICE = User("@alice:example.org", "syt_of_alice")
LETTER = b"Dear Bob, it works.\n"
LIBRARY = {"letter": LETTER, "invoice": b"%PDF- " + EICAR}

# What compose and the operator add: signatures without a date, which are the operator's own business.
_CONFIGURATION = "clamav: {max_signature_age: null}\n"


class Stack:
    """Containers that share volumes, which belong to whom the images give them."""

    def __init__(self, directory: Path, homeserver: str) -> None:
        self.directory = directory
        self.volumes = {
            "state": _directory(directory / "state", 0o700, 10001),
            "clamd-socket": _directory(directory / "socket", 0o750, 10002),
            "signatures": _directory(directory / "signatures", 0o755, 10002),
        }
        configuration = directory / "media-scanner.yaml"
        configuration.write_text(_CONFIGURATION)
        configuration.chmod(0o644)
        self._environ = {"HOMESERVER_URL": homeserver, "MEDIA_SCANNER_CONFIG": str(configuration)}

    def container(self, name: str) -> Container:
        return Container(name, self.directory, self.volumes, self._environ)

    def write_signatures(self) -> None:
        """As freshclam would: files of its own, readable for all."""
        signatures = self.volumes["signatures"]
        write_test_signatures(signatures)
        signatures.chmod(0o755)
        for path in signatures.iterdir():
            path.chmod(0o644)


def _directory(path: Path, mode: int, owner: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    os.chown(path, owner, owner)
    return path


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short one: a socket's path has 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="compose-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with own_network():
        yield


@asynccontextmanager
async def stack(directory: Path) -> AsyncIterator[Stack]:
    """With a homeserver that hands the library out to Alice."""

    def script(heard: Heard) -> list[Step]:
        target = heard.target.partition("?")[0]
        if target.endswith("/versions"):
            return list(serving(b"{}", "application/json")(heard))
        if heard.header("authorization") != ALICE.headers["Authorization"]:
            return list(refusing("401 Unauthorized", "M_UNKNOWN_TOKEN")(heard))
        return list(serving(LIBRARY[target.rpartition("/")[2]], "text/plain")(heard))

    async with FakeHomeserver() as homeserver:
        homeserver.script = script
        yield Stack(directory, homeserver.url)


async def until(holds: Callable[[], bool], container: Container, within: float = 60.0) -> None:
    """Wait for `holds` without holding up the homeserver; what the container wrote says why it did not."""
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, container.log.read_text()
        await asyncio.sleep(0.1)


def answers(path: str, port: int = 8081) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


async def test_the_services_scan_together_and_the_scanner_outlives_clamd(directory: Path) -> None:
    async with stack(directory) as compose, AsyncExitStack() as running:
        compose.write_signatures()
        scanner = running.enter_context(compose.container("scanner"))
        await until(scanner.healthy, scanner)
        assert not answers("/health/ready")

        with compose.container("clamd") as clamd:
            await until(clamd.healthy, clamd)
            await until(lambda: answers("/health/ready"), scanner)
            assert answers("/health/live", port=8080)

            session = await running.enter_async_context(aiohttp.ClientSession("http://127.0.0.1:8080"))
            api = ScannerApi(session)
            assert (await api.download("mxc://example.org/letter", ALICE)).body == LETTER
            refused = await api.download("mxc://example.org/invoice", ALICE)
            assert refused.refusal == (403, "MCS_MEDIA_NOT_CLEAN")
            assert (await api.download("mxc://example.org/letter", None)).status == 401
            # A descriptor passed from container to container, and no copy of the media.
            assert '"clamav stream' not in scanner.log.read_text()
            assert await asyncio.to_thread(clamd.stop) == 0

        assert await api.public_key()
        await until(lambda: not answers("/health/ready"), scanner)
        assert scanner.healthy()
        assert await asyncio.to_thread(scanner.stop) == 0
        assert "Traceback" not in scanner.log.read_text()
        assert "Running as root" not in scanner.log.read_text()


async def test_a_scanner_that_hangs_is_not_healthy(directory: Path) -> None:
    async with stack(directory) as compose:
        with compose.container("scanner") as scanner:
            await until(scanner.healthy, scanner)
            os.kill(scanner.pid, signal.SIGSTOP)
            assert not await asyncio.to_thread(scanner.healthy)


async def test_containers_have_no_rights_and_nothing_to_write_to_but_their_volumes(directory: Path) -> None:
    async with stack(directory) as compose:
        compose.write_signatures()
        with compose.container("clamd") as clamd, compose.container("scanner") as scanner:
            for container in (clamd, scanner):
                await until(container.healthy, container)
                check_rights(container)
            assert networks_of(clamd) == {"lo"}
            assert network_namespace(clamd) != network_namespace(scanner)


def check_rights(container: Container) -> None:
    lines = Path(f"/proc/{container.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    user, group = map(str, container.stage.user)
    assert status["Uid"].split() == [user] * 4
    assert status["Gid"].split() == [group] * 4
    assert {int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert status["NoNewPrivs"] == "1"
    for path in ("/", "/etc", "/opt/media-scanner", "/var/lib/clamav", "/root"):
        assert container.run("touch", f"{path}/new").returncode != 0, path


def networks_of(container: Container) -> set[str]:
    lines = container.run("cat", "/proc/net/dev").stdout.splitlines()[2:]
    return {line.partition(":")[0].strip() for line in lines}


def network_namespace(container: Container) -> Path:
    return Path(f"/proc/{container.pid}/ns/net").readlink()


async def test_freshclam_is_healthy_as_soon_as_there_are_signatures(directory: Path) -> None:
    """Without them clamd would not start. There is no mirror here, and it ends all the same."""
    async with stack(directory) as compose:
        with compose.container("freshclam") as freshclam:
            assert not freshclam.healthy()
            (compose.volumes["signatures"] / "daily.cvd").touch()
            assert freshclam.healthy()
            assert await asyncio.to_thread(freshclam.stop) in {0, -signal.SIGTERM}
