"""An analyst's work with what the running product kept of a real homeserver's media."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import pyzipper

from tests.cli.command import media_scanner_process
from tests.e2e import node, samples
from tests.e2e.product import Product
from tests.e2e.scanner_api import ScannerApi
from tests.e2e.synapse import Synapse, User

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


class Workstation:
    """Has the store and the SOC's key of `product`, and nothing else of it."""

    def __init__(self, product: Product) -> None:
        self.store = product.state / "quarantine"
        self.key = product.state / "quarantine-key"

    async def run(self, *arguments: str | Path) -> CompletedProcess[str]:
        words = ("quarantine", *arguments, "--store", self.store)
        return await asyncio.to_thread(media_scanner_process, *words)

    async def lists(self, mxc: str) -> Any:
        """The one content that was detected under this name, once it has arrived."""
        words = ("list", "--media", mxc, "--since", "24h", "--json")
        done = await self.run(*words)
        for _ in range(30):  # each takes a second
            if done.returncode == 0:
                break
            done = await self.run(*words)
        [line] = done.stdout.splitlines()
        return json.loads(line)


@pytest.fixture
def workstation(product: Product) -> Workstation:
    return Workstation(product)


async def test_eicar_that_was_withheld_is_listed_shown_and_exported_as_it_was(
    workstation: Workstation, synapse: Synapse, scanner: ScannerApi, alice: User, bob: User, tmp_path: Path
) -> None:
    mxc = await synapse.upload(alice, samples.eicar(), "text/plain")
    assert (await scanner.download(mxc, bob)).status == 403

    listed = await workstation.lists(mxc)
    assert (listed["state"], listed["size"], listed["encrypted"]) == ("kept", 68, False)
    await comes_back(workstation, listed["sha256"], samples.eicar(), tmp_path)


@pytest.mark.usefixtures("clients")
async def test_of_an_encrypted_room_the_plaintext_comes_back(
    workstation: Workstation, synapse: Synapse, scanner: ScannerApi, alice: User, bob: User, tmp_path: Path
) -> None:
    plaintext = samples.infected_zip()
    attachment = await node.encrypt("node", plaintext)
    mxc = await synapse.upload(alice, attachment.ciphertext)
    assert (await scanner.download_encrypted({"file": attachment.at(mxc)}, bob)).status == 403

    listed = await workstation.lists(mxc)
    assert (listed["state"], listed["size"], listed["encrypted"]) == ("kept", len(plaintext), True)
    shown = json.loads((await workstation.run("show", listed["sha256"], "--json")).stdout)
    [record] = shown["records"]
    assert (record["media"], record["verdict"], record["encrypted"]) == (mxc, "infected", True)
    await comes_back(workstation, listed["sha256"], plaintext, tmp_path)


async def comes_back(workstation: Workstation, sha256: str, plaintext: bytes, folder: Path) -> None:
    """With the SOC's key, in an archive that programs in use open with the usual password."""
    archive = folder / "sample.zip"
    done = await workstation.run("export", sha256, "--to", archive, "--key-file", workstation.key)
    assert done.returncode == 0, done.stderr
    with pyzipper.AESZipFile(archive) as opened:
        assert opened.read(sha256, pwd=b"infected") == plaintext
    assert await asyncio.to_thread(extracted, archive) == plaintext
    verified = await workstation.run("verify", sha256, "--key-file", workstation.key)
    assert verified.stdout == "samples opened: 1, seen from outside: 0; problems: 0\n"


def extracted(archive: Path) -> bytes:
    command = ["7z", "x", "-so", "-pinfected", str(archive)]
    return subprocess.run(command, capture_output=True, timeout=30, check=True).stdout
