from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from scanner.clamd import database as database_module
from scanner.clamd.control import ClamdVersion
from scanner.clamd.database import DatabaseFiles, DatabaseWatch, Load, is_database_file, process_started_at
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


async def look(watch: DatabaseWatch, reloads: Reloads, version: int | None = None) -> str | None:
    """`version` is the number of clamd's daily signatures."""
    await watch.look()
    await watch.settle(ClamdVersion(f"ClamAV 1.4.6/{version}", version), reloads)
    return watch.digest


def daily(database: Path, version: int) -> None:
    """A file with the head of ClamAV's own signatures, and nothing that clamd could load."""
    (database / "daily.cvd").write_bytes(f"ClamAV-VDB:18 Nov 2026 09-31:{version}:1:90:x:x:me:1".encode())


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
    after = await look(watch, reloads, 2)
    assert after not in {None, before}
    assert reloads.count == 1


async def test_a_change_is_uncertain_until_the_reload_is_in_the_log(database: Path, reloads: Reloads) -> None:
    """And not until one that began before is: clamd loses a RELOAD that comes meanwhile."""
    log: list[Load | None] = [None]
    watch = await settled(database, reloads, log)
    before = watch.digest
    (database / "custom.ndb").write_text("Custom:0:*:11\n")
    began_before = Load(time.monotonic())
    assert await look(watch, reloads) is None
    log[0] = began_before
    assert await look(watch, reloads, 2) is None
    log[0] = Load(time.monotonic())
    assert await look(watch, reloads, 2) not in {None, before}


async def test_a_reload_that_the_log_never_tells_of_is_asked_for_again(
    database: Path, reloads: Reloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a load that takes longer than our patience still counts when it is over."""
    log: list[Load | None] = [None]
    watch = await settled(database, reloads, log)
    (database / "custom.ndb").write_text("Custom:0:*:11\n")
    assert await look(watch, reloads) is None
    began = time.monotonic()
    monkeypatch.setattr(database_module, "RELOAD_TIMEOUT", 0.0)
    assert await look(watch, reloads) is None
    assert reloads.count == 2
    log[0] = Load(began)
    assert await look(watch, reloads) is not None


async def test_where_the_log_says_that_a_reload_failed_the_old_files_are_in_force(
    database: Path, reloads: Reloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[Load | None] = [None]
    watch = await settled(database, reloads, log)
    before = watch.digest
    (database / "custom.ndb").write_text("broken")
    assert await look(watch, reloads) is None
    log[0] = Load(time.monotonic(), "custom.ndb: Malformed database")
    assert await look(watch, reloads) == before
    assert watch.kept == "custom.ndb: Malformed database"
    await look(watch, reloads)
    assert reloads.count == 1, "the same files fail again"
    monkeypatch.setattr(database_module, "RETRY", 0.0)
    await look(watch, reloads)
    assert reloads.count == 2, "unless memory was what they failed for"
    assert watch.kept


async def test_good_files_after_broken_ones_are_loaded_and_in_force(database: Path, reloads: Reloads) -> None:
    log: list[Load | None] = [None]
    watch = await settled(database, reloads, log)
    before = watch.digest
    (database / "custom.ndb").write_text("broken")
    await look(watch, reloads)
    log[0] = Load(time.monotonic(), "Malformed database")
    await look(watch, reloads)
    (database / "custom.ndb").write_text("Custom:0:*:11\n")
    assert await look(watch, reloads) is None
    assert watch.kept, "until it is certain that they are better"
    log[0] = Load(time.monotonic())
    assert await look(watch, reloads) not in {None, before}
    assert watch.kept == ""


async def test_broken_files_that_are_gone_again_cost_nothing(database: Path, reloads: Reloads) -> None:
    log: list[Load | None] = [None]
    watch = await settled(database, reloads, log)
    before = watch.digest
    (database / "broken.ndb").write_text("broken")
    await look(watch, reloads)
    log[0] = Load(time.monotonic(), "Malformed database")
    await look(watch, reloads)
    (database / "broken.ndb").unlink()
    assert await look(watch, reloads) == before
    assert watch.kept == ""


async def test_a_reload_that_nobody_sees_counts_after_a_minute_as_uncertain(
    database: Path, reloads: Reloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered then must not be believed of a clamd that surely has these files."""
    started: list[float | None] = [None]
    watch = await settled(database, reloads, started=started)
    before = watch.digest
    (database / "custom.ndb").write_text("perhaps broken")
    assert await look(watch, reloads) is None
    monkeypatch.setattr(database_module, "RELOAD_TIMEOUT", 0.0)
    uncertain = await look(watch, reloads)
    assert uncertain not in {None, before}
    assert await look(watch, reloads) == uncertain
    started[0] = time.time() + 10
    assert await look(watch, reloads) not in {None, before, uncertain}


async def test_a_version_that_is_not_that_of_the_files_is_an_old_engine(
    database: Path, reloads: Reloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VERSION is the engine's, not the files': this shows without clamd's log."""
    daily(database, 27800)
    watch = await settled(database, reloads, version=27800)
    daily(database, 27801)
    assert await look(watch, reloads, 27800) is None
    assert watch.kept == ""
    monkeypatch.setattr(database_module, "RELOAD_TIMEOUT", 0.0)
    assert await look(watch, reloads, 27800) is None
    assert watch.kept == "it has daily 27800, and in its directory lies 27801"
    assert await look(watch, reloads, 27801) is not None
    assert watch.kept == ""


async def test_a_change_during_a_reload_is_loaded_by_another(database: Path, reloads: Reloads) -> None:
    watch = await settled(database, reloads)
    (database / "custom.ndb").write_text("Custom:0:*:11\n")
    await look(watch, reloads)
    (database / "custom.ndb").write_text("Custom:0:*:2222\n")
    assert await look(watch, reloads, 2) is None
    assert reloads.count == 2
    assert await look(watch, reloads, 3) is not None


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


async def settled(
    database: Path,
    reloads: Reloads,
    log: list[Load | None] | None = None,
    *,
    started: list[float | None] | None = None,
    version: int | None = None,
) -> DatabaseWatch:
    """A watch that is certain, of a clamd whose age cannot be seen any more."""
    started = [None] if started is None else started
    started[0] = time.time() + 10
    watch = DatabaseWatch(lambda: database, lambda: started[0], None if log is None else lambda: log[0])
    assert await look(watch, reloads, version) is not None
    started[0] = None
    return watch


def test_the_versions_of_clamavs_own_are_read_from_their_heads(database: Path) -> None:
    daily(database, 27801)
    (database / "daily.cld").write_bytes(b"ClamAV-VDB:17 Nov 2026:27800:1:90:x:x:me:1")
    (database / "main.cvd").write_bytes(b"no head at all")
    assert DatabaseFiles.read(database).versions == {"daily": 27801}


@pytest.mark.parametrize(
    ("name", "loaded"), [("own.ndb", True), ("daily.cvd", True), ("own.txt", False), ("clamav", False)]
)
def test_names_of_database_files(name: str, loaded: bool) -> None:
    assert is_database_file(name) is loaded


def test_the_age_of_a_process_that_cannot_be_seen_is_unknown(tmp_path: Path) -> None:
    assert process_started_at(str(tmp_path / "none")) is None


@pytest.mark.real
def test_clamd_is_younger_than_what_it_was_given_before_its_start(clamd: Clamd) -> None:
    started_at = process_started_at(str(clamd.socket))
    assert started_at is not None
    assert DatabaseFiles.read(clamd.database).changed_at < started_at < time.time()
