"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.cli import options
from tests.cli.desk import Desk
from tests.cli.machine import Machine


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine.new() as machine:
        yield machine


@pytest.fixture(autouse=True)
def system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of this machine's own configuration, if it has one; there is none."""
    file = tmp_path / "system" / "media-scanner.yaml"
    monkeypatch.setattr(options, "SYSTEM_FILE", file)
    return file
