"""`serve` with its own freshclam, in front of a mirror on loopback; and reloads that come to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.clamd.home import marker, write_test_signatures
from tests.clamd.mirror import Mirror, running_mirror
from tests.e2e.machine import own_database
from tests.e2e.scene import REFUSED, scene

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]

OWN_BAD = marker("MediaScanner.Test.Marker")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "clamav"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with running_mirror() as mirror:
        yield mirror


def signatures(directory: Path) -> bytes:
    """EICAR, which the canary asks for, and one of the operator's own."""
    write_test_signatures(directory)
    return (directory / "test.ndb").read_bytes()


async def test_first_signatures_arrive_while_everybody_is_refused_already(
    tmp_path: Path, database: Path, mirror: Mirror
) -> None:
    mirror.files = {"own.ndb": signatures(tmp_path / "made")}
    fetching = {"freshclam": "on", "mirrors": [f"{mirror.url}/own.ndb"]}
    async with scene(tmp_path, "embedded", launcher=own_database(database), clamav=fetching) as stage:
        await stage.until_ready(40)
        assert await stage.well()
        assert (await stage.download(stage.upload(OWN_BAD))).refusal == REFUSED
        assert stage.product.warnings() == {}
        assert stage.product.metric("signature_updates_total", result="updated") == 1
        assert stage.product.metric("signature_update_last_success_timestamp_seconds") > 0
        assert "signatures updated" in stage.product.output(until="signatures updated")


async def test_a_mirror_that_is_away_is_seen_and_disturbs_nobody(tmp_path: Path, database: Path) -> None:
    """And where a mirror's address holds a subscriber's token, nobody reads it in the log."""
    signatures(database)
    fetching = {"freshclam": "on", "mirrors": ["http://127.0.0.1:1/s3cret/own.ndb"]}
    async with scene(tmp_path, "embedded", launcher=own_database(database), clamav=fetching) as stage:
        await stage.until(lambda: stage.product.answers("live"))
        await stage.until(lambda: "signature_updates" in stage.product.warnings(), 20)
        await stage.until_ready()
        assert await stage.well()
        assert "Couldn't connect to server (127.0.0.1:1)" in stage.product.warnings()["signature_updates"]
        assert stage.product.metric("signature_updates_total", result="failed") == 1
        assert stage.product.metric("signature_update_last_success_timestamp_seconds") == 0
        assert "s3cret" not in stage.product.output(until="signatures failed")


async def test_a_reload_that_kept_the_old_engine_is_seen_and_mended(tmp_path: Path, database: Path) -> None:
    signatures(database)
    async with scene(tmp_path, "embedded", launcher=own_database(database)) as stage:
        await stage.until_ready()
        assert await stage.well()

        (database / "more.ndb").write_text("no signature\n")
        await stage.until(lambda: "reload" in stage.product.warnings())
        assert "more.ndb: Malformed database" in stage.product.warnings()["reload"]
        assert stage.product.metric("engine_kept_old_signatures") == 1
        assert "clamav kept" in stage.product.output(until="clamav kept")
        assert await stage.well()
        assert stage.product.reasons() == set()

        (database / "more.ndb").write_text(f"Own.Letter:0:*:{b'now this is bad'.hex()}\n")
        await stage.until(lambda: stage.product.warnings() == {})
        assert stage.product.metric("engine_kept_old_signatures") == 0
        assert (await stage.download(stage.upload(b"now this is bad"))).refusal == REFUSED
