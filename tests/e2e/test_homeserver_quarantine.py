"""Infected media end up quarantined in a real Synapse, and are released again."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import sqlite3
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scanner.crypto.signing import Signer
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Kind, Signed, Statement, new_nonce
from scanner.stores.local import Local
from tests.documented import ROOT
from tests.e2e import samples
from tests.e2e.product import Product
from tests.e2e.scanner_api import ScannerApi
from tests.e2e.synapse import Synapse, User
from tests.fakes import encrypted_file

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]
NOT_CLEAN = (403, "MCS_MEDIA_NOT_CLEAN")
ANALYST = Signer(b"\5" * 32)
STORE = "e2e"


@pytest.fixture(scope="module")
def own_synapse() -> Iterator[Synapse]:
    """One that a test may stop."""
    with Synapse() as running:
        yield running


@pytest.fixture(scope="module")
def admin(own_synapse: Synapse) -> User:
    return asyncio.run(own_synapse.register("admin", admin=True))


@pytest.fixture
def token_file(tmp_path: Path, admin: User) -> Path:
    file = tmp_path / "admin-token"
    file.write_text(admin.token)
    return file


@pytest.fixture
def product(own_synapse: Synapse, tmp_path: Path, token_file: Path) -> Iterator[Product]:
    analyst = {"name": "ann", "role": "analyst", "public_key": b64encode(ANALYST.public_key).decode()}
    settings: dict[str, dict[str, Any]] = {
        "homeserver": {"admin_token_file": str(token_file)},
        "quarantine": {"name": STORE, "analysts": [analyst]},
    }
    (tmp_path / "product").mkdir()
    with Product(tmp_path / "product", own_synapse.url, settings) as running:
        yield running


@pytest.fixture
async def scanner(product: Product) -> AsyncIterator[ScannerApi]:
    async with aiohttp.ClientSession(product.url) as session:
        yield ScannerApi(session)


@pytest.fixture
async def alice(own_synapse: Synapse) -> User:
    return await own_synapse.register(f"alice-{secrets.token_hex(4)}")


class Media:
    """What the admin sees of media in Synapse."""

    def __init__(self, synapse: Synapse, admin: User) -> None:
        self._synapse, self._admin = synapse, admin

    async def quarantined_by(self, mxc: str) -> str | None:
        path = f"/_synapse/admin/v1/media/{mxc.removeprefix('mxc://')}"
        return str(by) if (by := (await self._ask("GET", path))["media_info"]["quarantined_by"]) else None

    async def protect(self, mxc: str) -> None:
        await self._ask("POST", f"/_synapse/admin/v1/media/protect/{mxc.rpartition('/')[2]}")

    async def _ask(self, method: str, path: str) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession(self._synapse.url, headers=self._admin.headers) as session,
            session.request(method, path) as answer,
        ):
            return dict(await answer.json())

    async def until(self, mxc: str, *, quarantined: bool) -> None:
        async with asyncio.timeout(30):
            while bool(await self.quarantined_by(mxc)) is not quarantined:  # noqa: ASYNC110 - it is Synapse's
                await asyncio.sleep(0.1)


@pytest.fixture
def media(own_synapse: Synapse, admin: User) -> Media:
    return Media(own_synapse, admin)


async def attached(synapse: Synapse, user: User, plaintext: bytes) -> tuple[str, dict[str, Any]]:
    """Where an encrypted attachment is, and the request for it."""
    ciphertext, file = encrypted_file(plaintext)
    mxc = await synapse.upload(user, ciphertext)
    return mxc, {"file": {**file, "url": mxc}}


async def release(product: Product, plaintext: bytes) -> None:
    """As an analyst does."""
    now, sha256 = int(time.time()), hashlib.sha256(plaintext).hexdigest()
    statement = Statement(Kind.RELEASE, sha256, STORE, "a test file", "ann", new_nonce(), now, now + 3600)
    await Actions(Local(product.state / "quarantine")).file(Signed.by(ANALYST, statement))


async def test_an_encrypted_eicar_is_quarantined_in_synapse_and_released_again(
    own_synapse: Synapse, product: Product, scanner: ScannerApi, alice: User, admin: User, media: Media
) -> None:
    mxc, request = await attached(own_synapse, alice, samples.eicar())
    assert (await scanner.download_encrypted(request, alice)).refusal == NOT_CLEAN
    await media.until(mxc, quarantined=True)
    assert await media.quarantined_by(mxc) == admin.user_id

    await release(product, samples.eicar())
    await media.until(mxc, quarantined=False)
    delivered = await scanner.download_encrypted(request, alice)

    assert delivered.status == 200
    for result in ("quarantined", "released"):
        assert product.metric("homeserver_quarantine_total", result=result) == 1
    assert admin.token not in product.output() + product.metrics()


async def test_plain_media_are_quarantined_and_nobody_else_gets_them_there(
    own_synapse: Synapse, scanner: ScannerApi, alice: User, media: Media
) -> None:
    mxc = await own_synapse.upload(alice, samples.infected_zip(), "application/zip")
    assert (await scanner.download(mxc, alice)).refusal == NOT_CLEAN
    await media.until(mxc, quarantined=True)
    path = f"/_matrix/client/v1/media/download/{mxc.removeprefix('mxc://')}"
    async with (
        aiohttp.ClientSession(own_synapse.url, headers=alice.headers) as session,
        session.get(path) as answer,
    ):
        assert answer.status == 404


async def test_a_homeserver_that_was_away_is_told_when_it_is_back_even_if_we_were_killed(
    own_synapse: Synapse,
    product: Product,
    scanner: ScannerApi,
    alice: User,
    admin: User,
    media: Media,
    token_file: Path,
) -> None:
    """Its admin API, at first: what refuses the token cannot be told. Then all of it, and then us."""
    await asyncio.to_thread(token_file.write_text, "syt_wrong")
    mxc, request = await attached(own_synapse, alice, samples.infected_zip())
    assert (await scanner.download_encrypted(request, alice)).refusal == NOT_CLEAN
    await told(product, "homeserver.admin_token_file")
    assert await media.quarantined_by(mxc) is None

    await asyncio.to_thread(own_synapse.stop)
    await asyncio.to_thread(token_file.write_text, admin.token)
    await told(product, "could not be reached")
    assert product.metric("homeserver_quarantine_pending") == 1
    assert "syt_wrong" not in product.output()
    product.process.kill()
    product.process.start()
    own_synapse.start()  # here: it ends with the thread that starts it

    await media.until(mxc, quarantined=True)
    await asyncio.to_thread(product.process.wait_until, lambda: product.answers("live"), 30)


async def test_what_was_refused_is_quarantined_although_we_were_killed_at_once(
    own_synapse: Synapse, product: Product, alice: User, media: Media
) -> None:
    """The refusal is all that went out: the wish was written down before it."""
    refused = []
    for number in range(5):
        mxc, request = await attached(own_synapse, alice, samples.eicar() + b"\n" * number)
        async with aiohttp.ClientSession(product.url) as session:
            answer = await ScannerApi(session).download_encrypted(request, alice)
            product.process.kill()
        assert answer.refusal == NOT_CLEAN
        refused.append(mxc)
        assert {*refused} <= {*await asyncio.to_thread(_listed, product)}
        product.process.start()
        await asyncio.to_thread(product.process.wait_until, lambda: product.answers("ready"), 60)
    for mxc in refused:
        await media.until(mxc, quarantined=True)


async def test_media_that_are_gone_or_protected_are_let_be(
    own_synapse: Synapse, product: Product, scanner: ScannerApi, alice: User, media: Media
) -> None:
    protected = await own_synapse.upload(alice, samples.infected_zip(), "application/zip")
    await media.protect(protected)
    assert (await scanner.download(protected, alice)).refusal == NOT_CLEAN
    await until_metric(product, "protected")
    assert await media.quarantined_by(protected) is None

    await asyncio.to_thread(product.stop)
    listed = product.state / "homeserver-quarantine.sqlite"
    await asyncio.to_thread(_list, listed, f"mxc://{own_synapse.server_name}/gone")
    product.process.start()
    await asyncio.to_thread(product.process.wait_until, lambda: product.answers("live"), 30)
    await until_metric(product, "gone")


async def test_the_docs_lead_from_a_media_id_to_rooms_and_users(own_synapse: Synapse, alice: User) -> None:
    plain = await own_synapse.upload(alice, samples.text(), "text/plain")
    sent = {"msgtype": "m.file", "body": "plan.pdf", "url": plain}
    room, event = await own_synapse.send(alice, "m.room.message", sent)
    encrypted = await own_synapse.upload(alice, samples.zeros())
    secret_room, secret_event = await own_synapse.send(
        alice, "m.room.encrypted", {"algorithm": "m.megolm.v1"}
    )

    uploader, where, guess, members = documented_queries()

    def ask(query: str, mxc: str, room: str = "") -> list[tuple[object, ...]]:
        filled = query.replace("SERVER", own_synapse.server_name).replace("MEDIA", mxc.rpartition("/")[2])
        return own_synapse.query(filled.replace("'ROOM'", f"'{room}'"))

    assert [row[0] for row in ask(uploader, plain)] == [alice.user_id]
    assert [row[:3] for row in ask(where, plain)] == [(room, alice.user_id, event)]
    assert ask(where, encrypted) == []
    assert [row[:2] for row in ask(guess, encrypted)] == [(secret_room, secret_event)]
    assert ask(members, plain, room) == [(alice.user_id,)]


def documented_queries() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)


def _list(file: Path, media: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        row = (media, "ab" * 32)
        connection.execute(
            "INSERT INTO media (name, sha256, quarantine, done, tried) VALUES (?, ?, 1, 0, 0)", row
        )


def _listed(product: Product) -> list[str]:
    with closing(sqlite3.connect(product.state / "homeserver-quarantine.sqlite")) as connection:
        return [media for (media,) in connection.execute("SELECT name FROM media")]


async def told(product: Product, problem: str) -> None:
    """Wait for a line of the log that says that it failed, and why."""
    await asyncio.to_thread(product.output, until=problem)


async def until_metric(product: Product, result: str) -> None:
    async with asyncio.timeout(30):
        while not product.metric("homeserver_quarantine_total", result=result):  # noqa: ASYNC110 - the product's
            await asyncio.sleep(0.1)
