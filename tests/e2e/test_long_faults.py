"""What takes minutes: faults without end under load, and the times that no setting shortens."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scanner.clamd.home import write_test_signatures
from scanner.web.routes import API
from tests.e2e.machine import descriptors_of, memory_of, own_database
from tests.e2e.scene import BUSY, MIB, REFUSED, Scene, letter, scene
from tests.e2e.test_faults_of_clamd import address, other_clamd
from tests.fake_homeserver import FOREVER, Then, media_head, refusing, saying
from tests.raw_client import connected, request
from tests.real_clamd import EICAR, Clamd

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(300)]

SOAK = 90.0
UNHAPPY = {BUSY, (502, "MCS_MEDIA_REQUEST_FAILED"), (504, "MCS_MEDIA_REQUEST_FAILED")}


async def ask_for_ever(stage: Scene, answers: Counter[str], end: float, dice: random.Random) -> None:
    """Clean and infected media, small and large, plain and encrypted: each answer must be one of a few."""
    while time.monotonic() < end:
        infected = dice.random() < 0.4
        content = letter() * dice.choice([1, 100, 10_000]) + (EICAR if infected else b"")
        if dice.random() < 0.5:
            mxc = stage.upload(content)
            reply = await stage.download(mxc)
        else:
            attachment = stage.upload_encrypted(content)
            mxc = attachment["file"]["url"]
            reply = await stage.download_encrypted(attachment)
        stage.forget(mxc)
        if reply.status == 200:
            assert not infected
            answers["delivered"] += 1
        else:
            assert reply.refusal in UNHAPPY | ({REFUSED} if infected else set())
            answers["withheld" if reply.refusal == REFUSED else "failed"] += 1


async def vanish_for_ever(stage: Scene, end: float, dice: random.Random) -> None:
    """Clients that leave at any moment."""
    port = urlsplit(stage.product.url).port or 0
    while time.monotonic() < end:
        mxc = stage.upload(letter() * 10_000)
        async with connected(port, receive_buffer=4096) as client:
            path = f"{API}/download/{mxc.removeprefix('mxc://')}"
            await client.send(request(path, stage.user.token))
            await asyncio.sleep(dice.random() / 4)
            client.vanish()
        stage.forget(mxc)


async def break_for_ever(stage: Scene, clamds: list[Clamd], end: float, dice: random.Random) -> int:
    """One fault after the other, each for a moment; all is mended at the end."""
    faults = 0
    while time.monotonic() < end:
        faults += 1
        clamd = dice.choice(clamds)
        fault = dice.choice(["kill", "stop", "reload", "homeserver", "nothing"])
        if fault == "kill":
            clamd.stop()
            await asyncio.sleep(dice.random() * 2)
            await asyncio.to_thread(clamd.start)
        elif fault == "stop":
            clamd.pause()
            await asyncio.sleep(dice.random() * 3)
            clamd.resume()
        elif fault == "reload":
            await asyncio.to_thread(clamd.command, "RELOAD")
        elif fault == "homeserver":
            stage.but(dice.choice(_UNWELL))
            await asyncio.sleep(dice.random())
            stage.homeserver.script = stage.media
        await asyncio.sleep(dice.random())
    return faults


_UNWELL = [
    saying(Then.RESET),
    saying(FOREVER),
    saying(media_head(MIB), EICAR, Then.HANG_UP),
    saying(media_head(MIB), EICAR, FOREVER),
    refusing("500 Internal Server Error", "M_UNKNOWN"),
]


async def test_faults_without_end_serve_nothing_infected_and_leave_nothing_behind(tmp_path: Path) -> None:
    dice = random.Random(3)
    with ExitStack() as stack:
        clamds = [stack.enter_context(other_clamd()) for _ in range(2)]
        for clamd in clamds:
            clamd.start()
        async with scene(tmp_path, address(clamds[0]), address(clamds[1], "tcp")) as stage:
            await stage.until_ready()
            assert await stage.well()
            pid = stage.product.process.pid
            descriptors, memory = descriptors_of(pid), memory_of(pid)
            answers: Counter[str] = Counter()
            end = time.monotonic() + SOAK

            async with asyncio.TaskGroup() as group:
                for _ in range(6):
                    group.create_task(ask_for_ever(stage, answers, end, dice))
                group.create_task(vanish_for_ever(stage, end, dice))
                breaking = group.create_task(break_for_ever(stage, clamds, end, dice))

            assert await stage.recovers(5) < 2
            held = ("buffer_bytes", "scans_in_flight", "engine_in_flight", "engine_queue_length")
            await stage.until(lambda: not any(stage.metric(gauge) for gauge in held), 5)
            assert breaking.result() > 30
            assert min(answers[kind] for kind in ("delivered", "withheld", "failed")) > 20, answers
            assert stage.metric("http_requests_total", code="500") == 0
            assert descriptors_of(pid) <= descriptors + 20
            remembered = 1500 * stage.metric("verdict_cache_entries")
            assert memory_of(pid) - memory < 30 * MIB + remembered


async def test_a_reader_without_progress_is_cut_after_a_minute(tmp_path: Path, clamd: Clamd) -> None:
    async with scene(tmp_path, address(clamd), limits={"media_size": "20MiB", "memory": "72MiB"}) as stage:
        await stage.until_ready()
        mxc = stage.upload(letter().ljust(20 * MIB, b".")).removeprefix("mxc://")
        async with connected(urlsplit(stage.product.url).port or 0, receive_buffer=4096) as client:
            await client.send(request(f"{API}/download/{mxc}", stage.user.token))
            await stage.until(lambda: stage.metric("buffer_bytes") > 0)
            began = time.monotonic()

            await stage.until(lambda: stage.metric("buffer_bytes") == 0, 90)

            assert 55 < time.monotonic() - began < 70


async def test_real_signatures_are_taken_up_when_they_come(tmp_path: Path) -> None:
    database = tmp_path / "clamav"
    async with scene(tmp_path, "embedded", launcher=own_database(database)) as stage:
        await stage.until(lambda: stage.product.reasons() == {"test_signatures"})
        assert (await stage.clean()).refusal == BUSY

        write_test_signatures(database)

        assert await stage.recovers(60) < 45
        await stage.until_ready()
