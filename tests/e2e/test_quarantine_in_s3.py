"""What is detected is in the quarantine, sealed, once, and nowhere else."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.bucket import CREDENTIALS, Analyst
from tests.e2e.machine import files_with
from tests.e2e.scene import REFUSED, Scene, letter, scene
from tests.e2e.test_faults_of_clamd import address
from tests.real_clamd import EICAR, Clamd

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

FILE_NAME = "salaries-of-all-employees.xls"


async def shipped(stage: Scene, within: float = 20.0) -> None:
    """Wait until nothing waits in the outbox."""
    await stage.until(lambda: stage.metric("quarantine_pending_objects") == 0, within)


def nowhere_on_disk(stage: Scene, secrets: Sequence[str], since: float) -> bool:
    """Whether none of them is in a file that was written since, the scanner's and clamd's among them.

    The tests' own scratch files aside: pytest keeps what they print.
    """
    found = [path for secret in secrets for path in files_with(secret.encode(), since)]
    return not [path for path in found if stage.product.state in path.parents or "clam" in str(path)]


async def test_samples_and_records_are_in_the_bucket_and_nothing_else_is_anywhere(
    tmp_path: Path, clamd: Clamd, bucket: Analyst
) -> None:
    began = time.time()
    async with scene(tmp_path, address(clamd), quarantine=bucket.settings(tmp_path)) as stage:
        await stage.until_ready()
        stage.secrets |= {FILE_NAME, *CREDENTIALS.values()}
        marks = [stage.new_secret() for _ in range(2)]
        plain, sealed = (mark.encode() + EICAR for mark in marks)
        mxc = stage.upload(plain)
        stage.library[FILE_NAME] = plain
        attachment = stage.upload_encrypted(sealed)

        assert (await stage.download(mxc, FILE_NAME)).refusal == REFUSED
        assert (await stage.download_encrypted(attachment)).refusal == REFUSED
        assert (await stage.scan(mxc)).content["clean"] is False
        await shipped(stage)

        assert sorted(await bucket.samples()) == sorted([plain, sealed])
        records = {record.media: record for record in await bucket.records()}
        assert records.keys() == {mxc, attachment["file"]["url"]}
        for media, content in ((mxc, plain), (attachment["file"]["url"], sealed)):
            record = records[media]
            assert record.sha256 == hashlib.sha256(content).hexdigest()
            assert record.sample in await bucket.names()
            assert record.encrypted is (content == sealed)
        everything = await bucket.everything()
        assert [secret for secret in stage.secrets if secret.encode() in everything] == []
        assert nowhere_on_disk(stage, marks, began)


async def test_two_replicas_store_once(tmp_path: Path, clamd: Clamd, bucket: Analyst) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    settings = bucket.settings(tmp_path, deliveries_retention=0)  # each replica has its own
    contents = [letter() + EICAR for _ in range(5)]
    async with (
        scene(tmp_path / "one", address(clamd), quarantine=settings) as one,
        scene(tmp_path / "other", address(clamd), quarantine=settings) as other,
    ):
        await asyncio.gather(one.until_ready(), other.until_ready())
        for content in contents:
            mxc = one.upload(content)
            other.library[mxc.rpartition("/")[2]] = content
            replies = await asyncio.gather(one.download(mxc), other.download(mxc))
            assert [reply.refusal for reply in replies] == [REFUSED] * 2
        await asyncio.gather(shipped(one), shipped(other))

        assert sorted(await bucket.samples()) == sorted(contents)
        assert len(await bucket.records()) == 5
        for result in ("stored", "existing"):
            assert sum(stage.metric("quarantine_writes_total", result=result) for stage in (one, other)) == 10


async def test_a_file_that_is_asked_for_again_and_again_fills_nothing(
    tmp_path: Path, clamd: Clamd, bucket: Analyst
) -> None:
    settings = bucket.settings(tmp_path, deliveries_retention=0)  # samples and records alone are counted
    async with scene(tmp_path, address(clamd), quarantine=settings) as stage:
        await stage.until_ready()
        mxc, attachment = stage.upload(EICAR), stage.upload_encrypted(letter() + EICAR)
        for at_once in (256, 256):
            asked = [stage.download(mxc) for _ in range(at_once // 2)]
            asked += [stage.download_encrypted(attachment) for _ in range(at_once // 2)]
            assert {reply.refusal for reply in await asyncio.gather(*asked)} == {REFUSED}
        await shipped(stage)
        assert (len(await bucket.samples()), len(await bucket.records())) == (2, 2)
        assert stage.metric("quarantine_writes_total", result="stored") == 4
        assert stage.metric("quarantine_writes_total", result="existing") == 0


async def test_a_verdict_from_before_there_was_a_quarantine_is_sealed_at_the_next_sight(
    tmp_path: Path, clamd: Clamd, bucket: Analyst
) -> None:
    content = letter() + EICAR
    before, after = tmp_path / "before", tmp_path / "after"
    for directory in (before, after):
        directory.mkdir()
    async with scene(before, address(clamd), quarantine={"store": "off"}) as stage:
        await stage.until_ready()
        assert (await stage.download(stage.upload(content))).refusal == REFUSED
        await asyncio.sleep(0.5)  # remembered verdicts are written behind the answers
    (before / "state").rename(after / "state")
    async with scene(after, address(clamd), quarantine=bucket.settings(tmp_path)) as stage:
        await stage.until_ready()
        mxc = stage.upload(content)
        assert (await stage.download(mxc)).refusal == REFUSED
        await shipped(stage)
        assert await bucket.samples() == [content]
        assert [record.media for record in await bucket.records()] == [mxc]
        assert (await stage.download(mxc)).refusal == REFUSED
        assert stage.metric("scans_total", verdict="infected") == 1


async def test_of_encrypted_rooms_hashes_alone_are_kept_where_that_is_asked_for(
    tmp_path: Path, clamd: Clamd, bucket: Analyst
) -> None:
    plain, sealed = letter() + EICAR, letter() + EICAR
    settings = bucket.settings(tmp_path, encrypted="hash_only")
    async with scene(tmp_path, address(clamd), quarantine=settings) as stage:
        await stage.until_ready()
        for _ in range(2):
            assert (await stage.download(stage.upload(plain))).refusal == REFUSED
            assert (await stage.download_encrypted(stage.upload_encrypted(sealed))).refusal == REFUSED
        await shipped(stage)
        assert await bucket.samples() == [plain]
        records = await bucket.records()
        assert {(record.encrypted, record.missing) for record in records} == {
            (False, None),
            (True, "hash_only"),
        }
        assert len(records) == 4
        assert stage.metric("scans_total", verdict="infected") == 2
