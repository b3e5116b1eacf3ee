"""`scan_file` of the running product, and the examples of docs/clients.md, with a real Synapse and clamd."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import node, samples
from tests.e2e.node import Attachment
from tests.e2e.product import Product
from tests.e2e.scanner_api import ScannerApi, seal_with_vodozemac
from tests.e2e.scene import BUSY, letter, scene
from tests.e2e.synapse import Synapse, User
from tests.fake_homeserver import serving
from tests.real_clamd import EICAR, Clamd

pytestmark = [pytest.mark.real, pytest.mark.timeout(180), pytest.mark.usefixtures("clients")]

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
LIMIT = 20 * 1024 * 1024


def scans(product: Product) -> float:
    """How many files the engines have looked at for clients."""
    return product.metric("scans_total")


# -- the route -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "clean"),
    [(samples.text, True), (samples.png, True), (samples.eicar, False), (samples.infected_zip, False)],
)
async def test_a_plain_file_is_judged_and_warms_the_scan_after_its_upload(
    synapse: Synapse,
    product: Product,
    scanner: ScannerApi,
    alice: User,
    bob: User,
    sample: Callable[[], bytes],
    clean: bool,
) -> None:
    content = sample()
    before = await scanner.scan_file(content, alice)
    judged = scans(product)

    after = await scanner.scan(await synapse.upload(alice, content), bob)

    assert (before.status, before.content["clean"]) == (200, clean)
    assert (after.status, after.content) == (200, before.content)
    assert scans(product) == judged


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(("sample", "clean"), [(samples.png, True), (samples.infected_zip, False)])
async def test_an_encrypted_file_is_judged_by_its_plaintext_and_warms_its_scan(
    synapse: Synapse,
    product: Product,
    scanner: ScannerApi,
    alice: User,
    bob: User,
    sample: Callable[[], bytes],
    clean: bool,
    sealed: bool,
) -> None:
    attachment = await node.encrypt("webcrypto", sample())
    info: dict[str, Any] = {"file": attachment.info}
    if sealed:
        info = {"encrypted_body": seal_with_vodozemac(await scanner.public_key(), json.dumps(info))}
    before = await scanner.scan_file(attachment.ciphertext, alice, info)
    judged = scans(product)

    mxc = await synapse.upload(alice, attachment.ciphertext)
    after = await scanner.scan_encrypted({"file": attachment.at(mxc)}, bob)

    assert (before.status, before.content["clean"]) == (200, clean)
    assert (after.status, after.content) == (200, before.content)
    assert scans(product) == judged


@pytest.mark.parametrize("user", [None, User("@mallory:example.org", "made-up")])
async def test_only_users_of_the_homeserver_may_ask(scanner: ScannerApi, user: User | None) -> None:
    code = "M_MISSING_TOKEN" if user is None else "M_UNKNOWN_TOKEN"
    assert (await scanner.scan_file(samples.text(), user)).refusal == (401, code)


async def test_a_file_of_exactly_the_limit_is_judged_and_a_larger_one_refused(
    scanner: ScannerApi, alice: User
) -> None:
    content = samples.text().ljust(LIMIT, b".")
    assert (await scanner.scan_file(content, alice)).content["clean"] is True
    assert (await scanner.scan_file(content + b".", alice)).refusal == (413, "MCS_MEDIA_REQUEST_FAILED")


async def test_neither_the_file_nor_its_key_is_written_anywhere(
    product: Product, scanner: ScannerApi, alice: User, written: Callable[[], Awaitable[str]]
) -> None:
    plaintext = samples.text()
    attachment = await node.encrypt("node", plaintext + samples.eicar())
    await scanner.scan_file(plaintext, alice)
    await scanner.scan_file(attachment.ciphertext, alice, {"file": attachment.info})

    kept = (await written()).encode()
    kept += b"".join(file.read_bytes() for file in product.state.rglob("*") if file.is_file())

    for secret in (plaintext.strip(), attachment.info["key"]["k"].encode(), alice.token.encode()):
        assert secret not in kept


async def test_a_clamd_that_dies_over_a_file_is_to_be_asked_again(
    tmp_path: Path, private_clamd: Clamd
) -> None:
    async with scene(tmp_path, f"unix:{private_clamd.socket}") as stage:
        stage.but(serving(b"{}", "application/json"))
        await stage.until_ready()
        private_clamd.pause()
        asked = asyncio.create_task(stage.api.scan_file(letter(), stage.user))
        await stage.until(lambda: stage.metric("engine_in_flight") == 1)
        private_clamd.stop()

        reply = await asked
        assert (reply.refusal, reply.headers["Retry-After"]) == (BUSY, "5")

        await asyncio.to_thread(private_clamd.start)
        assert (await stage.api.scan_file(letter(), stage.user)).content["clean"] is True
        assert (await stage.api.scan_file(letter() + EICAR, stage.user)).content["clean"] is False


# -- the examples --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What an example did: the `file` of the event to send, or why there is none."""

    file: dict[str, Any] | None
    refusal: str


