"""Attachments encrypted, and request bodies sealed, by the libraries of deployed clients."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import vodozemac

from tests.e2e import node, samples
from tests.e2e.node import Attachment
from tests.e2e.scanner_api import ScannerApi, seal_with_vodozemac, unpadded
from tests.e2e.synapse import Synapse, User

pytestmark = [pytest.mark.real, pytest.mark.timeout(180), pytest.mark.usefixtures("clients")]

LIMIT = 20 * 1024 * 1024
NOT_CLEAN = (403, "MCS_MEDIA_NOT_CLEAN")
PATHS = pytest.mark.parametrize("path", ["node", "webcrypto"])
SEALS = pytest.mark.parametrize("seal", ["plain", "vodozemac", "libolm"])


async def request_body(scanner: ScannerApi, seal: str, file: dict[str, Any]) -> dict[str, Any]:
    """A request for `file`: in the clear, or sealed to the scanner's public key."""
    content = {"file": file}
    if seal == "plain":
        return content
    public_key = await scanner.public_key()
    if seal == "libolm":
        return {"encrypted_body": await node.seal(public_key, json.dumps(content))}
    return {"encrypted_body": seal_with_vodozemac(public_key, json.dumps(content))}


@PATHS
@SEALS
async def test_a_clean_attachment_is_delivered_as_its_ciphertext(
    synapse: Synapse, scanner: ScannerApi, alice: User, bob: User, path: str, seal: str
) -> None:
    plaintext = samples.png()
    attachment = await node.encrypt(path, plaintext)
    mxc = await synapse.upload(alice, attachment.ciphertext)
    body = await request_body(scanner, seal, attachment.at(mxc))

    scan = await scanner.scan_encrypted(body, bob)
    download = await scanner.download_encrypted(body, bob)

    assert (scan.status, scan.content["clean"]) == (200, True)
    assert (download.status, download.body) == (200, attachment.ciphertext)
    assert await node.decrypt(path, Attachment(download.body, attachment.info)) == plaintext


@SEALS
@pytest.mark.parametrize("plaintext", [samples.eicar, samples.infected_zip])
async def test_an_infected_attachment_is_called_unclean_and_withheld(
    synapse: Synapse, scanner: ScannerApi, alice: User, bob: User, plaintext: Callable[[], bytes], seal: str
) -> None:
    attachment = await node.encrypt("node", plaintext())
    mxc = await synapse.upload(alice, attachment.ciphertext)
    body = await request_body(scanner, seal, attachment.at(mxc))

    scan = await scanner.scan_encrypted(body, bob)

    assert (scan.status, scan.content["clean"]) == (200, False)
    assert (await scanner.download_encrypted(body, bob)).refusal == NOT_CLEAN


async def test_an_infected_attachment_is_withheld_from_a_first_download_too(
    synapse: Synapse, scanner: ScannerApi, alice: User
) -> None:
    attachment = await node.encrypt("webcrypto", samples.infected_zip())
    mxc = await synapse.upload(alice, attachment.ciphertext)

    assert (await scanner.download_encrypted({"file": attachment.at(mxc)}, alice)).refusal == NOT_CLEAN


async def test_an_attachment_of_exactly_the_limit_is_delivered(
    synapse: Synapse, scanner: ScannerApi, alice: User
) -> None:
    attachment = await node.encrypt("node", samples.text().ljust(LIMIT, b"."))
    mxc = await synapse.upload(alice, attachment.ciphertext)

    download = await scanner.download_encrypted({"file": attachment.at(mxc)}, alice)

    assert download.status == 200
    assert download.body == attachment.ciphertext


async def test_an_attachment_over_the_limit_is_refused(
    synapse: Synapse, scanner: ScannerApi, alice: User
) -> None:
    attachment = await node.encrypt("node", samples.text().ljust(LIMIT + 1, b"."))
    mxc = await synapse.upload(alice, attachment.ciphertext)

    download = await scanner.download_encrypted({"file": attachment.at(mxc)}, alice)

    assert download.refusal == (413, "MCS_MEDIA_REQUEST_FAILED")


