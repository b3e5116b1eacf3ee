"""The store in S3: the contract on moto's server; what servers do wrong, on sockets of ours."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiobotocore.session import get_session
from moto.server import ThreadedMotoServer

from scanner.errors import ConfigError, StoreError
from scanner.stores.s3 import S3, Bucket
from tests.contracts.store import KEY, StoreContract
from tests.fake_homeserver import head

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "scanner")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
async def store(endpoint: str) -> AsyncIterator[S3]:
    bucket = f"b{uuid.uuid4().hex}"
    async with get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1") as client:
        await client.create_bucket(Bucket=bucket)
    async with S3(Bucket(bucket, "site/", endpoint, encryption="AES256")) as store:
        yield store


class TestS3(StoreContract):
    pass


async def test_more_than_one_page_is_listed(store: S3) -> None:
    for number in range(1005):
        await store.put(f"v1/audit/{number:06}.json", b"")
    assert len([stored async for stored in store.listing("v1/audit")]) == 1005


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SILENCE = None


@asynccontextmanager
async def saying(*steps: bytes | None) -> AsyncIterator[str]:
    """The URL of a server that says this to each request's head, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            for step in steps:
                if step is SILENCE:
                    await asyncio.sleep(5)
                else:
                    writer.write(step)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((SILENCE,), "did not answer in time"),
        ((CONTINUE, SILENCE), "did not answer in time"),
        ((), "cannot be reached"),
        ((CONTINUE,), "cannot be reached"),
        ((CONTINUE, b"?\r\n\r\n"), "cannot be reached"),
        ((CONTINUE, head("403 Forbidden", [("Content-Length", "0")])), "refuses"),
        (
            (CONTINUE, head("200 OK", [("Content-Length", "0"), ("ETag", '"x"')])),
            "does not say that it encrypts",
        ),
        ((CONTINUE, head("200 OK", [("Content-Length", "0")])), "is it S3"),
        ((CONTINUE, head("404 Not Found", [("Content-Length", "0")])), "refuses: 404"),
        ((CONTINUE, head("409 Conflict", [("Content-Length", "0")])), "did not answer in time"),
    ],
)
@pytest.mark.parametrize("size", [1, 3_000_000])
async def test_a_store_that_fails_is_a_store_error_in_time(
    steps: tuple[bytes | None, ...], said: str, size: int
) -> None:
    async with saying(*steps) as url, S3(Bucket("b", "", url, encryption="AES256"), deadline=0.5) as store:
        with pytest.raises(StoreError, match=said):
            await store.put(KEY, bytes(size))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((head("200 OK", [("Content-Length", "9"), ("ETag", '"x"')]), b"torn"), "cannot be reached"),
        ((head("200 OK", [("Content-Length", "9"), ("ETag", '"x"')]), b"torn", SILENCE), "in time"),
        ((head("412 Precondition Failed", [("Content-Length", "0")]),), "refuses: 412"),
    ],
)
async def test_what_is_not_got_whole_is_a_store_error(steps: tuple[bytes | None, ...], said: str) -> None:
    async with saying(*steps) as url, S3(Bucket("b", "", url), deadline=0.5) as store:
        with pytest.raises(StoreError, match=said):
            await store.get(KEY)


@pytest.mark.parametrize("status", ["404 Not Found", "412 Precondition Failed"])
async def test_listing_and_deleting_know_one_error_alone(status: str) -> None:
    answer = head(status, [("Content-Length", "0")])
    async with saying(answer) as url, S3(Bucket("b", "", url), deadline=0.5) as store:
        with pytest.raises(StoreError):
            [stored async for stored in store.listing("v1")]
        with pytest.raises(StoreError):
            await store.delete(KEY)


async def test_who_meets_another_writer_asks_again_whether_it_is_there(tmp_path: Path) -> None:
    """409 says that somebody else is at it, and not that he will succeed."""
    conflict = head("409 Conflict", [("Content-Length", "0"), ("Connection", "close")])
    stored = head("200 OK", [("Content-Length", "0"), ("ETag", '"x"'), ("Connection", "close")])
    answers = [conflict, conflict, stored]
    bodies = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = (await reader.readuntil(b"\r\n\r\n")).lower()
        writer.write(CONTINUE)
        length = int(heard.split(b"content-length: ")[1].split(b"\r\n")[0])
        bodies.append(await reader.readexactly(length))
        writer.write(answers.pop(0))
        writer.close()

    file = tmp_path / "file"
    file.write_bytes(b"sealed")
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, S3(Bucket("b", "", url), deadline=5) as store:
        assert await store.put(KEY, file)
    assert bodies == [b"sealed"] * 3


async def test_a_file_that_cannot_be_read_is_a_store_error(store: S3, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        await store.put(KEY, tmp_path / "absent")


async def test_without_credentials_the_start_does_not_wait_and_every_put_says_so(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://10.255.255.1/")  # nobody answers there
    began = time.monotonic()
    async with S3(Bucket("b", "", endpoint)) as store:
        assert time.monotonic() - began < 1
        with pytest.raises(StoreError, match="no credentials"):
            await store.put(KEY, b"x")


async def test_a_profile_that_is_not_there_is_a_fault_of_the_configuration(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(ConfigError, match="absent"):
        async with S3(Bucket("b", "", endpoint)):
            pass


async def test_what_is_put_is_locked_where_that_is_asked_for(endpoint: str) -> None:
    bucket = f"b{uuid.uuid4().hex}"
    async with get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1") as client:
        await client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        async with S3(Bucket(bucket, "", endpoint, retention=3600)) as store:
            assert await store.put(KEY, b"x")
        stored = await client.head_object(Bucket=bucket, Key=KEY)
        assert stored["ObjectLockMode"] == "GOVERNANCE"
        assert 3500 < stored["ObjectLockRetainUntilDate"].timestamp() - time.time() < 3700


async def test_a_store_that_is_not_there_is_a_store_error() -> None:
    async with S3(Bucket("b", "", "http://127.0.0.1:9")) as store:
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.get(KEY)
