from __future__ import annotations

import tomllib

from scanner.cli.version import product_version
from tests.cli.command import ROOT


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert product_version() == project["version"]
