"""The clamd of a service beside us: found while the service lives, and not mistaken for a stranger's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.clamd.home import SERVICE_PREFIX, Home
from scanner.clamd.neighbour import Neighbour, find_neighbour

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to somebody else")


@pytest.fixture
def place() -> Iterator[Path]:
    """One that other users can look into: pytest's own are closed to them."""
    path = Path(tempfile.mkdtemp(prefix="neighbour-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def find(place: Path, *trusted: int) -> Neighbour | None:
    return find_neighbour(trusted, place / "preferred", place)


def test_a_service_is_found_in_its_preferred_home_while_it_runs(place: Path) -> None:
    home = Home.take(place / "preferred", place)
    home.furnish(home.test_database)
    found = find(place)
    assert found is not None
    assert (found.home, found.clamd.address.path) == (home.path, str(home.socket))
    home.leave()
    assert find(place) is None


def test_what_a_killed_service_left_is_no_neighbour(place: Path) -> None:
    home = Home.take(place / "preferred", place)
    home.furnish(home.test_database)
    home.socket.touch()
    os.close(home._lock)  # noqa: SLF001 - what its death does
    assert find(place) is None


def test_a_service_in_the_temporary_directory_is_found_too(place: Path) -> None:
    home = Home.take(place / "absent" / "preferred", place)
    assert find(place) == Neighbour(home.path)
    home.leave()


def test_the_clamd_of_another_command_is_not_relied_on(place: Path) -> None:
    home = Home.take(None, place)
    assert find(place) is None
    home.leave()


def test_looking_does_not_take_the_home_away_from_a_service(place: Path) -> None:
    (place / "preferred").mkdir(mode=0o700)
    assert find(place) is None
    home = Home.take(place / "preferred", place)
    assert home.path == place / "preferred"
    home.leave()


def test_test_signatures_are_known_from_its_home(place: Path) -> None:
    home = Home.take(place / "preferred", place)
    clamd = Neighbour(home.path).clamd
    home.furnish(home.test_database)
    assert clamd.test_signatures()
    home.furnish(place)  # real ones have come
    assert not clamd.test_signatures()
    home.leave()


@pytest.mark.real
@as_root
def test_a_strangers_home_in_the_temporary_directory_counts_only_if_he_is_trusted(place: Path) -> None:
    home = Home.take(place / "absent" / "preferred", place)
    os.chown(home.path, NOBODY, NOBODY)
    assert find(place) is None
    assert find(place, NOBODY) == Neighbour(home.path)
    os.chown(home.path, 0, 0)
    home.leave()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_no_home(place: Path, kind: str) -> None:
    strange = place / f"{SERVICE_PREFIX}strange"
    if kind == "file":
        strange.touch()
    else:
        strange.symlink_to(place)
    assert find(place) is None


_FIND = """
import sys
from pathlib import Path
from scanner.clamd.neighbour import find_neighbour
place = Path(sys.argv[1])
try:
    print(find_neighbour([], place / "preferred", place))
except PermissionError as closed:
    print("closed", closed.filename)
"""


@pytest.mark.real
@as_root
def test_a_home_that_we_may_not_enter_is_said_to_be_closed(place: Path) -> None:
    home = Home.take(place / "preferred", place)
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    found = subprocess.check_output([*become, sys.executable, "-c", _FIND, str(place)], text=True)
    assert found == f"closed {home.path}\n"
    home.leave()
