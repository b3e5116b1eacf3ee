"""Encrypted attachments over routes that carry no key, with a real homeserver and a real clamd."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import aiohttp
import pytest
import yaml
from nio.crypto.attachments import decrypt_attachment, encrypt_attachment

from tests.archives import sevenzip_of
from tests.e2e import samples
from tests.e2e.product import Product
from tests.e2e.scanner_api import ScannerApi
from tests.e2e.synapse import Synapse, User
from tests.e2e.test_homeserver_media import FORBIDDEN, Reader
from tests.e2e.test_uploads import Uploader, uploader

__all__ = ["uploader"]
pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

NOT_CLEAN = (403, "MCS_MEDIA_NOT_CLEAN")
ARCHIVE = sevenzip_of({"a": b"text"})  # it may begin anywhere: 7-Zip searches for it


class Strict:
    """A product whose policy can be changed under way."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.reader, self.uploader = Reader(product.url), Uploader(product.url)

    def reload(self, **policy: Any) -> None:
        """From now on this is the whole policy."""
        tree = yaml.safe_load(self.product.configuration.read_text())
        tree["policy"] = policy
        self.product.configuration.write_text(yaml.safe_dump(tree))
        told = self.product.output().count("Configuration reloaded")
        os.kill(self.product.process.pid, signal.SIGHUP)
        self.product.process.wait_until(
            lambda: self.product.output().count("Configuration reloaded") > told, 10
        )


