"""`serve` with its own clamd, on a machine of which the tests own the signatures."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from pathlib import Path

import pytest

from scanner.clamd.home import write_test_signatures
from tests.archives import zip_of
from tests.e2e.machine import clamds_of, embedded_clamd_of, files_with, own_database
from tests.e2e.scene import BUSY, MIB, REFUSED, Scene, letter, scene
from tests.fake_homeserver import FOREVER, media_head, saying
from tests.real_clamd import EICAR

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]

BANNER, REFUSING_BANNER = "TEST SIGNATURES", "NO SIGNATURES but a test set"
ACCEPTING = {"accept_test_signatures": True}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "clamav"


async def test_the_test_set_alone_calls_nothing_clean(tmp_path: Path, database: Path) -> None:
    async with scene(tmp_path, "embedded", launcher=own_database(database)) as stage:
        await stage.until(lambda: REFUSING_BANNER in stage.product.output())

        for reply in (await stage.clean(), await stage.infected()):
            assert reply.refusal == BUSY
            assert "test set" in reply.content["info"]
        assert (await stage.scan(stage.upload(letter()))).refusal == BUSY
        assert (await stage.download_encrypted(stage.upload_encrypted(letter()))).refusal == BUSY
        assert (await stage.download_encrypted(stage.upload_encrypted(EICAR))).refusal == BUSY
        await stage.until(lambda: stage.product.reasons() == {"test_signatures"})
        assert BANNER not in stage.product.output()


async def test_the_test_set_scans_where_it_is_accepted_and_says_so(tmp_path: Path, database: Path) -> None:
    async with scene(tmp_path, "embedded", launcher=own_database(database), clamav=ACCEPTING) as stage:
        await stage.until_ready()
        assert await stage.well()
        await stage.until(lambda: BANNER in stage.product.output())
        assert REFUSING_BANNER not in stage.product.output()


async def test_signatures_that_come_later_are_taken_up_as_both_banners_say(
    tmp_path: Path, database: Path
) -> None:
    """Of the accepted set, too: its user must not have to start anything again."""
    async with scene(tmp_path, "embedded", launcher=own_database(database), clamav=ACCEPTING) as stage:
        await stage.until_ready()
        said = stage.product.output(until="they are taken up then")
        assert "start it again" not in said
        write_test_signatures(database)
        (database / "own.ndb").write_text(f"Own.Letter:0:*:{b'now this is bad'.hex()}\n")
        mxc = stage.upload(letter() + b"now this is bad")
        async with asyncio.timeout(20):
            while (await stage.scan(mxc)).content.get("clean") is not False:  # noqa: ASYNC110 - its event
                await asyncio.sleep(0.1)
        assert await stage.well()


async def test_signatures_of_the_operators_own_are_no_test_set(tmp_path: Path, database: Path) -> None:
    write_test_signatures(database)
    async with scene(tmp_path, "embedded", launcher=own_database(database)) as stage:
        await stage.until_ready()
        assert await stage.well()
        assert "test set" not in stage.product.output().lower()


async def test_signatures_without_a_date_are_not_ready_where_an_age_is_asked_for(
    tmp_path: Path, database: Path
) -> None:
    write_test_signatures(database)
    aged = {"max_signature_age": "7d"}
    async with scene(tmp_path, "embedded", launcher=own_database(database), clamav=aged) as stage:
        assert await stage.recovers(20)
        await stage.until(lambda: stage.product.reasons() == {"signatures"})


async def test_a_new_signature_kills_the_old_clean_verdict_within_seconds(
    tmp_path: Path, database: Path
) -> None:
    write_test_signatures(database)
    async with scene(tmp_path, "embedded", launcher=own_database(database)) as stage:
        await stage.until_ready()
        mark = secrets.token_hex(16).encode()
        plain, encrypted = stage.upload(letter() + mark), stage.upload_encrypted(letter() + mark)
        assert (await stage.download(plain)).status == 200
        assert (await stage.download_encrypted(encrypted)).status == 200

        (database / "new.ndb").write_text(f"New.Signature:0:*:{mark.hex()}\n")

        began = time.monotonic()
        async with asyncio.timeout(10):
            while (await stage.download(plain)).status == 200:  # noqa: ASYNC110 - it is clamd's event
                await asyncio.sleep(0.1)
        assert time.monotonic() - began < 5
        assert (await stage.download(plain)).refusal == REFUSED
        assert (await stage.download_encrypted(encrypted)).refusal == REFUSED
        assert (await stage.api.scan_encrypted(encrypted, stage.user)).content["clean"] is False


async def test_an_embedded_clamd_that_is_killed_comes_back(tmp_path: Path, database: Path) -> None:
    async with scene(tmp_path, "embedded", launcher=own_database(database), clamav=ACCEPTING) as stage:
        await stage.until_ready()
        _kill(embedded_clamd_of(stage.product.process.pid))
        assert await stage.recovers(10) < 3


@pytest.mark.parametrize(
    "moment", ["at the start", "while idle", "in the middle of scans", "in the middle of fetches"]
)
async def test_after_sigkill_nothing_is_left_and_the_next_start_is_clean(
    tmp_path: Path, database: Path, moment: str
) -> None:
    began = time.time() - 1
    mark = secrets.token_hex(16).encode()
    async with scene(tmp_path, "embedded", launcher=own_database(database), clamav=ACCEPTING) as stage:
        if moment != "at the start":
            await stage.until_ready()
        asked = await _under_way(stage, moment, mark)

        stage.product.process.kill()

        await asyncio.gather(*asked, return_exceptions=True)
        await stage.until(lambda: not clamds_of(database), 3)
        assert files_with(mark, began) == []
        stage.homeserver.script = stage.media
        await stage.start()
        assert await stage.recovers(20)
        await stage.until_ready()
        assert len(clamds_of(database)) == 1
        assert files_with(mark, began) == []
    assert clamds_of(database) == []


async def test_after_sigkill_nothing_is_left_of_what_clamd_unpacked(tmp_path: Path, database: Path) -> None:
    """Clamd writes the members of an archive to files, in the clear."""
    began = time.time() - 1
    mark = secrets.token_hex(16).encode()
    archive = zip_of({"letter.txt": mark * 5_000_000})
    unpacked = database / "media-scanner" / "tmp"
    async with scene(tmp_path, "embedded", launcher=own_database(database), clamav=ACCEPTING) as stage:
        await stage.until_ready()
        asked = asyncio.create_task(stage.download_encrypted(stage.upload_encrypted(archive)))
        found: list[Path] = []

        def is_written() -> bool:
            found[:] = files_with(mark, began)  # in the next moment they may be gone
            return found != []

        await stage.until(is_written)
        assert unpacked in found[0].parents

        stage.product.process.kill()

        await asyncio.gather(asked, return_exceptions=True)
        await stage.until(lambda: not clamds_of(database), 3)
        await stage.until(lambda: files_with(mark, began) == [], 2)


async def _under_way(stage: Scene, moment: str, mark: bytes) -> list[asyncio.Task[object]]:
    """Requests that go on when SIGKILL comes."""
    contents = [stage.upload_encrypted((mark + letter()) * 15_000) for _ in range(6)]
    plain = [stage.upload((mark + letter()) * 15_000) for _ in range(2)]
    if moment == "in the middle of fetches":
        stage.but(saying(media_head(MIB), mark * 1000, FOREVER))
    elif moment != "in the middle of scans":
        return []
    else:
        _stop(embedded_clamd_of(stage.product.process.pid))
    asked: list[asyncio.Task[object]] = [
        *(asyncio.create_task(stage.download_encrypted(content)) for content in contents),
        *(asyncio.create_task(stage.download(mxc)) for mxc in plain),
    ]
    gauge = "engine_in_flight" if moment == "in the middle of scans" else "buffer_bytes"
    await stage.until(lambda: stage.metric(gauge) > 0)
    return asked


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
