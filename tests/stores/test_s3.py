"""The store in S3: the contract on moto's server; what servers do wrong, on sockets of ours."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiobotocore.session import get_session
from botocore.exceptions import ClientError
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


async def test_what_is_held_nobody_deletes_for_good_until_it_is_let_go(endpoint: str) -> None:
    bucket = f"b{uuid.uuid4().hex}"
    async with get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1") as client:
        await client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        async with S3(Bucket(bucket, "site/", endpoint)) as store:
            await store.put(KEY, b"x")
            version = (await client.head_object(Bucket=bucket, Key=f"site/{KEY}"))["VersionId"]
            assert await store.hold(KEY, True)
            with pytest.raises(ClientError, match="AccessDenied"):
                await client.delete_object(Bucket=bucket, Key=f"site/{KEY}", VersionId=version)
            assert await store.hold(KEY, False)
            await client.delete_object(Bucket=bucket, Key=f"site/{KEY}", VersionId=version)
            with pytest.raises(StoreError, match="refuses"):
                await store.hold(KEY, True)


async def test_a_bucket_without_lock_holds_nothing_and_is_asked_nothing_more(store: S3) -> None:
    await store.put(KEY, b"x")
    assert not await store.hold(KEY, True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (head("403 Forbidden", [("Content-Length", "0")]), "refuses: 403"),
        (head("404 Not Found", [("Content-Length", "0")]), "refuses: 404"),
        (SILENCE, "in time"),
    ],
)
async def test_whether_a_bucket_can_hold_is_not_guessed(answer: bytes | None, said: str) -> None:
    async with saying(answer) as url, S3(Bucket("b", "", url), deadline=0.5) as store:
        with pytest.raises(StoreError, match=said):
            await store.hold(KEY, True)


@pytest.mark.parametrize(
    "answer",
    [
        head("501 Not Implemented", [("Content-Length", "0")]),
        head("200 OK", [("Content-Length", "23")]) + b"<ListBucketResult/>    ",
    ],
)
async def test_a_server_that_knows_no_locks_holds_nothing(answer: bytes) -> None:
    """And is not sent what it would take for the object's new content."""
    async with saying(answer) as url, S3(Bucket("b", "", url), deadline=2) as store:
        assert not await store.hold(KEY, True)


HELD_LOCK = (
    b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"
)


