"""Two users of matrix-nio in an encrypted room, through nginx and the product: who gets what."""

from __future__ import annotations

import secrets
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.certificates import Authority
from tests.demo.outcome import Outcome
from tests.demo.people import HomeserverRefused, Person, plaintext
from tests.demo.shared_files import SharedFile, shared_files
from tests.e2e import samples
from tests.e2e.product import Product
from tests.e2e.reverse_proxy import ReverseProxy
from tests.e2e.scanner_api import ScannerApi
from tests.e2e.synapse import Synapse

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(180)]

NOT_CLEAN = (403, "MCS_MEDIA_NOT_CLEAN")


def harmless(title: str, *, encrypted: bool) -> SharedFile:
    """A file of the demo, anew, so that no other test has stored the same."""
    [file] = [file for file in shared_files() if file.title == title]
    return replace(file, encrypted=encrypted)


def infected(*, encrypted: bool) -> SharedFile:
    """EICAR behind a text, so that no other test has stored the same."""
    content = samples.text() + samples.eicar()
    return SharedFile("EICAR", "eicar.com", "text/plain", content, encrypted, withheld=True)


@pytest.fixture(scope="module")
def nginx(synapse: Synapse, product: Product) -> Iterator[ReverseProxy]:
    with tempfile.TemporaryDirectory(prefix="nginx-") as path:
        authority = Authority(Path(path))
        place = Path(path, "nginx")
        place.mkdir()
        Path(path).chmod(0o755)
        with ReverseProxy("nginx", place, authority, product.url, synapse.url) as running:
            yield running


@dataclass(frozen=True)
class People:
    """Alice and Bob in an encrypted room, and what Bob's client knows of a scanner: the same address."""

    alice: Person
    bob: Person
    room: str
    scanner: ScannerApi

    async def share(self, file: SharedFile) -> dict[str, Any]:
        """Alice sends it; the content of the event as Bob decrypts it."""
        return await self.bob.receive(self.room, await self.alice.share(self.room, file))

    async def through_the_scanner(self, content: Mapping[str, Any]) -> Outcome:
        """What Bob gets from the scanner API for an encrypted attachment."""
        reply = await self.scanner.download_encrypted({"file": content["file"]}, self.bob.user)
        if reply.status == 200:
            return Outcome(200, plaintext(content, reply.body))
        return Outcome(reply.status, reason=reply.content["reason"])


@pytest.fixture
async def people(synapse: Synapse, nginx: ReverseProxy, tmp_path: Path) -> AsyncIterator[People]:
    tls = ssl.create_default_context(cafile=str(nginx.authority.certificate))
    async with AsyncExitStack() as stack:
        alice, bob = [
            await stack.enter_async_context(_signed_in(synapse, nginx.url, tls, tmp_path / name))
            for name in ("alice", "bob")
        ]
        connector = aiohttp.TCPConnector(ssl=tls)
        session = await stack.enter_async_context(aiohttp.ClientSession(nginx.url, connector=connector))
        yield People(alice, bob, await alice.open_room(bob), ScannerApi(session))


@asynccontextmanager
async def _signed_in(synapse: Synapse, url: str, tls: ssl.SSLContext, store: Path) -> AsyncIterator[Person]:
    name, password = f"{store.name}-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    await synapse.register(name, password)
    async with Person(url, name, store, tls) as person:
        await person.login(password)
        yield person


@pytest.mark.parametrize("title", ["picture", "document"])
async def test_clean_files_arrive_plain(
    people: People, synapse: Synapse, product: Product, title: str
) -> None:
    file = harmless(title, encrypted=False)
    judged = product.metric("scans_total", source="upload", verdict="clean")

    content = await people.share(file)

    assert "file" not in content
    assert (await people.bob.download(content)) == Outcome(200, file.content)
    assert synapse.stores(file.content)
    assert product.metric("scans_total", source="upload", verdict="clean") == judged + 1


@pytest.mark.parametrize("title", ["picture", "document"])
async def test_clean_files_arrive_encrypted_and_nobody_on_the_way_but_the_scanner_sees_them(
    people: People, synapse: Synapse, product: Product, title: str
) -> None:
    """The homeserver's own route delivers ciphertext, the scanner API too, and judges what is in it."""
    file = harmless(title, encrypted=True)
    judged = product.metric("scans_total", source="upload", encrypted="false")

    content = await people.share(file)
    scan = await people.scanner.scan_encrypted({"file": content["file"]}, people.bob.user)

    assert (scan.status, scan.content["clean"]) == (200, True)
    assert await people.through_the_scanner(content) == Outcome(200, file.content)
    assert await people.bob.download(content) == Outcome(200, file.content)
    assert not synapse.stores(file.content)
    assert product.metric("scans_total", source="upload", encrypted="false") == judged + 1


async def test_plain_malware_is_refused_to_its_sender_and_never_lies_on_the_homeserver(
    people: People, synapse: Synapse, product: Product
) -> None:
    file = infected(encrypted=False)
    found = product.metric("detections_total", source="upload", encrypted="false")

    with pytest.raises(HomeserverRefused, match="403 M_FORBIDDEN"):
        await people.share(file)

    assert not synapse.stores(file.content)
    assert product.metric("detections_total", source="upload", encrypted="false") == found + 1


async def test_encrypted_malware_is_withheld_by_the_scanner_api_and_opaque_to_all_else(
    people: People, synapse: Synapse, product: Product
) -> None:
    """Only who has the key can judge it: see policy.opaque_downloads."""
    file = infected(encrypted=True)
    found = product.metric("detections_total", encrypted="true")

    content = await people.share(file)
    scan = await people.scanner.scan_encrypted({"file": content["file"]}, people.bob.user)
    withheld = await people.through_the_scanner(content)

    assert (scan.status, scan.content["clean"]) == (200, False)
    assert (withheld.status, withheld.reason) == NOT_CLEAN
    assert await people.bob.download(content) == Outcome(200, file.content)
    assert product.metric("detections_total", encrypted="true") == found + 2
    assert not synapse.stores(file.content)