def with_short_key(attachment: Attachment) -> Attachment:
    key = base64.urlsafe_b64encode(bytes(31)).decode().rstrip("=")
    return with_info(attachment, key={**attachment.info["key"], "k": key})


def with_other_hash(attachment: Attachment) -> Attachment:
    return with_info(attachment, hashes={"sha256": unpadded(bytes(32))})


def with_wrapping_counter(attachment: Attachment) -> Attachment:
    return with_info(attachment, iv=unpadded(bytes(8) + b"\xff" * 8))


def with_a_flipped_bit(attachment: Attachment) -> Attachment:
    first, *rest = attachment.ciphertext
    return dataclasses.replace(attachment, ciphertext=bytes([first ^ 1, *rest]))


def with_info(attachment: Attachment, **changed: object) -> Attachment:
    return dataclasses.replace(attachment, info={**attachment.info, **changed})


@pytest.mark.parametrize(
    "spoil", [with_short_key, with_other_hash, with_wrapping_counter, with_a_flipped_bit]
)
async def test_an_attachment_that_does_not_fit_its_key_is_refused(
    synapse: Synapse, scanner: ScannerApi, alice: User, spoil: Callable[[Attachment], Attachment]
) -> None:
    attachment = spoil(await node.encrypt("node", samples.text()))
    mxc = await synapse.upload(alice, attachment.ciphertext)
    body = {"file": attachment.at(mxc)}

    assert (await scanner.scan_encrypted(body, alice)).refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")
    assert (await scanner.download_encrypted(body, alice)).refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")


async def test_an_attachment_spoilt_after_its_scan_is_refused(
    synapse: Synapse, scanner: ScannerApi, alice: User
) -> None:
    """The key and the hash are known to lead to clean content; this media ID has other bytes."""
    attachment = await node.encrypt("node", samples.text())
    good = await synapse.upload(alice, attachment.ciphertext)
    spoilt = await synapse.upload(alice, with_a_flipped_bit(attachment).ciphertext)
    known = await scanner.scan_encrypted({"file": attachment.at(good)}, alice)
    assert known.content["clean"]

    body = {"file": attachment.at(spoilt)}

    assert (await scanner.scan_encrypted(body, alice)).refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")
    assert (await scanner.download_encrypted(body, alice)).refusal == (400, "MCS_MEDIA_FAILED_TO_DECRYPT")


async def test_unknown_attachments_are_not_found(synapse: Synapse, scanner: ScannerApi, alice: User) -> None:
    attachment = await node.encrypt("node", samples.text())
    body = {"file": attachment.at(f"mxc://{synapse.server_name}/there-is-no-such-media")}

    assert (await scanner.scan_encrypted(body, alice)).refusal == (404, "M_NOT_FOUND")
    assert (await scanner.download_encrypted(body, alice)).refusal == (404, "M_NOT_FOUND")


async def test_a_body_sealed_to_another_key_is_refused(
    synapse: Synapse, scanner: ScannerApi, alice: User
) -> None:
    attachment = await node.encrypt("node", samples.text())
    content = json.dumps({"file": attachment.at(await synapse.upload(alice, attachment.ciphertext))})
    another = vodozemac.PkDecryption().public_key.to_base64()

    for sealed in (seal_with_vodozemac(another, content), await node.seal(another, content)):
        answer = await scanner.scan_encrypted({"encrypted_body": sealed}, alice)
        assert answer.refusal == (403, "MCS_BAD_DECRYPTION")


async def test_the_log_holds_no_token_and_no_key(
    synapse: Synapse, scanner: ScannerApi, alice: User, written: Callable[[], Awaitable[str]]
) -> None:
    attachment = await node.encrypt("node", samples.infected_zip())
    mxc = await synapse.upload(alice, attachment.ciphertext)
    file = attachment.at(mxc)
    await scanner.download_encrypted({"file": file}, alice)
    await scanner.scan_encrypted({"file": with_short_key(attachment).at(mxc)}, alice)
    await scanner.scan(mxc, None, access_token=alice.token)

    output = await written()

    assert mxc in output
    assert alice.token not in output
    assert file["key"]["k"] not in output
    assert file["iv"] not in output
