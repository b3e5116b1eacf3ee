"""SIGTERM and Ctrl-C with work in flight (facts/security.md, section 4)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from scanner.web.routes import API
from tests.e2e.machine import clamds_of, own_database
from tests.e2e.scanner_api import Reply
from tests.e2e.scene import BUSY, REFUSED, Scene, letter, scene
from tests.e2e.test_faults_of_clamd import address, is_refusal
from tests.fake_homeserver import FOREVER, media_head, saying
from tests.raw_client import connected, request
from tests.real_clamd import EICAR, Clamd

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

HOMESERVER = {"first_byte_timeout": "40s", "idle_timeout": "40s", "total_timeout": "40s"}
SERVER = {"request_timeout": "60s"}
CLAMAV = {"scan_timeout": "50s"}


def terminate(stage: Scene) -> None:
    os.kill(stage.product.process.pid, signal.SIGTERM)


async def until_ended(stage: Scene, within: float) -> None:
    await stage.until(lambda: stage.product.process.ended, within)
    assert stage.product.process.terminate(0) == 0


@asynccontextmanager
async def in_flight(stage: Scene, clamd: Clamd) -> AsyncIterator[list[asyncio.Task[Reply]]]:
    """Requests that wait for a stopped clamd, and one for the homeserver."""
    clamd.pause()
    asked = [asyncio.create_task(ask) for ask in (stage.clean(), stage.infected())]
    await stage.until(lambda: stage.metric("engine_in_flight") == 2)
    try:
        yield asked
    finally:
        clamd.resume()


async def test_work_in_flight_is_finished_and_nothing_new_is_begun(
    tmp_path: Path, private_clamd: Clamd
) -> None:
    async with scene(tmp_path, address(private_clamd), server=SERVER, clamav=CLAMAV) as stage:
        await stage.until_ready()
        async with in_flight(stage, private_clamd) as asked:
            terminate(stage)
            await stage.until(lambda: "stopping" in stage.product.reasons(), 1)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", urlsplit(stage.product.url).port)
            assert not any(task.done() for task in asked)
        clean, infected = await asyncio.gather(*asked)
        assert (clean.status, infected.refusal) == (200, REFUSED)
        await until_ended(stage, 3)


async def test_a_client_that_holds_its_connection_does_not_hold_the_shutdown(
    tmp_path: Path, clamd: Clamd
) -> None:
    """Neither one that is idle nor one that has sent half a head."""
    async with scene(tmp_path, address(clamd)) as stage:
        await stage.until_ready()
        port = urlsplit(stage.product.url).port or 0
        async with connected(port) as idle, connected(port) as half:
            assert (await idle.ask(request(f"{API}/public_key"))).status == 200
            await half.send(request(f"{API}/public_key")[:30])
            began = time.monotonic()
            terminate(stage)
            await until_ended(stage, 5)
            assert time.monotonic() - began < 3
            assert await idle.ends()
            assert await half.ends()


async def test_a_second_sigterm_changes_nothing(tmp_path: Path, private_clamd: Clamd) -> None:
    async with scene(tmp_path, address(private_clamd), server=SERVER, clamav=CLAMAV) as stage:
        await stage.until_ready()
        async with in_flight(stage, private_clamd) as asked:
            for _ in range(3):
                terminate(stage)
                await asyncio.sleep(0.1)
        clean, infected = await asyncio.gather(*asked)
        assert (clean.status, infected.refusal) == (200, REFUSED)
        await until_ended(stage, 3)


async def test_only_a_second_ctrl_c_ends_it_at_once(tmp_path: Path, private_clamd: Clamd) -> None:
    async with scene(tmp_path, address(private_clamd), server=SERVER, clamav=CLAMAV) as stage:
        await stage.until_ready()
        async with in_flight(stage, private_clamd) as asked:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                os.kill(stage.product.process.pid, number)
                await asyncio.sleep(0.2)
                assert not stage.product.process.ended
            os.kill(stage.product.process.pid, signal.SIGINT)
            await stage.until(lambda: stage.product.process.ended, 1)
            assert stage.product.process.terminate(0) == -signal.SIGINT
            cut_off = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(answer, aiohttp.ClientError) for answer in cut_off)


async def test_what_does_not_finish_is_answered_503_and_all_ends_within_25_seconds(tmp_path: Path) -> None:
    """Clamd stopped dead, so that it has to be killed; the homeserver silent in the middle of a body."""
    database = tmp_path / "clamav"
    accepting = {**CLAMAV, "accept_test_signatures": True}
    async with scene(
        tmp_path,
        "embedded",
        launcher=own_database(database),
        server=SERVER,
        clamav=accepting,
        homeserver=HOMESERVER,
    ) as stage:
        await stage.until_ready()
        [clamd] = clamds_of(database)
        os.kill(clamd, signal.SIGSTOP)
        asked = [asyncio.create_task(ask) for ask in (stage.clean(), stage.infected())]
        await stage.until(lambda: stage.metric("engine_in_flight") == 2)
        stage.but(saying(media_head(100), letter()[:10], FOREVER))
        asked.append(asyncio.create_task(stage.download(stage.upload(EICAR))))
        await stage.until(lambda: stage.metric("http_requests_in_flight") == 3)
        began = time.monotonic()

        terminate(stage)

        for reply in await asyncio.gather(*asked):
            assert reply.refusal == BUSY
            assert is_refusal(reply.status, reply.headers.get("Retry-After"))
        await until_ended(stage, 30)
        assert time.monotonic() - began < 25
        assert clamds_of(database) == []