Example = Callable[[bytes], Awaitable[Outcome]]


@pytest.fixture(params=["python", "typescript"])
def example(
    request: pytest.FixtureRequest, synapse: Synapse, product: Product, alice: User, tmp_path: Path
) -> Example:
    """Scans and uploads for Alice."""

    async def python(content: bytes) -> Outcome:
        (tmp_path / "plan.pdf").write_bytes(content)
        servers = {"HOMESERVER": synapse.url, "SCANNER": product.url, "ACCESS_TOKEN": alice.token}
        command = [sys.executable, str(EXAMPLES / "scan_before_upload.py"), "plan.pdf"]
        process = await create_subprocess_exec(
            *command, cwd=tmp_path, env=os.environ | servers, stdout=PIPE, stderr=PIPE
        )
        printed, errors = await process.communicate()
        assert process.returncode == (0 if printed else 1), errors.decode()
        return Outcome(json.loads(printed) if printed else None, errors.decode())

    async def typescript(content: bytes) -> Outcome:
        module = await node.compile_typescript(EXAMPLES / "scan-before-upload.ts", tmp_path)
        answer = await node.scan_and_upload(module, product.url, synapse.url, alice, content)
        return Outcome(answer.get("file"), answer.get("refused", ""))

    return {"python": python, "typescript": typescript}[request.param]


async def test_the_example_uploads_what_is_clean(
    example: Example, product: Product, scanner: ScannerApi, bob: User
) -> None:
    """Others can decrypt it, and their scan of it costs nothing any more."""
    content = samples.png()
    judged = scans(product)

    file = (await example(content)).file

    assert file is not None
    told, download = [
        await ask({"file": file}, bob) for ask in (scanner.scan_encrypted, scanner.download_encrypted)
    ]
    assert told.content["clean"] is True
    assert await node.decrypt("node", Attachment(download.body, file)) == content
    assert scans(product) == judged + 1


@pytest.mark.parametrize("sample", [samples.eicar, samples.infected_zip])
async def test_the_example_does_not_upload_what_is_infected(
    example: Example, synapse: Synapse, alice: User, sample: Callable[[], bytes]
) -> None:
    outcome = await example(sample())

    assert outcome.file is None
    assert "Malware was found in this file" in outcome.refusal
    lines = [line for line in synapse.log().splitlines() if alice.user_id in line]
    assert [line for line in lines if "/media/config" in line], "the scanner asked who she is"
    assert not [line for line in lines if "/upload" in line]


async def test_the_example_says_why_a_file_was_not_scanned(example: Example) -> None:
    outcome = await example(bytes(LIMIT + 1))
    assert outcome.file is None
    assert f"the media is larger than {LIMIT} bytes" in outcome.refusal
