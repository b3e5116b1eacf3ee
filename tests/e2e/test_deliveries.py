"""Who was given a content before its signature came: the first question of every incident."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from scanner.clamd.home import write_test_signatures
from scanner.crypto.envelope import public_key_of
from scanner.quarantine.delivery_records import DeliveryRecord, opened
from scanner.quarantine.layout import deliveries_of
from scanner.stores.local import Local
from tests.documented import ROOT
from tests.e2e.machine import own_database
from tests.e2e.scene import Scene, letter, scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]

SOC = b"\7" * 32


async def told(stage: Scene, content: bytes) -> list[DeliveryRecord]:
    """What the replicas say of a content, once they say something."""
    sha256, store = hashlib.sha256(content).hexdigest(), Local(stage.product.state / "quarantine")
    async with asyncio.timeout(20):
        while not (keys := [stored.key async for stored in store.listing(deliveries_of(sha256))]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return [opened(await store.get(key) or b"", [SOC], sha256) for key in keys]


def named(stage: Scene, tokens: str) -> dict[str, str]:
    """Users by the hashes of callers, as the script in docs/operations.md prints them."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    [script] = [block for block in blocks if "index-secret" in block]
    script = script.replace("/var/lib/media-scanner", str(stage.product.state))
    ran = subprocess.run(
        [sys.executable, "-c", script], input=tokens, capture_output=True, text=True, check=True
    )
    return dict(line.split(" ") for line in ran.stdout.splitlines())


async def test_who_was_given_a_content_before_its_signature_came_is_told_to_the_soc(tmp_path: Path) -> None:
    database, public = tmp_path / "clamav", tmp_path / "soc.pub"
    public.write_text(b64encode(public_key_of(SOC)).decode())
    kept = {"public_key_file": str(public)}
    async with scene(tmp_path, "embedded", launcher=own_database(database), quarantine=kept) as stage:
        write_test_signatures(database)
        await stage.until_ready()
        mark = secrets.token_hex(16).encode()
        content = letter() + mark
        plain, encrypted = stage.upload(content), stage.upload_encrypted(content)
        for _ in range(2):
            assert (await stage.download(plain)).status == 200
        assert (await stage.download_encrypted(encrypted)).status == 200
        await stage.scan(plain)  # gives nobody anything
        await asyncio.sleep(1.5)
        stage.product.process.kill()
        await stage.start()
        await stage.until_ready()

        (database / "new.ndb").write_text(f"New.Signature:0:*:{mark.hex()}\n")
        async with asyncio.timeout(20):
            while (await stage.scan(plain)).content["clean"]:  # noqa: ASYNC110 - it is clamd's event
                await asyncio.sleep(0.1)

        [record] = await told(stage, content)
        counts = {delivery.media: delivery.count for delivery in record.deliveries}
        callers = {delivery.caller for delivery in record.deliveries}
        assert counts == {plain: 2, encrypted["file"]["url"]: 1}
        users = await asyncio.to_thread(named, stage, f"{stage.user.token}|@alice:a.org\nother|@bob:a.org\n")
        assert [users[caller] for caller in callers] == ["@alice:a.org"]
        assert record.since is not None
