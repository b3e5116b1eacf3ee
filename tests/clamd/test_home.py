from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.clamd.home import (
    DATABASE,
    PREFERRED_HOME,
    SERVICE_PREFIX,
    TEMPORARY,
    Home,
    clamd_config,
    has_signatures,
    write_test_signatures,
)
from tests.real_clamd import EICAR

_PROFILE = Path("/etc/apparmor.d/usr.sbin.clamd")


@pytest.fixture
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="home-") as directory:
        yield Path(directory)


def test_home_is_the_preferred_one_and_private(temporary: Path) -> None:
    preferred = temporary / "preferred"
    home = Home.take(preferred, temporary)
    assert home.path == preferred
    assert stat.S_IMODE(preferred.stat().st_mode) == 0o700
    home.leave()
    assert not list(preferred.iterdir())


def test_home_is_a_fresh_one_where_the_preferred_one_cannot_be_made(temporary: Path) -> None:
    home = Home.take(temporary / "absent" / "preferred", temporary)
    assert home.path.parent == temporary
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    home.leave()
    assert not home.path.exists()


def test_somebodys_link_is_not_a_home(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / "preferred").symlink_to("elsewhere")
    home = Home.take(temporary / "preferred", temporary)
    assert home.path.parent == temporary
    assert home.path.name not in {"preferred", "elsewhere"}
    home.leave()


def test_second_service_gets_another_home(temporary: Path) -> None:
    first = Home.take(temporary / "preferred", temporary)
    second = Home.take(temporary / "preferred", temporary)
    third = Home.take(temporary / "preferred", temporary)
    assert len({first.path, second.path, third.path}) == 3
    for home in (first, second, third):
        home.leave()


def test_home_of_a_killed_service_is_removed_and_a_living_ones_is_not(temporary: Path) -> None:
    nowhere = temporary / "absent" / "preferred"
    living = Home.take(nowhere, temporary)
    killed = temporary / "media-scanner-clamd-killed"
    killed.mkdir(mode=0o700)
    (killed / "tmp").mkdir()
    (killed / "tmp" / "plaintext").touch()
    Home.take(nowhere, temporary).leave()
    assert living.path.exists()
    assert not killed.exists()
    living.leave()


def test_home_of_a_command_is_never_the_services_and_is_removed_after_its_death(temporary: Path) -> None:
    home = Home.take(None, temporary)
    assert home.path.parent == temporary
    assert not home.path.name.startswith(SERVICE_PREFIX)
    home.furnish(home.test_database)
    Home.take(None, temporary).leave()
    assert home.path.exists()
    os.close(home._lock)  # noqa: SLF001 - what its death does
    Home.take(temporary / "preferred", temporary).leave()
    assert not home.path.exists()


def test_a_home_that_is_just_being_made_is_left_alone(temporary: Path) -> None:
    (temporary / "media-scanner-clamd-fresh").mkdir()
    Home.take(temporary / "preferred", temporary).leave()
    assert (temporary / "media-scanner-clamd-fresh").exists()


def test_lock_is_released_when_the_home_is_left(temporary: Path) -> None:
    home = Home.take(temporary / "preferred", temporary)
    home.leave()
    again = Home.take(temporary / "preferred", temporary)
    assert again.path == home.path
    again.leave()


def test_furnishing_removes_what_a_killed_clamd_left(temporary: Path) -> None:
    home = Home.take(temporary / "preferred", temporary)
    home.temporary.mkdir()
    (home.temporary / "plaintext").touch()
    home.socket.touch()
    home.furnish(home.test_database)
    assert not list(home.temporary.iterdir())
    assert not home.socket.exists()
    home.leave()


@pytest.mark.parametrize("name", ["main.cvd", "daily.cld", "local.ndb", "mine.hsb", "rules.yara", "old.db"])
def test_files_that_name_what_is_bad_are_signatures(temporary: Path, name: str) -> None:
    (temporary / name).write_bytes(b"x")
    assert has_signatures(temporary)


