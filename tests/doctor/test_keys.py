from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from scanner.crypto.pk import ServerKeys, parse_secret
from scanner.doctor.finding import Notes, Status
from scanner.doctor.keys import Files, Secret, examine
from scanner.key_files import rotate_secret, write_secret
from tests.doctor.found import named, not_ok

KEY = "crypto.secret_file"
NAME = "request secret"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to somebody else")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    write_secret(path / "secret")
    return path


async def noted(
    state: Path, *, generated: bool = True, config: Path | None = None, secrets: bool = False
) -> Notes:
    notes = Notes()
    secret = Secret(NAME, KEY, state / "secret", generated=generated, public=True)
    await examine(notes, Files(state, (secret,), config, config_holds_secrets=secrets))
    file = state / "secret"
    if file.is_file() and file.stat().st_size:
        assert file.read_text().strip() not in repr(notes)
    return notes


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


async def test_a_generated_secret_is_named_and_its_public_key_is_shown(state: Path) -> None:
    notes = await noted(state)
    assert not_ok(notes) == {}
    assert f"{state}/secret, generated, mode 0600" in named(notes, NAME).found
    public = ServerKeys(parse_secret((state / "secret").read_bytes())).public_key
    assert named(notes, "request secret's public key").found == public


async def test_retired_secrets_beside_it_are_looked_at(state: Path) -> None:
    before = ServerKeys(parse_secret((state / "secret").read_bytes())).public_key
    rotate_secret(state / "secret").chmod(0o644)
    notes = await noted(state)
    assert not_ok(notes) == {"retired secret": Status.FAILED}
    assert named(notes, "retired secret's public key").found == before


@pytest.mark.parametrize(
    ("mode", "status"),
    [
        (0o600, Status.OK),
        (0o400, Status.OK),
        (0o640, Status.WARNING),
        (0o644, Status.FAILED),
        (0o660, Status.FAILED),
    ],
)
async def test_a_secret_is_its_owners_alone(state: Path, mode: int, status: Status) -> None:
    (state / "secret").chmod(mode)
    finding = named(await noted(state), NAME)
    assert finding.status is status
    assert finding.advice == ("" if status is Status.OK else f"chmod 600 {state}/secret")


@pytest.mark.parametrize(
    "content", ["", "short", "A" * 36, "\0" * 44], ids=["empty", "short", "cut", "zeros"]
)
async def test_a_damaged_secret_is_a_failure(state: Path, content: str) -> None:
    (state / "secret").write_text(content)
    assert not_ok(await noted(state)) == {NAME: Status.FAILED}


async def test_an_absent_secret_is_a_fault_only_where_it_is_named(state: Path) -> None:
    (state / "secret").unlink()
    assert not_ok(await noted(state)) == {NAME: Status.WARNING}
    assert not_ok(await noted(state, generated=False)) == {NAME: Status.FAILED}
    assert is_empty(state)


@as_root
async def test_a_secret_that_the_services_user_cannot_read_is_a_failure(state: Path) -> None:
    os.chown(state, 65534, -1)
    notes = await noted(state)
    assert not_ok(notes) == {NAME: Status.FAILED}
    assert named(notes, NAME).advice.startswith("chown nobody ")


async def test_a_state_directory_that_is_not_there_yet_is_a_warning(tmp_path: Path) -> None:
    assert not_ok(await noted(tmp_path / "absent")) == {"state_dir": Status.WARNING, NAME: Status.WARNING}


@pytest.mark.parametrize("mode", [0o770, 0o777])
async def test_a_state_directory_that_others_may_write_to_is_a_failure(state: Path, mode: int) -> None:
    await asyncio.to_thread(state.chmod, mode)
    assert not_ok(await noted(state)) == {"state_dir": Status.FAILED}


async def test_a_file_in_the_place_of_the_state_directory_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    assert not_ok(await noted(tmp_path / "state")) == {"state_dir": Status.FAILED, NAME: Status.FAILED}


@pytest.mark.parametrize(
    ("mode", "secrets", "status"),
    [
        (0o644, False, Status.OK),
        (0o640, True, Status.OK),
        (0o644, True, Status.WARNING),
        (0o664, False, Status.FAILED),
    ],
)
async def test_the_configuration_may_be_read_by_all_unless_it_holds_secrets(
    state: Path, mode: int, secrets: bool, status: Status
) -> None:
    config = state / "scanner.yaml"
    config.touch()
    config.chmod(mode)
    assert named(await noted(state, config=config, secrets=secrets), "configuration").status is status
