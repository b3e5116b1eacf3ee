"""What follows a detection, put together; what it does is tested with its parts and in e2e."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from scanner.bus import Bus
from scanner.config import Config
from scanner.consequences import forget_deliveries, keep_deliveries, tell_the_homeserver
from scanner.errors import ConfigError
from scanner.events import Delivered, Occasion, Source
from scanner.media import MediaRef
from scanner.metrics import Metrics
from scanner.quarantine.homeserver import HomeserverQuarantine
from scanner.stores.local import Local
from scanner.verdict import ContentId, IndexSecret
from tests.quarantine.test_outbox import detected, outbox
from tests.upstream.rig import Rig

INDEX = IndexSecret(bytes(32))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def configured(state: Path, **sections: dict[str, Any]) -> Config:
    return Config.model_validate({"state_dir": state, **sections})


def names(directory: Path, pattern: str = "*") -> list[str]:
    return [path.name for path in directory.glob(pattern)]


async def deliver(config: Config) -> None:
    """Once, to somebody."""
    bus, directory = Bus([]), config.state_dir
    async with outbox(directory / "outbox") as box, AsyncExitStack() as stack:
        await keep_deliveries(
            config, stack, bus, outbox=box, store=Local(directory / "quarantine"), index=INDEX
        )
        occasion = Occasion(MediaRef("a.org", "b"), Source.DOWNLOAD, encrypted=False, request_id="1")
        bus.publish(Delivered(occasion, ContentId(b"c" * 32), b"a" * 32))


async def test_deliveries_are_kept_until_they_are_not_to_be(tmp_path: Path) -> None:
    file = tmp_path / "deliveries.sqlite"
    await deliver(configured(tmp_path))
    assert file.stat().st_size > 0
    await deliver(configured(tmp_path, quarantine={"deliveries_retention": 0}))
    assert not file.exists()


async def test_deliveries_go_with_the_quarantine(tmp_path: Path) -> None:
    await deliver(configured(tmp_path))
    forget_deliveries(configured(tmp_path, quarantine={"store": "off"}))
    assert not names(tmp_path, "deliveries*")
    (tmp_path / "deliveries.sqlite").mkdir()
    with pytest.raises(ConfigError, match=r"state_dir: .*deliveries.sqlite: Is a directory"):
        forget_deliveries(configured(tmp_path))


async def tell(rig: Rig, stack: AsyncExitStack, config: Config) -> HomeserverQuarantine | None:
    await rig.upstream()
    metrics = Metrics("1", [], [], "memory")
    return await tell_the_homeserver(config, stack, Bus([]), metrics, rig.connection, None)


async def test_without_a_token_the_homeserver_is_not_told(
    rig: Rig, stack: AsyncExitStack, tmp_path: Path
) -> None:
    assert await tell(rig, stack, configured(tmp_path)) is None
    assert not names(tmp_path)


async def test_with_one_it_is(rig: Rig, stack: AsyncExitStack, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("syt_admin\n")
    there = await tell(rig, stack, configured(tmp_path, homeserver={"admin_token_file": str(token)}))
    assert there is not None
    await there.record(detected())
    await rig.homeserver.until_heard(1)
    assert rig.homeserver.heard[0].header("authorization") == "Bearer syt_admin"


async def test_a_token_file_that_holds_none_is_the_operators_to_mend(
    rig: Rig, stack: AsyncExitStack, tmp_path: Path
) -> None:
    config = configured(tmp_path, homeserver={"admin_token_file": str(tmp_path / "absent")})
    with pytest.raises(ConfigError, match=r"homeserver.admin_token_file: .*absent: No such file"):
        await tell(rig, stack, config)
