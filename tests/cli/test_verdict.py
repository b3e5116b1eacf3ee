from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scanner.app import Service, running
from scanner.epoch import Epoch
from scanner.web.routes import API
from tests.cli.command import media_scanner, refused
from tests.fake_homeserver import FakeHomeserver, serving, until
from tests.real_clamd import Clamd
from tests.test_app import configured, get


def test_epoch_of_the_state_directory_is_raised(tmp_path: Path) -> None:
    done = media_scanner("verdict", "forget", "--all", MEDIA_SCANNER__STATE_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    assert "scanned anew" in done.stderr
    assert Epoch(tmp_path).current > 0


def test_without_a_state_directory_it_is_one_line(tmp_path: Path) -> None:
    state = tmp_path / "absent"
    said = refused(media_scanner("verdict", "forget", "--all", MEDIA_SCANNER__STATE_DIR=str(state)))
    assert said == f"state_dir: {state}/verdict-epoch: No such file or directory"


def test_nothing_is_forgotten_unless_it_is_said_that_all_is_meant(tmp_path: Path) -> None:
    done = media_scanner("verdict", "forget", MEDIA_SCANNER__STATE_DIR=str(tmp_path))
    assert done.returncode == 2
    assert "--all" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def hits(service: Service) -> float:
    """How often a verdict was known."""
    _, text = await get(service.config.server.ops_listen, "/metrics")
    lines = [line for line in text.decode().splitlines() if "verdict_cache_requests_total{" in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'result="hit"' in line)


@pytest.mark.real
@pytest.mark.parametrize("url", ["memory", "sqlite"])
async def test_running_service_scans_anew_what_was_forgotten(tmp_path: Path, clamd: Clamd, url: str) -> None:
    async def hits_of_three_downloads(service: Service) -> float:
        await until(lambda: service.clamav.backends[0].up, 5)
        before = await hits(service)
        for _ in range(3):
            assert (await get(config.server.listen, f"{API}/download/a.org/letter"))[0] == 200
        return await hits(service) - before

    async with FakeHomeserver() as homeserver:
        homeserver.script = serving(b"a letter")
        addresses = [f"unix:{clamd.socket}"]
        config = configured(
            tmp_path, homeserver.url, clamav={"addresses": addresses}, verdict_cache={"url": url}
        )
        async with running(config, "1") as service:
            assert [await hits_of_three_downloads(service) for _ in range(2)] == [2, 3]
            known = service.clamav.versions()
            await asyncio.to_thread(Epoch(tmp_path).advance)
            await until(lambda: service.clamav.versions() != known, 5)
            assert [await hits_of_three_downloads(service) for _ in range(2)] == [2, 3]
        async with running(config, "1") as service:  # what was forgotten stays so, the rest was kept
            assert await hits_of_three_downloads(service) == (3 if url == "sqlite" else 2)
