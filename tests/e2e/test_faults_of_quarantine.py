"""Whatever becomes of store, disk or process: what was refused is in the quarantine, once, sealed."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.bucket import CREDENTIALS, Analyst, Fault
from tests.e2e.machine import files_with, fill, small_disk
from tests.e2e.scene import REFUSED, Scene, letter, scene
from tests.e2e.test_faults_of_clamd import address
from tests.e2e.test_quarantine_in_s3 import nowhere_on_disk, shipped
from tests.real_clamd import EICAR, Clamd

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


async def refused_in_time(stage: Scene, content: bytes) -> str:
    """The name of media that were refused as if nothing were the matter."""
    mxc = stage.upload(content)
    began = time.monotonic()
    assert (await stage.download(mxc)).refusal == REFUSED
    assert time.monotonic() - began < 3
    return mxc


async def kept_once(bucket: Analyst, refused: dict[str, bytes]) -> None:
    """Of each of these media there is one sample and one record that names it."""
    contents = {hashlib.sha256(content).hexdigest() for content in refused.values()}
    names = Counter(name.rpartition("/")[2] for name in await bucket.names("v1/objects"))
    assert {sha256: names[sha256] for sha256 in contents} == dict.fromkeys(contents, 1)
    records = await bucket.records()
    named = Counter((record.media, record.sha256) for record in records if record.sample is not None)
    for mxc, content in refused.items():
        assert named[mxc, hashlib.sha256(content).hexdigest()] == 1


@pytest.mark.parametrize("fault", Fault)
async def test_a_store_that_fails_delays_nobody_and_loses_nothing(
    tmp_path: Path, clamd: Clamd, bucket: Analyst, fault: Fault
) -> None:
    await bucket.proxy.suffer(fault)
    async with scene(tmp_path, address(clamd), quarantine=bucket.settings(tmp_path)) as stage:
        await stage.until_ready()
        contents = [letter() + EICAR for _ in range(8)]
        refused = {await refused_in_time(stage, content): content for content in contents}
        assert (await stage.clean()).status == 200
        if fault not in (Fault.LATE, Fault.DEAF):
            assert stage.metric("quarantine_pending_objects") >= 16
            assert await bucket.names("v1/objects") == await bucket.names("v1/detections") == []
        if fault not in (Fault.LATE, Fault.STALLED):
            await stage.until(lambda: "quarantine" in stage.product.warnings(), 5)
        assert stage.product.answers("ready")

        await bucket.proxy.suffer(None)

        await shipped(stage, 15)
        assert "quarantine" not in await asyncio.to_thread(stage.product.warnings)
        await kept_once(bucket, refused)
        assert sorted(await bucket.samples()) == sorted(contents)


async def test_what_was_refused_during_an_outage_is_stored_by_the_next_process(
    tmp_path: Path, clamd: Clamd, bucket: Analyst
) -> None:
    """It ends well in the middle of the outage, too."""
    await bucket.proxy.suffer(Fault.STALLED)
    async with scene(tmp_path, address(clamd), quarantine=bucket.settings(tmp_path)) as stage:
        await stage.until_ready()
        content = letter() + EICAR
        refused = {await refused_in_time(stage, content): content}
        began = time.monotonic()
        await asyncio.to_thread(stage.product.stop)
        assert time.monotonic() - began < 8
        await bucket.proxy.suffer(None)
        await stage.start()
        await shipped(stage)
        await kept_once(bucket, refused)


async def test_credentials_that_are_missing_are_said_and_what_waited_is_stored_once_they_are_there(
    tmp_path: Path, clamd: Clamd, bucket: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    async with scene(tmp_path, address(clamd), quarantine=bucket.settings(tmp_path)) as stage:
        await stage.until_ready()
        content = letter() + EICAR
        refused = {await refused_in_time(stage, content): content}
        await stage.until(lambda: "no credentials" in stage.product.warnings().get("quarantine", ""), 5)
        await asyncio.to_thread(stage.product.stop)
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        await stage.start()
        await shipped(stage)
        await kept_once(bucket, refused)


async def test_credentials_that_are_replaced_in_their_file_count_at_the_next_try(
    tmp_path: Path, clamd: Clamd, bucket: Analyst, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody restarts anything, and what waited meanwhile is stored."""
    file = tmp_path / "credentials"
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def write(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")

    write("OLD")
    bucket.proxy.refuses = lambda head: b"Credential=NEW/" not in head
    async with scene(tmp_path, address(clamd), quarantine=bucket.settings(tmp_path)) as stage:
        await stage.until_ready()
        content = letter() + EICAR
        refused = {await refused_in_time(stage, content): content}
        await stage.until(lambda: "AccessDenied" in stage.product.warnings().get("quarantine", ""), 5)
        write("NEW")
        await shipped(stage)
        await kept_once(bucket, refused)


async def test_what_the_store_refuses_for_ever_holds_up_nothing_else(
    tmp_path: Path, clamd: Clamd, bucket: Analyst
) -> None:
    poison = letter() + EICAR
    name = f"/{hashlib.sha256(poison).hexdigest()} HTTP".encode()
    bucket.proxy.refuses = lambda head: name in head
    async with scene(tmp_path, address(clamd), quarantine=bucket.settings(tmp_path)) as stage:
        await stage.until_ready()
        await refused_in_time(stage, poison)
        others = [letter() + EICAR for _ in range(5)]
        refused = {await refused_in_time(stage, content): content for content in others}
        await stage.until(lambda: stage.metric("quarantine_pending_objects") == 1, 10)
        await kept_once(bucket, refused)
        assert "AccessDenied" in (await asyncio.to_thread(stage.product.warnings))["quarantine"]
        bucket.proxy.refuses = lambda head: False
        await shipped(stage)
        assert sorted(await bucket.samples()) == sorted([poison, *others])


async def test_a_full_outbox_refuses_all_the_same_and_seals_at_the_next_sight(
    tmp_path: Path, clamd: Clamd, bucket: Analyst
) -> None:
    await bucket.proxy.suffer(Fault.STOPPED)
    settings = bucket.settings(tmp_path, outbox_size="8KiB")
    async with scene(tmp_path, address(clamd), quarantine=settings) as stage:
        await stage.until_ready()
        contents = [letter() + EICAR for _ in range(4)]
        refused = {await refused_in_time(stage, content): content for content in contents}
        lost = hashlib.sha256(contents[3]).hexdigest()
        assert "the outbox is full" in stage.product.output(until=lost)
        await bucket.proxy.suffer(None)
        await shipped(stage)
        assert len(await bucket.samples()) == 2
        assert Counter(record.missing for record in await bucket.records()) == {None: 2, "not written": 2}
        for mxc in refused:
            assert (await stage.download(mxc)).refusal == REFUSED
        await shipped(stage)
        await kept_once(bucket, refused)


async def test_a_full_disk_refuses_all_the_same_and_seals_at_the_next_sight(
    tmp_path: Path, clamd: Clamd, bucket: Analyst
) -> None:
    disk = small_disk(tmp_path / "state")
    async with scene(tmp_path, address(clamd), launcher=disk, quarantine=bucket.settings(tmp_path)) as stage:
        await stage.until_ready()
        seen = Path(f"/proc/{stage.product.process.pid}/root{stage.product.state}")
        await asyncio.to_thread(fill, seen / "ballast")
        contents = [letter() + EICAR, letter() * 10_000 + EICAR]
        refused = {await refused_in_time(stage, content): content for content in contents}
        assert (await stage.clean()).status == 200
        for content in contents:
            assert "No space left" in stage.product.output(until=hashlib.sha256(content).hexdigest())
        (seen / "ballast").unlink()
        for mxc in refused:
            assert (await stage.download(mxc)).refusal == REFUSED
        await shipped(stage)
        await kept_once(bucket, refused)
        assert not [*(seen / "outbox" / "drafts").iterdir()]


async def killed_again_and_again(
    stage: Scene, bucket: Analyst, kills: int, dice: random.Random
) -> tuple[dict[str, bytes], int]:
    """What was refused by processes that were killed meanwhile, and how many requests were cut off."""
    refused: dict[str, bytes] = {}
    cut = 0
    for _ in range(kills):
        await bucket.proxy.suffer(dice.choice([None, None, Fault.LATE, Fault.STALLED, Fault.DEAF]))
        await stage.until_ready()
        contents = [letter() * dice.choice([1, 1000, 15_000]) + EICAR for _ in range(8)]
        media = {stage.upload(content): content for content in contents}
        asked = {mxc: asyncio.create_task(stage.download(mxc)) for mxc in media}
        await asyncio.sleep(dice.random() * 0.4)
        await asyncio.to_thread(stage.product.process.kill)
        await asyncio.wait(asked.values())
        answered = [mxc for mxc, task in asked.items() if task.exception() is None]
        assert all(asked[mxc].result().refusal == REFUSED for mxc in answered)
        refused |= {mxc: media[mxc] for mxc in answered}
        cut += len(media) - len(answered)
        await stage.start()
    return refused, cut


async def survives(
    directory: Path, clamd: Clamd, bucket: Analyst, kills: int, seed: int
) -> tuple[dict[str, bytes], int]:
    """As `killed_again_and_again`, once everything is in the store, and was looked at."""
    began = time.time()
    async with scene(directory, address(clamd), quarantine=bucket.settings(directory)) as stage:
        mark = stage.new_secret()
        refused, cut = await killed_again_and_again(stage, bucket, kills, random.Random(seed))
        await bucket.proxy.suffer(None)
        await stage.until_ready()
        content = mark.encode() + EICAR
        refused[await refused_in_time(stage, content)] = content
        await shipped(stage, 60)
        await kept_once(bucket, refused)
        await bucket.samples()
        box = stage.product.state / "outbox"
        assert [path for path in box.rglob("*") if path.is_file()] == []
        plaintexts = [content[-200:-68].decode() for content in refused.values()]
        assert nowhere_on_disk(stage, [mark, *plaintexts[:20]], began)
        assert not [path for text in plaintexts[:20] for path in files_with(text.encode(), began)]
        return refused, cut


@pytest.mark.timeout(300)
async def test_a_process_that_is_killed_25_times_has_stored_all_that_it_refused(
    tmp_path: Path, clamd: Clamd, bucket: Analyst
) -> None:
    refused, cut = await survives(tmp_path, clamd, bucket, 25, seed=6)
    assert len(refused) > 20
    assert cut > 20


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_process_that_is_killed_200_times_has_stored_all_that_it_refused(
    tmp_path: Path, clamd: Clamd, bucket: Analyst
) -> None:
    refused, cut = await survives(tmp_path, clamd, bucket, 200, seed=7)
    assert len(refused) > 200
    assert cut > 200
