"""Where detections are kept; what the parts do is tested with them."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from scanner.bus import Bus
from scanner.config import Config
from scanner.crypto.envelope import public_key_of
from scanner.errors import ConfigError, EnvelopeError
from scanner.media import Sample
from scanner.metrics import Metrics
from scanner.safekeeping import keep_detections, store_of
from scanner.stores.local import Local
from scanner.stores.s3 import S3
from scanner.verdict import IndexSecret, Outcome
from tests.crypto.test_envelope import opened
from tests.fakes import a_body
from tests.quarantine.test_outbox import VERDICT


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def configured(state: Path, **quarantine: Any) -> Config:
    return Config.model_validate({"state_dir": state, "quarantine": quarantine})


async def test_store_is_the_one_that_is_configured(tmp_path: Path, stack: AsyncExitStack) -> None:
    assert isinstance(await store_of(configured(tmp_path), stack), Local)
    s3 = {"bucket": "q", "endpoint_url": "http://127.0.0.1:9"}
    assert isinstance(await store_of(configured(tmp_path, store="s3", s3=s3), stack), S3)


async def kept(config: Config, stack: AsyncExitStack, store: Local | None) -> object:
    outbox, _ = await keep_detections(
        config, stack, store, Bus([]), IndexSecret(bytes(32)), Metrics("1", [], [], "memory")
    )
    return outbox.outcomes if outbox is not None else None


async def test_detections_are_kept_as_configured_and_not_without_a_store(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    config = configured(tmp_path, keep=["infected", "unscannable"])
    outcomes = frozenset({Outcome.INFECTED, Outcome.UNSCANNABLE})
    assert await kept(config, stack, Local(tmp_path / "quarantine")) == outcomes
    assert await kept(config, stack, None) is None


async def test_outbox_that_cannot_be_made_is_one_line(tmp_path: Path, stack: AsyncExitStack) -> None:
    (tmp_path / "outbox").write_text("")
    with pytest.raises(ConfigError, match=r"state_dir: .*outbox"):
        await kept(configured(tmp_path), stack, Local(tmp_path / "quarantine"))


async def test_with_several_keys_nobody_opens_a_sample_alone(tmp_path: Path, stack: AsyncExitStack) -> None:
    secrets, files = [bytes([1]) * 32, bytes([2]) * 32], []
    for number, secret in enumerate(secrets):
        files.append(tmp_path / f"soc{number}.pub")
        files[-1].write_text(b64encode(public_key_of(secret)).decode())
    config = configured(tmp_path, public_key_files=files)
    outbox, _ = await keep_detections(
        config,
        stack,
        Local(tmp_path / "quarantine"),
        Bus([]),
        IndexSecret(bytes(32)),
        Metrics("1", [], [], "memory"),
    )
    assert outbox is not None
    body = a_body(b"sample")
    assert await outbox.keep(Sample(body), VERDICT)
    body.release()
    [envelope] = await asyncio.to_thread(envelopes, tmp_path)
    assert opened(envelope, *secrets) == b"sample"
    for secret in secrets:
        with pytest.raises(EnvelopeError, match="more keys"):
            opened(envelope, secret)
    assert not (tmp_path / "quarantine-key").exists()


def envelopes(state: Path) -> list[bytes]:
    """Waiting or shipped."""
    found = [*(state / "outbox").rglob("*"), *(state / "quarantine").rglob("*")]
    contents = [path.read_bytes() for path in found if path.is_file()]
    return [content for content in contents if content.startswith(b"MMSQENV1")][:1]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"public_key_files": ["a"]}, "two or more"),
        ({"public_key_files": ["a", "b"], "public_key_file": "c"}, "must not be beside"),
    ],
)
def test_keys_are_one_or_several(tmp_path: Path, named: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        configured(tmp_path, **named)
