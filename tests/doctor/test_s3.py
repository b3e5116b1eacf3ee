"""What `doctor s3` sees of good and bad servers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiobotocore.session import get_session
from aiohttp import web
from moto.server import ThreadedMotoServer

from scanner.doctor.finding import Notes, Status
from scanner.doctor.s3 import examine
from scanner.stores.s3 import Bucket
from tests.doctor.found import named, not_ok
from tests.fake_homeserver import head
from tests.stores.test_s3 import SILENCE, saying

pytestmark = pytest.mark.slow

SECRET = uuid.uuid4().hex
Handler = Callable[[web.Request], Awaitable[web.Response]]


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The scanner's in the environment, those of who maintains the bucket as a profile."""
    profiles = tmp_path / "credentials"
    profiles.write_text("[soc]\naws_access_key_id = soc\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "scanner")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


async def examined(bucket: Bucket, maintenance: str | None = None) -> Notes:
    notes = Notes()
    await examine(notes, bucket, maintenance)
    assert SECRET not in repr(notes)
    assert all(finding.advice for finding in notes.findings if finding.status in ("failed", "warning"))
    return notes


async def new_bucket(url: str, *, lock: bool = False) -> str:
    name = f"b{uuid.uuid4().hex}"
    async with get_session().create_client("s3", endpoint_url=url, region_name="us-east-1") as client:
        await client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock)
    return name


async def left(url: str, bucket: str) -> int:
    async with get_session().create_client("s3", endpoint_url=url, region_name="us-east-1") as client:
        found = await client.list_object_versions(Bucket=bucket)
    return len(found.get("Versions", [])) + len(found.get("DeleteMarkers", []))


async def test_moto_keeps_what_is_put_and_lets_everybody_in(moto: str) -> None:
    """As facts/operations.md has it: it believes every signature and knows no rights."""
    name = await new_bucket(moto)
    notes = await examined(Bucket(name, "", moto, encryption="AES256"), "soc")
    assert not_ok(notes) == {
        "checksum": Status.WARNING,
        "samples": Status.WARNING,
        "wrong secret": Status.FAILED,
        "anonymous": Status.FAILED,
        "delete": Status.FAILED,
        "object lock": Status.SKIPPED,
    }
    assert await left(moto, name) == 0


async def test_a_lock_is_seen_to_hold_and_nothing_is_left(moto: str) -> None:
    name = await new_bucket(moto, lock=True)
    notes = await examined(Bucket(name, "", moto, retention=90 * 86400.0), "soc")
    assert named(notes, "object lock").found == "what is locked is not deleted"
    assert named(notes, "legal hold").found == "what is held is not deleted"
    assert named(notes, "clean up").status is Status.OK
    assert await left(moto, name) == 0


async def test_without_the_maintenance_credential_it_says_what_stays(moto: str) -> None:
    name = await new_bucket(moto)
    notes = await examined(Bucket(name, "site/", moto))
    assert "site/doctor/" in named(notes, "clean up").found
    assert named(notes, "samples").status is Status.SKIPPED
    assert await left(moto, name) > 0


async def test_retention_without_a_lock_cannot_be_written(moto: str) -> None:
    notes = await examined(Bucket(await new_bucket(moto), "", moto, retention=3600.0))
    assert not_ok(notes) == {"write": Status.FAILED}
    assert "retention" in named(notes, "write").advice


async def test_a_bucket_that_is_not_there_is_said_with_its_key(moto: str) -> None:
    notes = await examined(Bucket("absent-bucket", "", moto))
    assert not_ok(notes) == {"write": Status.FAILED}
    assert "quarantine.s3.bucket" in named(notes, "write").advice


@asynccontextmanager
async def liar() -> AsyncIterator[str]:
    """The URL of a server that says yes to everybody, and hands out something else than it was given."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=b"?" if request.method == "GET" else b"", headers={"ETag": '"x"'})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_server_that_says_yes_to_everything_is_seen_through() -> None:
    async with liar() as url:
        notes = await examined(Bucket("b", "", url, encryption="AES256"))
    failed = [name for name, status in not_ok(notes).items() if status is Status.FAILED]
    assert failed == [
        "encryption",
        "read back",
        "conditional put",
        "race",
        "wrong secret",
        "anonymous",
        "delete",
    ]
    assert named(notes, "checksum").status is Status.WARNING


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("AccessDenied", "--print-policy"),
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("RequestTimeTooSkewed", "NTP"),
        ("AuthorizationHeaderMalformed", "quarantine.s3.region"),
        ("SlowDown", "log"),
    ],
)
async def test_each_refusal_has_the_one_thing_to_do(code: str, advice: str) -> None:
    body = f"<Error><Code>{code}</Code><Message/></Error>".encode()
    refusal = head("400 Bad Request", [("Content-Length", str(len(body))), ("Connection", "close")]) + body
    async with saying(refusal) as url:
        notes = await examined(Bucket("b", "", url))
    assert code in named(notes, "write").found
    assert advice in named(notes, "write").advice


async def test_a_server_that_is_silent_or_not_there_is_said_in_time() -> None:
    async with saying(SILENCE) as url:
        notes = await examined(Bucket("b", "", url))
    assert named(notes, "answers").found == "the store did not answer in time"
    notes = await examined(Bucket("b", "", "http://127.0.0.1:9"))
    assert "cannot be reached" in named(notes, "answers").found


async def test_missing_credentials_and_profiles_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = await examined(Bucket("b", "", "http://127.0.0.1:9"), "absent")
    assert "absent" in named(notes, "configuration").found
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    notes = await examined(Bucket("b", "", "http://127.0.0.1:9"))
    assert "no credentials" in named(notes, "answers").found


async def test_plain_http_to_another_machine_is_a_warning() -> None:
    notes = await examined(Bucket("b", "", "http://s3.invalid"))
    assert named(notes, "transport").status is Status.WARNING
