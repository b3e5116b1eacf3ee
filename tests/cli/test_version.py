from __future__ import annotations

import platform
import shutil
import tomllib
from importlib.metadata import version

import pytest

from scanner.cli.version import all_versions, product_version
from tests.cli.command import ROOT
from tests.real_clamd import clamd_binary


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert product_version() == project["version"]


def test_everything_that_production_needs_has_its_version() -> None:
    versions = all_versions()
    assert list(versions)[:4] == ["media-scanner", "clamd", "libmagic", "Python"]
    assert versions["Python"] == platform.python_version()
    assert versions["libmagic"].startswith("5.")
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    required = {requirement.split(">")[0] for requirement in requirements}
    assert versions.keys() - {"media-scanner", "clamd", "libmagic", "Python"} == required
    assert versions["aiohttp"] == version("aiohttp")


@pytest.mark.real
def test_version_of_clamd_is_that_of_this_machine() -> None:
    assert clamd_binary()
    assert all_versions()["clamd"][0].isdigit()


def test_machine_without_clamd_is_said_to_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *arguments, **named: None)
    assert all_versions()["clamd"] == "not installed"


def test_clamd_that_does_not_run_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/bin/false", "/nonexistent"):
        monkeypatch.setattr(shutil, "which", lambda *arguments, program=program, **named: program)
        assert all_versions()["clamd"] == "does not run"