@pytest.fixture(scope="module")
def strict(synapse: Synapse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    with Product(tmp_path_factory.mktemp("strict"), synapse.url) as running:
        yield Strict(running)


@pytest.fixture
def reader(product: Product) -> Reader:
    return Reader(product.url)


@pytest.fixture
async def strict_api(strict: Strict) -> AsyncIterator[ScannerApi]:
    async with aiohttp.ClientSession(strict.product.url) as session:
        yield ScannerApi(session)


def attachment(info: Mapping[str, Any], mxc: str) -> dict[str, Any]:
    """What a client sends to the scanner API."""
    return {"file": {**info, "v": "v2", "url": mxc}}


@pytest.mark.parametrize("sample", [samples.text, samples.png, samples.zeros])
async def test_ciphertext_goes_up_and_comes_down_unchanged_and_is_counted(
    product: Product,
    uploader: Uploader,
    reader: Reader,
    alice: User,
    bob: User,
    sample: Callable[[], bytes],
) -> None:
    plaintext = sample()
    ciphertext, info = encrypt_attachment(plaintext)
    before = {source: opaque(product, source) for source in ("upload", "download")}

    uploaded = await uploader.upload(alice, ciphertext, Content_Type="application/octet-stream")
    downloaded = await reader.download(uploaded.content["content_uri"], bob)

    assert (downloaded.status, downloaded.body) == (200, ciphertext)
    key, sha256 = info["key"]["k"], info["hashes"]["sha256"]
    assert decrypt_attachment(downloaded.body, key, sha256, info["iv"]) == plaintext
    assert opaque(product, "upload") == before["upload"] + 1
    assert opaque(product, "download") == before["download"]  # known since the upload


@pytest.mark.parametrize("first", ["these routes", "the scanner API"])
async def test_an_infected_attachment_is_found_by_the_scanner_api_whoever_asked_first(
    product: Product, uploader: Uploader, reader: Reader, scanner: ScannerApi, alice: User, first: str
) -> None:
    ciphertext, info = encrypt_attachment(samples.infected_zip())
    uploaded = await uploader.upload(alice, ciphertext)
    mxc = uploaded.content["content_uri"]

    for way in (first, "the scanner API", "these routes") * 2:
        if way == "these routes":
            assert (await reader.download(mxc, alice)).body == ciphertext
        else:
            body = attachment(info, mxc)
            assert (await scanner.download_encrypted(body, alice)).refusal == NOT_CLEAN
            assert not (await scanner.scan_encrypted(body, alice)).content["clean"]


async def test_ciphertext_that_is_asked_as_if_it_were_plain_is_judged_again(
    product: Product, synapse: Synapse, reader: Reader, scanner: ScannerApi, alice: User
) -> None:
    ciphertext, _ = encrypt_attachment(samples.eicar().ljust(5000))
    mxc = await synapse.upload(alice, ciphertext)
    assert (await reader.download(mxc, alice)).status == 200
    clean = product.metric("scans_total", source="download", verdict="clean")

    assert (await scanner.download(mxc, alice)).status == 200

    assert product.metric("scans_total", source="download", verdict="clean") == clean + 1


async def test_what_withholds_opaque_media_makes_clients_ask_with_the_key(
    strict: Strict, synapse: Synapse, strict_api: ScannerApi, alice: User
) -> None:
    strict.reload(opaque_downloads="withhold", opaque_uploads="withhold")
    plaintext = samples.png()
    ciphertext, info = encrypt_attachment(plaintext)
    mxc = await synapse.upload(alice, ciphertext)

    # The scanner API first: that it called these very bytes clean, as a plaintext, is no way around.
    assert (await strict_api.download(mxc, alice)).status == 200
    refused = await strict.reader.download(mxc, alice)
    upload = await strict.uploader.upload(alice, ciphertext)

    assert refused.matrix_error == upload.matrix_error == FORBIDDEN
    assert "key" in refused.content["error"]
    assert (await strict_api.download_encrypted(attachment(info, mxc), alice)).body == ciphertext
    picture = await strict.uploader.upload(alice, plaintext, Content_Type="image/png")
    assert (await strict.reader.download(picture.content["content_uri"], alice)).body == plaintext


async def test_each_direction_has_its_own_policy_and_a_reload_changes_it(strict: Strict, alice: User) -> None:
    strict.reload(opaque_downloads="withhold", opaque_uploads="deliver")
    ciphertext, _ = encrypt_attachment(samples.text())
    uploaded = await strict.uploader.upload(alice, ciphertext)
    mxc = uploaded.content["content_uri"]
    assert (await strict.reader.download(mxc, alice)).matrix_error == FORBIDDEN

    strict.reload(opaque_downloads="deliver", opaque_uploads="withhold")

    assert (await strict.reader.download(mxc, alice)).body == ciphertext
    assert (await strict.uploader.upload(alice, ciphertext)).matrix_error == FORBIDDEN


async def test_only_a_list_that_blocks_data_forbids_ciphertext(
    strict: Strict, synapse: Synapse, alice: User
) -> None:
    ciphertext, _ = encrypt_attachment(samples.png())
    encrypted, text = await synapse.upload(alice, ciphertext), await synapse.upload(alice, samples.text())

    strict.reload(allowed_types=["image/*"])
    assert (await strict.reader.download(encrypted, alice)).body == ciphertext
    assert (await strict.reader.download(text, alice)).matrix_error == FORBIDDEN

    strict.reload(blocked_types=["application/octet-stream"])
    assert (await strict.reader.download(encrypted, alice)).matrix_error == FORBIDDEN
    assert (await strict.reader.download(text, alice)).status == 200


async def test_data_in_which_there_may_be_an_archive_stay_unscannable(
    product: Product, synapse: Synapse, uploader: Uploader, reader: Reader, alice: User
) -> None:
    content = encrypt_attachment(bytes(5000))[0] + ARCHIVE + encrypt_attachment(bytes(5000))[0]
    mxc = await synapse.upload(alice, content)

    assert (await reader.download(mxc, alice)).matrix_error == FORBIDDEN
    assert (await uploader.upload(alice, content)).matrix_error == FORBIDDEN
    assert product.metric("scans_total", source="download", verdict="unscannable")


async def test_what_an_engine_names_is_withheld_from_what_looks_like_ciphertext(
    uploader: Uploader, alice: User
) -> None:
    ciphertext, _ = encrypt_attachment(bytes(5000))

    assert (await uploader.upload(alice, ciphertext + samples.eicar())).matrix_error == FORBIDDEN


def opaque(product: Product, source: str) -> float:
    return product.metric("scans_total", source=source, verdict="opaque", encrypted="false")
