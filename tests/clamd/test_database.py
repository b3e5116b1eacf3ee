from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from scanner.clamd import database as database_module
from scanner.clamd.database import DatabaseFiles, DatabaseWatch, process_started_at
from tests.real_clamd import Clamd


class Reloads:
    """Counts what is asked of clamd; `fail` makes it fail."""

    def __init__(self) -> None:
        self.count = 0
        self.fail = False

    async def __call__(self) -> None:
        if self.fail:
            raise ConnectionError
        self.count += 1


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "custom.ndb").write_text("Custom:0:*:00\n")
    return tmp_path


@pytest.fixture
def reloads() -> Reloads:
    return Reloads()


def unknown() -> float | None:
    return None


def later() -> float | None:
    return time.time() + 10


async def look(watch: DatabaseWatch, reloads: Reloads, version: str = "v1") -> str | None:
    await watch.look()
    await watch.settle(version, reloads)
    return watch.digest


def test_the_digest_covers_names_sizes_times_and_headers(database: Path) -> None:
    file = database / "custom.ndb"
    digests = [DatabaseFiles.read(database).digest]

    def note() -> None:
        digests.append(DatabaseFiles.read(database).digest)

    file.write_text("Custom:0:*:0000\n")
    note()
    os.utime(file, (1, 1))
    note()
    file.write_text("Custom:0:*:1111\n")
    os.utime(file, (1, 1))
    note()
    file.rename(database / "renamed.ndb")
    note()
    (database / "more.hdb").touch()
    note()
    assert len(set(digests)) == len(digests)


def test_files_that_clamd_does_not_load_do_not_count(database: Path) -> None:
    before = DatabaseFiles.read(database)
    for name in ("freshclam.dat", "README", ".ndb", "tmp.0123"):
        (database / name).touch()
    assert DatabaseFiles.read(database) == before


def test_what_cannot_be_read_does_not_fail(tmp_path: Path) -> None:
    (tmp_path / "gone.cvd").symlink_to(tmp_path / "nowhere")
    assert DatabaseFiles.read(tmp_path).digest == DatabaseFiles.read(tmp_path / "missing").digest


async def test_without_a_directory_version_alone_counts(reloads: Reloads) -> None:
    watch = DatabaseWatch(lambda: None, unknown)
    assert watch.digest is None
    assert await look(watch, reloads) == "unseen"
    assert reloads.count == 0


async def test_a_clamd_younger_than_its_files_has_loaded_them(database: Path, reloads: Reloads) -> None:
    watch = DatabaseWatch(lambda: database, later)
    assert await look(watch, reloads) is not None
    assert reloads.count == 0


async def test_files_of_unknown_age_are_loaded_first(database: Path, reloads: Reloads) -> None:
    """They may have changed while nobody watched, and verdicts outlive us."""
    watch = DatabaseWatch(lambda: database, unknown)
    assert await look(watch, reloads) is None
    assert await look(watch, reloads) is None
    assert reloads.count == 1


async def test_a_change_is_uncertain_until_version_changes(database: Path, reloads: Reloads) -> None:
    watch = await settled(database, reloads)
    before = watch.digest
    (database / "custom.ndb").write_text("Custom:0:*:11\n")
    assert await look(watch, reloads) is None
    assert await look(watch, reloads) is None
    after = await look(watch, reloads, "v2")
    assert after not in {None, before}
    assert reloads.count == 1


async def test_a_change_is_uncertain_until_the_reload_is_seen(database: Path, reloads: Reloads) -> None:
    """And not until one that began before is: clamd loses a RELOAD that comes meanwhile."""
    seen: list[float | None] = [None]
    watch = await settled(database, reloads, seen)
    (database / "custom.ndb").write_text("Custom:0:*:11\n")
    began_before = time.monotonic()
    assert await look(watch, reloads) is None
    seen[0] = began_before
    assert await look(watch, reloads, "v2") is None
    seen[0] = time.monotonic()
    assert await look(watch, reloads, "v2") is not None


async def test_a_reload_that_nobody_sees_counts_after_a_minute(
    database: Path, reloads: Reloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = await settled(database, reloads)
    before = watch.digest
    (database / "custom.ndb").write_text("broken")
    assert await look(watch, reloads) is None
    monkeypatch.setattr(database_module, "RELOAD_TIMEOUT", 0.0)
    assert await look(watch, reloads) not in {None, before}


async def test_a_change_during_a_reload_is_loaded_by_another(database: Path, reloads: Reloads) -> None:
    watch = await settled(database, reloads)
    (database / "custom.ndb").write_text("Custom:0:*:11\n")
    await look(watch, reloads, "v1")
    (database / "custom.ndb").write_text("Custom:0:*:2222\n")
    assert await look(watch, reloads, "v2") is None
    assert reloads.count == 2
    assert await look(watch, reloads, "v3") is not None


async def test_a_change_that_is_undone_is_uncertain_too(database: Path, reloads: Reloads) -> None:
    watch = await settled(database, reloads)
    (database / "more.ndb").write_text("More:0:*:11\n")
    await look(watch, reloads)
    (database / "more.ndb").unlink()
    assert await look(watch, reloads) is None


async def test_a_reload_that_fails_is_tried_again(database: Path, reloads: Reloads) -> None:
    watch = await settled(database, reloads)
    (database / "custom.ndb").write_text("Custom:0:*:11\n")
    reloads.fail = True
    with pytest.raises(ConnectionError):
        await look(watch, reloads)
    assert watch.digest is None
    reloads.fail = False
    await look(watch, reloads)
    assert reloads.count == 1


async def settled(database: Path, reloads: Reloads, seen: list[float | None] | None = None) -> DatabaseWatch:
    """A watch that is certain, of a clamd whose age cannot be seen any more."""
    started: list[float | None] = [time.time() + 10]
    watch = DatabaseWatch(lambda: database, lambda: started[0], None if seen is None else lambda: seen[0])
    assert await look(watch, reloads) is not None
    started[0] = None
    return watch


def test_the_age_of_a_process_that_cannot_be_seen_is_unknown(tmp_path: Path) -> None:
    assert process_started_at(str(tmp_path / "none")) is None


@pytest.mark.real
def test_clamd_is_younger_than_what_it_was_given_before_its_start(clamd: Clamd) -> None:
    started_at = process_started_at(str(clamd.socket))
    assert started_at is not None
    assert DatabaseFiles.read(clamd.database).changed_at < started_at < time.time()
