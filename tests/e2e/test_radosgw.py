"""The bucket of an implementation that checks what moto believes: signatures, digests, policies."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from scanner.doctor.s3_policy import ANALYST, MAINTENANCE, SCANNER, bucket_policy, lifecycle
from scanner.errors import StoreError
from scanner.stores.s3 import S3, Bucket
from tests.cli.command import media_scanner_process
from tests.contracts.store import KEY, StoreContract
from tests.e2e.radosgw import Radosgw

pytestmark = [pytest.mark.long, pytest.mark.real, pytest.mark.timeout(900)]

ITS_MAINTENANCE, ITS_SCANNER, ITS_ANALYST = "soc", "scanner", "analyst"


@pytest.fixture(scope="module")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Radosgw]:
    """With the buckets' owner and an analyst, known as profiles, and a scanner, who is in the environment."""
    profiles = tmp_path_factory.mktemp("aws") / "credentials"
    with Radosgw() as server, pytest.MonkeyPatch.context() as patch:
        for user in (ITS_MAINTENANCE, ITS_ANALYST):
            lines = [f"{name.lower()} = {value}\n" for name, value in server.user(user).items()]
            with profiles.open("a") as file:
                file.writelines([f"[{user}]\n", *lines])
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
        for name, value in server.user(ITS_SCANNER).items():
            patch.setenv(name, value)
        yield server


@asynccontextmanager
async def owner(radosgw: Radosgw) -> AsyncIterator[Any]:
    """A client of the buckets' owner."""
    session = AioSession(profile=ITS_MAINTENANCE)
    async with session.create_client("s3", endpoint_url=radosgw.url, region_name="us-east-1") as client:
        yield client


async def new_bucket(radosgw: Radosgw, retention: float | None = None) -> Bucket:
    """Of the owner, under the policy and the rules that `doctor` prints."""
    bucket = Bucket(f"b{uuid.uuid4().hex}", "site/", radosgw.url, retention=retention)
    policy = json.dumps(bucket_policy(bucket))
    for arn, user in ((SCANNER, ITS_SCANNER), (ANALYST, ITS_ANALYST), (MAINTENANCE, ITS_MAINTENANCE)):
        policy = policy.replace(arn, f"arn:aws:iam:::user/{user}")
    async with owner(radosgw) as client:
        await client.create_bucket(Bucket=bucket.name, ObjectLockEnabledForBucket=retention is not None)
        await client.put_bucket_policy(Bucket=bucket.name, Policy=policy)
        await client.put_bucket_lifecycle_configuration(
            Bucket=bucket.name, LifecycleConfiguration=lifecycle(bucket)
        )
    return bucket


def examined(bucket: Bucket, directory: Path, *arguments: str) -> dict[str, str]:
    """Name and status of what `doctor s3` finds."""
    s3 = {"endpoint_url": bucket.endpoint_url, "bucket": bucket.name, "prefix": bucket.prefix}
    config = directory / "scanner.yaml"
    config.write_text(
        yaml.safe_dump({"quarantine": {"store": "s3", "s3": {**s3, "retention": bucket.retention}}})
    )
    environ = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    done = media_scanner_process("doctor", "s3", "--json", *arguments, "--config", config, **environ)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in done.stdout
    return {finding["name"]: finding["status"] for finding in json.loads(done.stdout)["findings"]}


def become(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", profile)


class TestRadosgw(StoreContract):
    @pytest.fixture
    async def store(self, radosgw: Radosgw, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3]:
        """As the owner, since the contract deletes."""
        become(monkeypatch, ITS_MAINTENANCE)
        async with S3(await new_bucket(radosgw)) as store:
            yield store


async def test_the_policy_that_is_printed_gives_the_scanner_what_it_needs_and_no_more(
    radosgw: Radosgw, tmp_path: Path
) -> None:
    bucket = await new_bucket(radosgw)
    found = examined(bucket, tmp_path, "--maintenance-profile", ITS_MAINTENANCE)
    assert found.pop("object lock") == "skipped"
    assert set(found.values()) == {"ok"}
    assert len(found) == 11
    async with S3(bucket) as scanner:
        assert [stored.key async for stored in scanner.listing("")] == []
        for name in ("v1/actions/none.json", "v1/nonces/none", "v1/audit/000000001.json"):
            assert await scanner.get(name) is None


async def test_a_lock_holds_and_conditional_puts_are_void_in_versioned_buckets(
    radosgw: Radosgw, tmp_path: Path
) -> None:
    """The release that Debian 12 has ignores If-None-Match there: what no documentation says."""
    found = examined(await new_bucket(radosgw, 3600.0), tmp_path, "--maintenance-profile", ITS_MAINTENANCE)
    assert found["object lock"] == found["legal hold"] == found["clean up"] == found["delete"] == "ok"
    assert found["conditional put"] == found["race"] == "failed"


async def test_what_an_analyst_holds_nobody_deletes_and_no_scanner_lets_go(
    radosgw: Radosgw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the printed policy, and whatever may bypass a retention."""
    bucket = await new_bucket(radosgw, 60.0)
    place = {"Bucket": bucket.name, "Key": bucket.prefix + KEY}
    async with S3(bucket) as scanner:
        assert await scanner.put(KEY, b"sealed")
        with monkeypatch.context() as patch:
            become(patch, ITS_ANALYST)
            async with S3(bucket) as analyst:
                assert await analyst.hold(KEY, True)
        with pytest.raises(StoreError, match="AccessDenied"):
            await scanner.hold(KEY, False)
    async with owner(radosgw) as client:
        version = (await client.head_object(**place))["VersionId"]
        with pytest.raises(ClientError, match="AccessDenied"):
            await client.delete_object(**place, VersionId=version, BypassGovernanceRetention=True)
        await client.put_object_legal_hold(**place, LegalHold={"Status": "OFF"})
        await client.delete_object(**place, VersionId=version, BypassGovernanceRetention=True)
