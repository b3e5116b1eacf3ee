"""What a flood of detections costs everybody else: windows by turns, with the flood and without.

The bucket is a frugal one: it would be elsewhere, and must not take the processors of what is measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import mean, median

import pytest

from tests.e2e.bucket import CREDENTIALS
from tests.e2e.machine import descriptors_of, memory_of
from tests.e2e.process import Child, free_ports
from tests.e2e.scene import MIB, REFUSED, Scene, letter, scene
from tests.e2e.test_faults_of_clamd import address
from tests.real_clamd import EICAR, Clamd

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(400)]

WINDOW = 3.0
PAIRS = 20  # a minute of flood, a minute of none
CLEAN_RATE = 20.0
DETECTIONS = 1000
SIZE = 64 * 1024


async def at_rate(rate: float, seconds: float, ask: Callable[[], Awaitable[None]]) -> None:
    """So many a second, whoever waits for an answer."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            group.create_task(ask())  # type: ignore[arg-type]


async def clean_seconds(stage: Scene) -> list[float]:
    """How long each of a window's clean requests took."""
    seconds: list[float] = []

    async def ask() -> None:
        mxc = stage.upload(letter().ljust(SIZE, b"."))
        began = time.monotonic()
        assert (await stage.download(mxc)).status == 200
        seconds.append(time.monotonic() - began)
        stage.forget(mxc)

    await at_rate(CLEAN_RATE, WINDOW, ask)
    return seconds


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a bucket in another process."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    [port] = free_ports(1)
    server = Child([sys.executable, "-m", "tests.e2e.frugal_s3", str(port)], tmp_path / "s3.log")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.kill()


@pytest.mark.parametrize("contents", ["different", "the same"])
async def test_a_thousand_detections_in_a_minute_slow_clean_traffic_by_a_tenth_at_most(
    tmp_path: Path,
    clamd: Clamd,
    endpoint: str,
    contents: str,
    record_property: Callable[[str, object], None],
) -> None:
    settings = {"store": "s3", "s3": {"endpoint_url": endpoint, "bucket": "quarantine"}}
    async with scene(tmp_path, address(clamd), quarantine=settings) as stage:
        await stage.until_ready()
        known = stage.upload(letter().ljust(SIZE, b".") + EICAR)

        async def detect() -> None:
            new = contents == "different"
            mxc = stage.upload(letter().ljust(SIZE, b".") + EICAR) if new else known
            assert (await stage.download(mxc)).refusal == REFUSED

        await detect()
        await clean_seconds(stage)
        pid = stage.product.process.pid
        descriptors, memory = descriptors_of(pid), memory_of(pid)
        calm: list[float] = []
        flooded: list[float] = []
        rate = DETECTIONS / PAIRS / WINDOW
        for number in range(PAIRS):
            for flood in (number % 2 == 0, number % 2 == 1):
                if flood:
                    seconds, _ = await asyncio.gather(clean_seconds(stage), at_rate(rate, WINDOW, detect))
                    flooded += seconds
                else:
                    calm += await clean_seconds(stage)

        figures = {"median": median(flooded) / median(calm), "mean": mean(flooded) / mean(calm)}
        record_property("slowdown", figures)
        assert figures["median"] < 1.10, figures
        kept = DETECTIONS + 1 if contents == "different" else 1
        written = 2 * kept  # sample, detection
        await stage.until(lambda: stage.metric("quarantine_writes_total", result="stored") == written, 30)
        assert descriptors_of(pid) <= descriptors + 20
        remembered = 1500 * stage.metric("verdict_cache_entries")
        assert memory_of(pid) - memory < 40 * MIB + remembered
