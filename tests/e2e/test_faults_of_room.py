"""Too much at once, slow and vanished clients, a full disk (facts/security.md, section 4)."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pyzipper

from scanner.web.routes import API
from tests.archives import zip_of
from tests.e2e.machine import fill, memory_of, small_disk
from tests.e2e.scene import MIB, REFUSED, Scene, letter, scene
from tests.e2e.test_faults_of_clamd import address, is_refusal
from tests.fake_homeserver import FOREVER, media_head, saying
from tests.raw_client import connected, request
from tests.real_clamd import Clamd

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(60)]

MEDIA = 20 * MIB
LARGE = {"media_size": "20MiB", "memory": "69MiB"}  # a share for uploads is part of it


async def idle(stage: Scene) -> bool:
    """Whether within a second nothing is held for anybody."""
    held = ("buffer_bytes", "scans_in_flight", "engine_in_flight", "engine_queue_length")
    await stage.until(lambda: not any(stage.product.values(*held)), 1)
    return True


def port_of(stage: Scene) -> int:
    return urlsplit(stage.product.url).port or 0


def wanted(stage: Scene, mxc: str) -> bytes:
    return request(f"{API}/download/{mxc.removeprefix('mxc://')}", stage.user.token)


async def test_many_large_files_wait_their_turn_then_503_and_memory_stays_bounded(
    tmp_path: Path, private_clamd: Clamd
) -> None:
    """Two fit in the share for downloads; plaintext of two more in the scan slots."""
    async with scene(tmp_path, address(private_clamd), limits=LARGE) as stage:
        await stage.until_ready()
        pid = stage.product.process.pid
        before = memory_of(pid)
        await stage.until_no_canary_is_due()
        private_clamd.pause()
        files = [stage.upload_encrypted(letter().ljust(MEDIA, b".")) for _ in range(16)]
        asked = [asyncio.create_task(stage.download_encrypted(file)) for file in files]
        most = 0
        while not all(task.done() for task in asked):  # the homeserver is in this process: do not hold it up
            most = max(most, await asyncio.to_thread(memory_of, pid) - before)
            assert await asyncio.to_thread(stage.metric, "buffer_bytes") <= 69 * MIB
            await asyncio.sleep(0.1)

        replies = await asyncio.gather(*asked)

        answers = [(reply.status, reply.headers.get("Retry-After")) for reply in replies]
        assert [answer for answer in answers if not is_refusal(*answer)] == []
        assert stage.metric("requests_rejected_total", reason="overload") >= 10
        assert most < (2 + 2) * MEDIA + 40 * MIB
        assert await idle(stage)
        private_clamd.resume()
        assert await stage.recovers(5) < 2


async def test_large_files_that_are_scanned_in_time_are_all_served_in_turn(
    tmp_path: Path, clamd: Clamd
) -> None:
    limits = {**LARGE, "queue_wait": "20s"}
    async with scene(tmp_path, address(clamd), limits=limits, server={"request_timeout": "25s"}) as stage:
        await stage.until_ready()
        pid = stage.product.process.pid
        before = memory_of(pid)
        files = [stage.upload_encrypted(letter().ljust(MEDIA, b".")) for _ in range(12)]
        asked = [asyncio.create_task(stage.download_encrypted(file)) for file in files]
        most = 0
        while not all(task.done() for task in asked):
            most = max(most, await asyncio.to_thread(memory_of, pid) - before)
            await asyncio.sleep(0.05)
        assert [reply.status for reply in await asyncio.gather(*asked)] == [200] * 12
        assert most < (2 + 2) * MEDIA + 60 * MIB
        assert await idle(stage)


async def test_readers_that_do_not_read_are_cut_while_others_wait(tmp_path: Path, clamd: Clamd) -> None:
    limits = {**LARGE, "queue_wait": "10s"}
    async with scene(tmp_path, address(clamd), limits=limits, server={"request_timeout": "20s"}) as stage:
        await stage.until_ready()
        mxc = stage.upload(letter().ljust(MEDIA, b"."))
        async with connected(port_of(stage), receive_buffer=4096) as slow:
            await slow.send(wanted(stage, mxc))
            async with connected(port_of(stage), receive_buffer=4096) as slower:
                other = stage.upload(letter().ljust(MEDIA, b"."))
                await slower.send(wanted(stage, other))
                await stage.until(lambda: stage.metric("buffer_bytes") == 2 * MEDIA)
                began = time.monotonic()

                reply = await stage.download(stage.upload(letter().ljust(MEDIA, b".")))

                assert reply.status == 200
                assert 3 < time.monotonic() - began < 9
        assert await idle(stage)


# What the work of a client that leaves is at, and the gauge that shows it.
WORK = {
    "fetch": "buffer_bytes",
    "scan": "engine_in_flight",
    "queue": "engine_queue_length",
    "answer": "buffer_bytes",
}


@pytest.mark.parametrize("work", WORK)
async def test_clients_that_are_gone_give_back_slots_and_memory_within_a_second(
    tmp_path: Path, private_clamd: Clamd, work: str
) -> None:
    async with scene(
        tmp_path,
        address(private_clamd),
        homeserver={"first_byte_timeout": "20s", "idle_timeout": "20s", "total_timeout": "20s"},
        clamav={"scan_timeout": "20s"},
        server={"request_timeout": "25s"},
        limits={**LARGE, "queue_wait": "15s"},
    ) as stage:
        await stage.until_ready()
        if work == "fetch":
            stage.but(saying(media_head(MIB), letter(), FOREVER))
        elif work in ("scan", "queue"):
            await stage.until_no_canary_is_due()
            private_clamd.pause()
        size, number = (MEDIA, 3) if work == "answer" else (MIB // 2, 12)
        async with AsyncExitStack() as stack:
            for _ in range(number):
                client = await stack.enter_async_context(connected(port_of(stage), receive_buffer=4096))
                stack.callback(client.vanish)
                await client.send(wanted(stage, stage.upload(letter().ljust(size, b"."))))
            await stage.until(lambda: stage.metric(WORK[work]) > 0)

        assert await idle(stage)
        private_clamd.resume()
        stage.homeserver.script = stage.media
        assert await stage.recovers(5) < 2


async def test_what_cannot_be_inspected_is_withheld_in_fixed_words(tmp_path: Path, clamd: Clamd) -> None:
    path = tmp_path / "locked.zip"
    with pyzipper.AESZipFile(path, "w", encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(b"secret")
        archive.writestr("letter.txt", letter())
    truncated = zip_of({"letter.txt": letter() * 100})[:-30]
    (tmp_path / "scene").mkdir()
    async with scene(tmp_path / "scene", address(clamd)) as stage:
        await stage.until_ready()
        for content, words in ((path.read_bytes(), "password"), (truncated, "cannot be inspected")):
            mxc = stage.upload(content)
            download, scan = await stage.download(mxc), await stage.scan(mxc)
            encrypted = await stage.download_encrypted(stage.upload_encrypted(content))

            assert download.refusal == encrypted.refusal == REFUSED
            assert words in download.content["info"]
            assert "irus" not in download.content["info"]
            assert (scan.status, scan.content["clean"]) == (200, False)


async def test_a_state_directory_that_fills_up_costs_no_request(tmp_path: Path, clamd: Clamd) -> None:
    """The file system of the product's files is full to the last byte while verdicts are remembered."""
    async with scene(tmp_path, address(clamd), launcher=small_disk(tmp_path / "state")) as stage:
        await stage.until_ready()
        assert await stage.well()
        seen = Path(f"/proc/{stage.product.process.pid}/root{stage.product.state}")
        await asyncio.to_thread(fill, seen / "ballast")

        for _ in range(40):
            assert await stage.well()
            assert (await stage.download_encrypted(stage.upload_encrypted(letter()))).status == 200
        known = stage.upload_encrypted(letter())
        assert (await stage.download_encrypted(known)).status == 200
        assert (await stage.api.scan_encrypted(known, stage.user)).content["clean"] is True

        await asyncio.sleep(0.5)
        assert stage.product.output().count("verdict cache failed") == 1
        (seen / "ballast").unlink()
        assert await stage.well()


async def test_a_state_directory_that_is_gone_costs_no_request(tmp_path: Path, clamd: Clamd) -> None:
    async with scene(tmp_path, address(clamd)) as stage:
        await stage.until_ready()
        stage.product.state.rename(tmp_path / "moved")

        for _ in range(5):
            assert await stage.well()
            await asyncio.sleep(0.25)

        assert stage.product.output().count("verdict cache failed") == 1
