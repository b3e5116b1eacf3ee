"""Where detections are kept; what the parts do is tested with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from scanner.config import Config
from scanner.errors import ConfigError
from scanner.events import Bus
from scanner.metrics import Metrics
from scanner.safekeeping import keep_detections, store_of
from scanner.stores.local import Local
from scanner.stores.s3 import S3
from scanner.verdict import IndexSecret, Outcome


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
