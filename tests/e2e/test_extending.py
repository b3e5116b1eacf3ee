"""docs/extending.md: its example is taken out of the text, added to a copy of the product, and run there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.cli.test_scan import configuration
from tests.real_clamd import Clamd

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "extending.md").read_text()


def marked(mark: str) -> list[tuple[str, str]]:
    """What follows each `<!-- mark: name -->`: the name, and the block of code."""
    blocks = re.findall(rf"^<!-- {mark}(?:: (\S+))? -->\n```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert blocks, f"docs/extending.md has nothing marked {mark}"
    return blocks


def apply(change: str, file: Path) -> None:
    """Add the lines with a plus to `file`, where the others stand."""
    lines = change.splitlines()
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] == " ")
    after = "".join(f"{line[1:]}\n" for line in lines)
    source = file.read_text()
    assert source.count(before) == 1, f"docs/extending.md: where in {file.name} is this?\n{change}"
    file.write_text(source.replace(before, after))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product with the example in it."""
    copy = tmp_path_factory.mktemp("extended")
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "bin").mkdir()
    program = copy / "bin" / "media-scanner"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m scanner "$@"\n')
    program.chmod(0o755)
    for folder in ("scanner", "tests"):
        shutil.copytree(
            ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
        )
    for name, content in marked("file"):
        assert not (copy / name).exists(), name
        (copy / name).write_text(content)
    for name, change in marked("line"):
        apply(change, copy / name)
    return copy


def run(copy: Path, *arguments: str, directory: Path | None = None) -> CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=directory or copy,
        env={"PATH": f"{copy}/bin:{Path(sys.executable).parent}:{os.defpath}", "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_one_line_in_the_table_is_all_that_names_the_engine() -> None:
    added = [line for _, change in marked("line") for line in change.splitlines() if line.startswith("+")]
    assert [line.startswith("+from scanner.engines.") for line in added] == [True, False]


@pytest.mark.slow
def test_the_test_of_the_example_passes(extended: Path) -> None:
    tests = [name for name, _ in marked("file") if name.startswith("tests/")]
    done = run(extended, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^[1-9]\d* passed", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_example_keeps_the_rules_of_the_project(extended: Path) -> None:
    files = sorted({name for mark in ("file", "line") for name, _ in marked(mark)})
    checks = [
        ("ruff", "format", "--check", "--no-cache", *files),
        ("ruff", "check", "--no-cache", *files),
        ("mypy", "--no-incremental", "--follow-imports", "silent", *files),
        ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_architecture.py"),
    ]
    for check in checks:
        done = run(extended, *check)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.real
def test_what_the_example_bans_is_found(extended: Path, tmp_path: Path, clamd: Clamd) -> None:
    """The commands of the text, with the state and the configuration of this test."""
    state = tmp_path / "state"
    state.mkdir()
    config = configuration(tmp_path, f"unix:{clamd.socket}")
    (tmp_path / "plan.pdf").write_text("a leaked plan")
    places = {"/var/lib/media-scanner": state, "/etc/media-scanner.yaml": config}
    [(_, shown)] = marked("run")
    for place, ours in places.items():
        shown = shown.replace(place, str(ours))
    printed = ""
    for command in re.findall(r"^\$ (.*)$", shown, re.MULTILINE):
        printed += f"$ {command}\n{run(extended, 'sh', '-c', command, directory=tmp_path).stdout}"
    assert printed == shown
