"""Where a quarantine is: as configured, or as the command line says; a bucket on a real S3 server."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from aiobotocore.session import get_session
from moto.server import ThreadedMotoServer

from scanner.stores.local import Local
from scanner.stores.s3 import S3, Bucket
from tests.cli.command import media_scanner, media_scanner_process, refused
from tests.cli.desk import Desk
from tests.quarantine.stock import digest, put_record, put_sample

SHA256 = digest(b"sample")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "analyst",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


async def stock(store: Local | S3) -> None:
    await put_sample(store, b"sample")
    await put_record(store)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its name; what is in it lies below site/."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return asyncio.run(new_bucket(endpoint))


async def new_bucket(endpoint: str, *, lock: bool = False) -> str:
    name = f"b{uuid.uuid4().hex}"
    async with get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1") as client:
        await client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
    async with S3(Bucket(name, "site/", endpoint)) as store:
        await stock(store)
    return name


async def legal_holds(endpoint: str, bucket: str) -> set[str]:
    """What S3 says of the samples in it."""
    async with get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1") as client:
        listed = await client.list_objects_v2(Bucket=bucket, Prefix="site/v1/objects/")
        return {
            (await client.head_object(Bucket=bucket, Key=entry["Key"])).get("ObjectLockLegalHoldStatus")
            for entry in listed["Contents"]
        }


@pytest.mark.slow
def test_credentials_and_a_bucket_are_all_that_a_workstation_needs(
    bucket: str, endpoint: str, tmp_path: Path
) -> None:
    place = ("--bucket", bucket, "--endpoint-url", endpoint, "--prefix", "site/")
    done = media_scanner_process("quarantine", "list", "--json", *place, **CREDENTIALS)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["sha256"] == SHA256


@pytest.mark.slow
def test_every_command_works_on_a_bucket(bucket: str, endpoint: str, desk: Desk, tmp_path: Path) -> None:
    place = ("--bucket", bucket, "--endpoint-url", endpoint, "--prefix", "site/")
    target = tmp_path / "out.zip"
    for words, code in (
        (("verify", "--key-file", desk.soc), 0),
        (("show", SHA256), 0),
        (("stats",), 0),
        (("export", SHA256, "--to", target, "--key-file", desk.soc), 0),
        (("hold", SHA256, "--reason", "x"), 0),
        (("delete", SHA256, "--reason", "x", "--yes"), 2),
        (("hold", SHA256, "--reason", "x", "--end"), 0),
        (("delete", SHA256, "--reason", "x", "--yes"), 0),
        (("show", SHA256), 0),
        (("purge", "--older-than", "2030-01-01", "--yes"), 0),
        (("list",), 1),
    ):
        done = media_scanner("quarantine", *words, *place)
        assert done.returncode == code, (words, done)
    assert target.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("bucket")
def test_what_is_held_has_a_legal_hold_where_the_bucket_has_object_lock(endpoint: str) -> None:
    bucket = asyncio.run(new_bucket(endpoint, lock=True))
    place = ("--reason", "x", "--bucket", bucket, "--endpoint-url", endpoint, "--prefix", "site/", "--json")
    for words, expected, status in (
        ((), {"held": True, "legal_hold": True}, "ON"),
        (("--end",), {"held": False, "legal_hold": False}, "OFF"),
    ):
        done = media_scanner("quarantine", "hold", SHA256, *words, *place)
        assert json.loads(done.stdout) == {"sha256": SHA256, "waits_for_approval": None, **expected}
        assert asyncio.run(legal_holds(endpoint, bucket)) == {status}


@pytest.mark.slow
def test_a_hold_says_where_the_bucket_itself_keeps_nothing(bucket: str, endpoint: str) -> None:
    place = ("--bucket", bucket, "--endpoint-url", endpoint, "--prefix", "site/")
    done = media_scanner("quarantine", "hold", SHA256, "--reason", "x", *place)
    assert (done.returncode, done.stdout) == (0, f"{SHA256}: held\n")
    assert "no Object Lock" in done.stderr


@pytest.mark.slow
def test_the_configuration_says_where_the_bucket_is(bucket: str, endpoint: str, tmp_path: Path) -> None:
    """The machine has neither state_dir nor clamd."""
    file = tmp_path / "scanner.yaml"
    s3 = {"endpoint_url": endpoint, "bucket": bucket, "prefix": "site/"}
    file.write_text(yaml.safe_dump({"state_dir": "/nonexistent", "quarantine": {"store": "s3", "s3": s3}}))
    done = media_scanner("quarantine", "list", "--json", "--config", file)
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "kept")


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_one_line(endpoint: str, bucket: str) -> None:
    done = media_scanner("quarantine", "list", "--bucket", "no-such-bucket", "--endpoint-url", endpoint)
    assert refused(done) == "v1/objects/: the store refuses: NoSuchBucket"


def test_the_configuration_says_where_the_directory_is(tmp_path: Path) -> None:
    asyncio.run(stock(Local(tmp_path / "quarantine")))
    file = tmp_path / "scanner.yaml"
    file.write_text(yaml.safe_dump({"state_dir": str(tmp_path)}))
    assert media_scanner("quarantine", "list", "--config", file).returncode == 0
    done = media_scanner("quarantine", "list", MEDIA_SCANNER__STATE_DIR=str(tmp_path))
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--store", "/nonexistent"), "--store: /nonexistent: is not there, or not open to this user"),
        (("--store", "/tmp", "--bucket", "b"), "only one of them"),
        (("--prefix", "site/"), "go with --bucket"),
        (("--store", "/tmp", "--endpoint-url", "http://127.0.0.1:1"), "go with --bucket"),
        (("--bucket", "b", "--endpoint-url", "nowhere"), "must be a URL"),
        (("--config", "/nonexistent"), "No such file"),
    ],
)
def test_a_place_that_is_none_is_refused(options: tuple[str, ...], said: str) -> None:
    assert said in refused(media_scanner("quarantine", "list", *options))


def test_a_state_dir_that_is_not_there_does_not_pass_for_an_empty_quarantine() -> None:
    done = media_scanner("quarantine", "list", MEDIA_SCANNER__STATE_DIR="/nonexistent")
    assert refused(done) == "state_dir: /nonexistent: is not there, or not open to this user"


def test_the_systems_configuration_counts_where_no_place_is_named(tmp_path: Path, system_file: Path) -> None:
    asyncio.run(stock(Local(tmp_path / "quarantine")))
    system_file.parent.mkdir()
    system_file.write_text(yaml.safe_dump({"state_dir": str(tmp_path)}))
    assert media_scanner("quarantine", "list").returncode == 0
    (tmp_path / "empty").mkdir()
    assert media_scanner("quarantine", "list", "--store", tmp_path / "empty").returncode == 1


def test_a_quarantine_that_is_off_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scanner.yaml"
    file.write_text("quarantine: {store: off}")
    assert refused(media_scanner("quarantine", "list", "--config", file)).endswith("nothing is kept")


def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    place = ("--bucket", "b", "--endpoint-url", "http://127.0.0.1:9")
    assert "cannot be reached" in refused(media_scanner("quarantine", "list", *place))