@asynccontextmanager
async def listening(answers: Mapping[bytes, bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """The URL of a server that gives the answer whose key stands in a request's head, and the heads."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        body = next((said for key, said in answers.items() if key in heads[-1]), b"")
        fields = [("Content-Length", str(len(body))), ("ETag", '"x"'), ("Connection", "close")]
        writer.write(CONTINUE + head("200 OK", fields) + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


async def test_a_hold_brings_its_checksum() -> None:
    async with listening({b"?object-lock": HELD_LOCK}) as (url, heads), S3(Bucket("b", "", url)) as store:
        assert await store.hold(KEY, True)
    assert b"?legal-hold" in heads[1]
    assert b"content-md5: " in heads[1].lower()


def profile(file: Path, key: str) -> None:
    file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {uuid.uuid4().hex}\n")


def tear(file: Path, content: bytes | None) -> None:
    file.unlink()
    if content is not None:
        file.write_bytes(content)


@pytest.fixture
def credentials_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path / "credentials"


async def test_credentials_in_a_file_are_read_again_when_it_changes(credentials_file: Path) -> None:
    profile(credentials_file, "FIRST")
    async with listening({}) as (url, heads), S3(Bucket("b", "", url)) as store:
        await store.put(KEY, b"x")
        profile(credentials_file, "SECOND")
        await store.put(KEY, b"x")
    assert [b"Credential=FIRST/" in heads[0], b"Credential=SECOND/" in heads[1]] == [True, True]


@pytest.mark.parametrize("torn", [b"", b"[defau", b"[default]\naws_access_key_id = SECOND\n", b"\xff", None])
async def test_while_somebody_writes_the_file_what_it_held_before_counts(
    credentials_file: Path, torn: bytes | None
) -> None:
    profile(credentials_file, "FIRST")
    async with listening({}) as (url, heads), S3(Bucket("b", "", url)) as store:
        tear(credentials_file, torn)
        await store.put(KEY, b"x")
        profile(credentials_file, "SECOND")
        await store.put(KEY, b"x")
    assert [b"Credential=FIRST/" in heads[0], b"Credential=SECOND/" in heads[1]] == [True, True]


async def test_a_file_that_comes_later_is_found(credentials_file: Path) -> None:
    async with listening({}) as (url, heads), S3(Bucket("b", "", url)) as store:
        with pytest.raises(StoreError, match="no credentials"):
            await store.put(KEY, b"x")
        profile(credentials_file, "FIRST")
        await store.put(KEY, b"x")
    assert b"Credential=FIRST/" in heads[0]


async def test_a_store_that_is_not_there_is_a_store_error() -> None:
    async with S3(Bucket("b", "", "http://127.0.0.1:9")) as store:
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.get(KEY)


# -- servers that lie ----------------------------------------------------------------------------


def listed(*entries: str, more: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    """A page of a listing."""
    return f"<ListBucketResult>{''.join(entries)}{more}</ListBucketResult>".encode()


def entry(key: str, size: str = "1", modified: str = "2026-11-21T12:00:00Z") -> str:
    return f"<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><Size>{size}</Size></Contents>"


def page(body: bytes) -> bytes:
    return head("200 OK", [("Content-Length", str(len(body))), ("Connection", "close")]) + body


async def keys_listed(answer: bytes) -> list[str]:
    async with saying(answer) as url, S3(Bucket("b", "", url), deadline=2) as store:
        return [stored.key async for stored in store.listing("v1/audit/")]


async def test_a_page_of_names_is_understood() -> None:
    assert await keys_listed(page(listed(entry("v1/audit/1.json")))) == ["v1/audit/1.json"]


@pytest.mark.parametrize(
    "body",
    [
        listed("<Contents><Key>v1/audit/1</Key></Contents>"),
        listed(entry("v1/audit/1", size="many")),
        listed(entry("v1/audit/1", modified="yesterday")),
        listed(entry("v1/audit/1", modified="9" * 20)),
        listed(more="<IsTruncated>true</IsTruncated>"),
        listed(entry("v1/objects/1")),
        b"<html>",
    ],
)
async def test_a_listing_that_is_none_is_a_store_error(body: bytes) -> None:
    with pytest.raises(StoreError):
        await keys_listed(page(body))


async def test_a_listing_that_goes_round_in_circles_ends() -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>"
    async with asyncio.timeout(5):
        with pytest.raises(StoreError, match="round"):
            await keys_listed(page(listed(entry("v1/audit/1.json"), more=more)))


async def got(answer: bytes, largest: int | None = None) -> bytes | None:
    async with saying(answer) as url, S3(Bucket("b", "", url), deadline=2) as store:
        return await store.get(KEY, largest)


CHUNKED = head("200 OK", [("Transfer-Encoding", "chunked"), ("ETag", '"x"')])
UNTIL_THE_END = head("200 OK", [("Connection", "close"), ("ETag", '"x"')])


@pytest.mark.parametrize("answer", [CHUNKED + b"4\r\nabcd\r\n0\r\n\r\n", UNTIL_THE_END + b"abcd"])
async def test_an_answer_that_does_not_say_how_long_it_is_is_read_as_far_as_it_may_be(answer: bytes) -> None:
    assert await got(answer) == b"abcd"
    assert await got(answer, 4) == b"abcd"
    assert await got(answer, 3) == b""


async def test_what_a_server_calls_its_refusal_stays_short() -> None:
    body = f"<Error><Code>{'x' * 10_000}</Code></Error>".encode()
    with pytest.raises(StoreError) as caught:
        await got(head("403 Forbidden", [("Content-Length", str(len(body)))]) + body)
    assert len(caught.value.info) < 200
