"""`MatrixContentScannerClient` of `@vector-im/matrix-bot-sdk`, as it is published, against the product.

Its downloads throw the response itself on errors and ignore the error's body: `node` gives both.
"""

from __future__ import annotations

import base64

import pytest

from tests.e2e import node, samples
from tests.e2e.product import Product
from tests.e2e.synapse import Synapse, User

pytestmark = [pytest.mark.real, pytest.mark.timeout(180), pytest.mark.usefixtures("clients")]


async def test_it_scans_and_downloads_clean_media(synapse: Synapse, product: Product, alice: User) -> None:
    content = samples.png()
    mxc = await synapse.upload(alice, content, "image/png")

    scan = await node.content_scanner(product.url, alice, "scanContent", mxc)
    download = await node.content_scanner(product.url, alice, "downloadContent", mxc)

    assert scan["result"]["clean"] is True
    assert isinstance(scan["result"]["info"], str)
    assert download["result"]["contentType"] == "image/png"
    assert base64.b64decode(download["result"]["data"]) == content


async def test_it_scans_and_downloads_clean_attachments(
    synapse: Synapse, product: Product, alice: User
) -> None:
    attachment = await node.encrypt("node", samples.png())
    file = attachment.at(await synapse.upload(alice, attachment.ciphertext))

    scan = await node.content_scanner(product.url, alice, "scanContentEncrypted", file)
    download = await node.content_scanner(product.url, alice, "downloadEncryptedContent", file)

    assert scan["result"]["clean"] is True
    assert base64.b64decode(download["body"]) == attachment.ciphertext


async def test_it_learns_that_media_are_infected(synapse: Synapse, product: Product, alice: User) -> None:
    mxc = await synapse.upload(alice, samples.eicar(), "text/plain")

    scan = await node.content_scanner(product.url, alice, "scanContent", mxc)
    download = await node.content_scanner(product.url, alice, "downloadContent", mxc)

    assert scan["result"]["clean"] is False
    assert (download["error"]["status"], download["error"]["reason"]) == (403, "MCS_MEDIA_NOT_CLEAN")


async def test_it_learns_that_attachments_are_infected(
    synapse: Synapse, product: Product, alice: User
) -> None:
    attachment = await node.encrypt("node", samples.eicar())
    file = attachment.at(await synapse.upload(alice, attachment.ciphertext))

    scan = await node.content_scanner(product.url, alice, "scanContentEncrypted", file)
    download = await node.content_scanner(product.url, alice, "downloadEncryptedContent", file)

    assert scan["result"]["clean"] is False
    assert (download["error"]["status"], download["error"]["reason"]) == (403, "MCS_MEDIA_NOT_CLEAN")


async def test_it_raises_its_own_error_with_our_reason(
    synapse: Synapse, product: Product, alice: User, bob: User
) -> None:
    attachment = await node.encrypt("node", samples.text())
    mxc = await synapse.upload(alice, attachment.ciphertext)
    file = attachment.at(mxc)
    tampered = {**file, "hashes": {"sha256": "A" * 43}}
    await synapse.logout(bob)

    reasons = [
        (await node.content_scanner(product.url, user, method, argument))["error"]
        for user, method, argument in (
            (alice, "scanContent", f"{mxc}-unknown"),
            (bob, "scanContent", mxc),
            (alice, "scanContentEncrypted", tampered),
            (bob, "scanContentEncrypted", file),
        )
    ]

    assert {error["type"] for error in reasons} == {"MatrixContentScannerError"}
    assert [error["reason"] for error in reasons] == [
        "M_NOT_FOUND",
        "M_UNKNOWN_TOKEN",
        "MCS_MEDIA_FAILED_TO_DECRYPT",
        "M_UNKNOWN_TOKEN",
    ]
