"""From other scanners' sample configurations and secrets to a service that clients take for the old one."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
import vodozemac

from tests.cli.command import media_scanner_process
from tests.e2e import node
from tests.e2e.process import Child, free_ports
from tests.e2e.scanner_api import ScannerApi, seal_with_vodozemac
from tests.e2e.synapse import User
from tests.fake_homeserver import FakeHomeserver, serving
from tests.other_scanners import NODE, PYTHON
from tests.real_clamd import EICAR, Clamd
from tests.web.service import Attachment

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

# What the samples allow.
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(200) + b"\xff\xd9"
ALICE = User("@alice:example.org", "syt_alice")


def succeeded(*arguments: str | Path) -> str:
    """What a command printed on standard output."""
    done: subprocess.CompletedProcess[str] = media_scanner_process(*arguments)
    assert done.returncode == 0, done
    return done.stdout


@contextmanager
def serving_from(configuration: Path, homeserver: str, clamd: Clamd) -> Iterator[str]:
    """The URL of a service that has all from `configuration` but what is of the sample's world."""
    public, operations = free_ports(2)
    url = f"http://127.0.0.1:{public}"
    world = {
        "SERVER__LISTEN": url.removeprefix("http://"),
        "SERVER__OPS_LISTEN": f"127.0.0.1:{operations}",
        "HOMESERVER__URL": homeserver,
        "HOMESERVER__PROXY": "null",
        "STATE_DIR": str(configuration.parent / "state"),
        "CLAMAV__ADDRESSES": f"[unix:{clamd.socket}]",
    }
    environ = [f"MEDIA_SCANNER__{name}={value}" for name, value in world.items()]
    command = [sys.executable, "-m", "scanner", "serve", "--config", str(configuration)]
    service = Child(["env", *environ, *command], configuration.parent / "output.log")
    service.start()
    try:
        service.wait_until(lambda: "signatures" in service.output.read_text(), 30)
        yield url
    finally:
        assert service.terminate(30) == 0


async def served_without_notice(url: str, homeserver: FakeHomeserver, public_key: str) -> None:
    """Clients that know the old public key, clients that seal nothing, and what they must not get."""
    async with aiohttp.ClientSession(url) as session:
        api = ScannerApi(session)
        assert await api.public_key() == public_key
        homeserver.script = serving(JPEG, "image/jpeg")
        plain = await api.download("mxc://example.org/plain", ALICE)
        assert (plain.status, plain.body) == (200, JPEG)
        for content, status in ((JPEG, 200), (EICAR, 403)):
            attachment = Attachment.of(content, f"mxc://example.org/{secrets.token_hex(8)}")
            homeserver.script = serving(attachment.ciphertext)
            clear = {"file": attachment.file}
            sealed = {"encrypted_body": seal_with_vodozemac(public_key, json.dumps(clear))}
            for body in (clear, sealed):
                reply = await api.download_encrypted(body, ALICE)
                assert (reply.status, reply.body == attachment.ciphertext) == (status, status == 200)
    for heard in homeserver.heard:
        if "/media/" in heard.target:
            assert heard.header("user-agent") == "matrix-content-scanner"
            assert heard.header("authorization") == "Bearer syt_alice"


async def test_from_matrix_content_scanner(tmp_path: Path, clamd: Clamd) -> None:
    secret = secrets.token_bytes(32)
    key = vodozemac.Curve25519SecretKey.from_bytes(secret)
    public_key = vodozemac.PkDecryption.from_key(key).public_key.to_base64()
    theirs, ours = tmp_path / "config.yaml", tmp_path / "media-scanner.yaml"
    theirs.write_text(PYTHON)
    (tmp_path / "request_secret").write_bytes(base64.b64encode(secret))

    ours.write_text(succeeded("config", "import", theirs))
    succeeded("check-config", "--config", ours)
    assert succeeded("keys", "show-public", "--config", ours) == f"{public_key}\n"
    async with FakeHomeserver() as homeserver:
        with serving_from(ours, homeserver.url, clamd) as url:
            await served_without_notice(url, homeserver, public_key)


@pytest.mark.usefixtures("clients")
async def test_from_the_node_scanner(tmp_path: Path, clamd: Clamd) -> None:
    pickle, public_key = await node.pickle("some_random_secret")
    theirs, ours = tmp_path / "default.config.yaml", tmp_path / "media-scanner.yaml"
    theirs.write_text(NODE)
    (tmp_path / "av_pickled_decryption.key").write_text(pickle)

    ours.write_text(succeeded("config", "import", theirs))
    imported = succeeded("keys", "import-pickle", theirs, tmp_path / "request_secret")
    assert imported == f"{public_key}\n"
    succeeded("check-config", "--config", ours)
    async with FakeHomeserver() as homeserver:
        with serving_from(ours, homeserver.url, clamd) as url:
            await served_without_notice(url, homeserver, public_key)