def test_half_of_what_freshclam_is_fetching_are_no_signatures_yet(temporary: Path) -> None:
    """Half is what an operator may want to have, though: only while a freshclam is at work."""
    (temporary / "main.cvd").write_bytes(b"x")
    at_work = temporary / "tmp.0123456789"
    at_work.mkdir()
    assert not has_signatures(temporary)
    (temporary / "daily.cvd").write_bytes(b"x")
    assert has_signatures(temporary)
    (temporary / "daily.cvd").unlink()
    os.utime(at_work, (1, 1))
    assert has_signatures(temporary), "that one was killed long ago"


@pytest.mark.parametrize(
    "name", ["bytecode.cvd", "good.fp", "local.ign2", "freshclam.dat", "pua.ndu", "x.cdbx"]
)
def test_files_that_name_nothing_bad_are_no_signatures(temporary: Path, name: str) -> None:
    (temporary / name).write_bytes(b"x")
    assert not has_signatures(temporary)


def test_an_empty_file_or_an_absent_directory_has_no_signatures(temporary: Path) -> None:
    (temporary / "main.cvd").touch()
    assert not has_signatures(temporary)
    assert not has_signatures(temporary / "absent")


def test_test_signatures_are_no_detection_themselves(temporary: Path) -> None:
    write_test_signatures(temporary)
    assert not any(EICAR in file.read_bytes() for file in temporary.iterdir())


def test_configuration_closes_what_the_facts_name() -> None:
    settings = dict(
        line.split(" ", 1)
        for line in clamd_config(Path("/d"), Path("/t"), Path("/s")).splitlines()
        if not line.startswith("#")
    )
    assert settings["MaxFileSize"] == settings["MaxScanSize"]
    assert settings["AlertExceedsMax"] == settings["AlertEncrypted"] == "yes"
    assert not {"VirusEvent", "TCPSocket", "User", "LogFile"} & settings.keys()


@pytest.mark.real
@pytest.mark.parametrize("place", [PREFERRED_HOME, TEMPORARY / "media-scanner-clamd-0a_b1c2d"])
def test_debians_apparmor_profile_allows_every_path(place: Path) -> None:
    """The profile as Debian's clamav-daemon installs it."""
    home = Home(place, -1, lasting=True)
    needed = {
        home.config: "r",
        home.socket: "rw",
        home.temporary: "rw",
        home.temporary / "20260101-clamav-0123456789.tmp" / "file": "rw",
        home.test_database: "r",
        home.test_database / "test.ndb": "r",
        DATABASE / "daily.cld": "r",
        Path("/usr/sbin/clamd"): "r",
    }
    rules = allowed(_PROFILE.read_text())
    for path, access in needed.items():
        assert any(rule.fullmatch(str(path)) and set(access) <= given for rule, given in rules), path


@pytest.mark.real
def test_debians_apparmor_profile_forbids_what_we_avoid() -> None:
    """Without this the test above might pass on rules that match anything."""
    rules = allowed(_PROFILE.read_text())
    for path in (
        "/etc/media-scanner/clamd.conf",
        "/dev/shm/tmp",
        "/var/lib/media-scanner/clamd.sock",
        "/tmpx",
    ):
        assert not any(rule.fullmatch(path) for rule, _ in rules), path


def allowed(profile: str) -> list[tuple[re.Pattern[str], set[str]]]:
    """Its file rules without variables: which paths, which access."""
    found = re.findall(r"^\s*(/\S*)\s+([a-z]+),\s*$", profile, re.MULTILINE)
    return [(re.compile(expression(glob)), set(access)) for glob, access in found]


def expression(glob: str) -> str:
    """AppArmor's globs as a regular expression: `**` crosses slashes, `*` does not."""
    tokens = {"**": ".+", "*": "[^/]*", "{": "(?:", "}": ")", ",": "|"}
    pieces: list[str] = re.findall(r"\*\*|\[[^]]*\]|.", glob)
    return "".join(piece if piece[0] == "[" else tokens.get(piece, re.escape(piece)) for piece in pieces)
