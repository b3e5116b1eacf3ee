"""Which configuration a command is given that names none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import media_scanner, refused


def level(*arguments: str | Path) -> tuple[str, str]:
    """The log level and where it comes from."""
    shown = json.loads(media_scanner("config", "show", "--json", *arguments).stdout)["log"]["level"]
    return shown["value"], shown["origin"]


@pytest.fixture
def installed(system_file: Path) -> Path:
    system_file.parent.mkdir()
    system_file.write_text("log: {level: warning}")
    return system_file


@pytest.mark.usefixtures("installed")
def test_the_systems_configuration_counts_where_no_other_is_named() -> None:
    assert level() == ("warning", "file")


@pytest.mark.usefixtures("installed")
def test_another_configuration_counts_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("")
    assert level("--config", other) == ("info", "default")


def test_without_any_the_defaults_count() -> None:
    assert level() == ("info", "default")


def test_the_systems_configuration_is_named_when_it_cannot_be_used(installed: Path) -> None:
    installed.write_text("log: {lvl: info}")
    assert refused(media_scanner("check-config")) == f"{installed}: log.lvl: there is no such key"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "words",
    [
        ("verdict", "list"),
        ("verdict", "deny", "0" * 64, "--reason", "x", "--key", "none"),
        ("verdict", "forget", "0" * 64, "--reason", "x", "--key", "none"),
        ("audit", "tail"),
        ("audit", "verify"),
        ("quarantine", "list"),
        ("quarantine", "release", "0" * 64, "--reason", "x", "--key", "none"),
        ("quarantine", "approve", "x", "--key", "none"),
        ("quarantine", "hold", "0" * 64, "--reason", "x"),
    ],
)
def test_every_analysts_command_takes_the_systems_configuration(installed: Path, words: tuple[str]) -> None:
    installed.write_text("quarantine: {stroe: s3}")
    assert refused(media_scanner(*words)) == f"{installed}: quarantine.stroe: there is no such key"


def test_help_says_which_configuration_that_is() -> None:
    assert "if not /etc/media-scanner.yaml" in " ".join(media_scanner("doctor", "--help").stdout.split())
