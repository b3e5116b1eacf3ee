"""Tokens, keys, file names and plaintext never reach what the product writes, whatever happens to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from scanner.web.routes import API
from tests.archives import zip_of
from tests.e2e.scanner_api import seal_with_vodozemac
from tests.e2e.scene import Scene, scene
from tests.e2e.test_faults_of_clamd import address
from tests.fake_homeserver import Then, media_head, redirecting, refusing, saying, serving
from tests.raw_client import connected, request
from tests.real_clamd import EICAR, Clamd

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]


def replaced(content: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"file": {**content["file"], **members}}


async def everything_that_can_be_sent(stage: Scene) -> None:
    """Clean and infected, plain and encrypted, with secrets wherever one can stand."""
    for plaintext in (b"", EICAR):
        content = stage.new_secret().encode() + b" " + plaintext
        archive = zip_of({f"{stage.new_secret()}.txt": content})
        for data in (content, archive):
            await stage.download(stage.upload(data), f"{stage.new_secret()}.pdf")
            await stage.scan(stage.upload(data))
            attachment = stage.upload_encrypted(data)
            await stage.download_encrypted(replaced(attachment, name=stage.new_secret()))
            sealed = seal_with_vodozemac(await stage.api.public_key(), json.dumps(attachment))
            await stage.api.scan_encrypted({"encrypted_body": sealed}, stage.user)


async def what_is_malformed(stage: Scene) -> None:
    """A request that fails is where keys and tokens are most often written to a log."""
    whole = stage.upload_encrypted(stage.new_secret().encode())
    key = whole["file"]["key"]
    for broken in (
        replaced(whole, key={**key, "k": stage.new_secret()}),
        replaced(whole, key=stage.new_secret()),
        replaced(whole, iv=stage.new_secret()),
        replaced(whole, hashes={"sha256": stage.new_secret()}),
        replaced(whole, url=f"https://{stage.new_secret()}"),
        replaced(whole, v=stage.new_secret()),
        {"file": stage.new_secret()},
        {
            "encrypted_body": {
                "ephemeral": stage.new_secret(),
                "ciphertext": stage.new_secret(),
                "mac": stage.new_secret(),
            }
        },
        {"encrypted_body": stage.new_secret()},
    ):
        assert (await stage.api.download_encrypted(broken, stage.user)).status in (400, 403)


async def what_is_no_http(stage: Scene) -> None:
    target, port = f"{API}/download/example.org/abc", urlsplit(stage.product.url).port or 0
    for raw in (
        request(f"{target}?access_token={stage.new_secret()}"),
        request(f"{API}/{stage.new_secret()}/unknown", stage.new_secret()),
        request(target, stage.new_secret() + "\x01"),
        request(target, stage.new_secret()).replace(b"Authorization:", b"Authorization"),
        request(f"{target}?{stage.new_secret()} x", stage.new_secret()),
        request(
            f"{API}/download_encrypted", stage.new_secret(), method="POST", body=stage.new_secret().encode()
        ),
        request(f"{API}/download_encrypted", stage.new_secret(), method="POST").replace(
            b"\r\n\r\n", b"\r\nContent-Length: x\r\n\r\n"
        ),
        request(f"{target}/{stage.new_secret()}%ff", stage.new_secret()),
    ):
        async with connected(port) as client:
            await client.ask(raw)


async def a_failing_homeserver(stage: Scene) -> None:
    for script in (
        saying(Then.RESET),
        saying(media_head(100), stage.new_secret().encode(), Then.HANG_UP),
        saying(f"HTTP/1.1 2x0 {stage.new_secret()}\r\nX: {stage.new_secret()}\r\n\r\n".encode()),
        refusing("500 Internal Server Error", stage.new_secret()),
        redirecting(f"http://elsewhere.example/{stage.new_secret()}"),
        serving(
            stage.new_secret().encode(),
            f"{stage.new_secret()}/\x00",
            Content_Disposition=f'inline; filename="{stage.new_secret()}',
        ),
    ):
        stage.but(script)
        await stage.download(stage.upload(b""))
        await stage.download_encrypted(stage.upload_encrypted(b"x"))
    stage.homeserver.script = stage.media


@pytest.mark.parametrize("level", ["debug", "info"])
async def test_no_secret_is_written_anywhere(tmp_path: Path, private_clamd: Clamd, level: str) -> None:
    async with scene(tmp_path, address(private_clamd), log={"level": level}) as stage:
        await stage.until_ready()
        await everything_that_can_be_sent(stage)
        await what_is_malformed(stage)
        await what_is_no_http(stage)
        await a_failing_homeserver(stage)
        private_clamd.stop()
        await everything_that_can_be_sent(stage)

        assert len(stage.secrets) > 60
        assert not stage.leaked()
        assert (level == "debug") == ('"level":"debug"' in stage.product.output())
