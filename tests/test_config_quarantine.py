"""Who may say what, as it is configured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scanner.config import Config
from scanner.errors import ConfigError
from tests.quarantine.people import configured_analysts


def problem(tmp_path: Path, **quarantine: Any) -> str:
    """What is wrong with it, without where."""
    file = tmp_path / "config.yaml"
    file.write_text("quarantine:\n" + "".join(f"  {key}: {value}\n" for key, value in quarantine.items()))
    with pytest.raises(ConfigError) as caught:
        Config.load(file, {})
    return caught.value.info.removeprefix(f"{file}: ")


def people(*names: str, **changes: str) -> list[dict[str, str]]:
    return [{**each, "role": str(each["role"]), **changes} for each in configured_analysts(*names)]


def test_analysts_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        f"quarantine: {{name: ours, four_eyes: true, analysts: {people()}}}"
    )
    quarantine = Config.load(tmp_path / "config.yaml", {}).quarantine
    assert [(each.name, each.role) for each in quarantine.analysts][:2] == [
        ("alice", "analyst"),
        ("bob", "approver"),
    ]
    assert quarantine.four_eyes


@pytest.mark.parametrize("names", [(), ("alice",), ("bob",), ("alice", "dave"), ("bob", "dave")])
def test_four_eyes_need_two_people_one_of_them_an_approver(tmp_path: Path, names: tuple[str, ...]) -> None:
    listed = people(*names) if names else []
    said = problem(tmp_path, name="ours", analysts=listed, four_eyes=True)
    assert said.startswith("quarantine.four_eyes: needs two people in quarantine.analysts, one of them an ap")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Alice"}, "quarantine.analysts.0.name: must be a name of a-z, 0-9, dots and dashes"),
        ({"name": "scanner-1"}, "quarantine.analysts.0.name: must not begin with scanner-"),
        ({"role": "boss"}, "quarantine.analysts.0.role: must be 'analyst', 'approver' or 'former'"),
        ({"public_key": "abc"}, "quarantine.analysts.0.public_key: must be a public key"),
        ({"key": "x"}, "quarantine.analysts.0.key: there is no such key"),
    ],
)
def test_analyst_with_something_odd_is_refused(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    assert problem(tmp_path, analysts=people("alice", **changes)).startswith(said)


def test_nobody_is_two_people(tmp_path: Path) -> None:
    alice, bob = people("alice", "bob")
    for member in ("name", "public_key"):
        twice = [alice, {**bob, member: alice[member]}]
        assert (
            problem(tmp_path, analysts=twice) == f"quarantine.analysts: must not have the same {member} twice"
        )
    padded = [alice, {**bob, "public_key": alice["public_key"] + "="}]
    assert "same public_key" in problem(tmp_path, analysts=padded)


def test_what_is_signed_names_one_store_alone(tmp_path: Path) -> None:
    """Directories are called the same on many machines."""
    said = problem(tmp_path, analysts=people("alice"))
    assert said.startswith("quarantine.analysts: needs a quarantine.name")
    for fine in ({"name": "ours"}, {"store": "off"}, {"store": "s3", "s3": {"bucket": "q"}}):
        quarantine = Config.model_validate({"quarantine": {"analysts": people("alice"), **fine}}).quarantine
        assert len(quarantine.analysts) == 1


def test_bucket_is_named_where_there_is_one(tmp_path: Path) -> None:
    assert problem(tmp_path, store="s3", s3="{}").startswith("quarantine.s3: needs a bucket")
