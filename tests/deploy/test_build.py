"""The build stage of deploy/Dockerfile, carried out below a directory instead of in an image."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scanner.cli.version import product_version
from tests.deploy.dockerfile import CHECKOUT, stages


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("python3.11") is None, reason="needs the Python of the image")
def test_the_image_gets_what_is_pinned_and_no_tool_to_install_more(tmp_path: Path) -> None:
    stage, sources = stages()["build"], tmp_path / "src"
    for source, target in stage.copies():
        take = shutil.copytree if (CHECKOUT / source).is_dir() else shutil.copy
        (sources / target).parent.mkdir(parents=True, exist_ok=True)
        take(CHECKOUT / source, sources / target)
    for command in build_commands(tmp_path):
        subprocess.run(["sh", "-euc", command], cwd=sources, check=True)

    programs = tmp_path / "opt" / "media-scanner" / "bin"
    told = subprocess.check_output([programs / "media-scanner", "--version"], cwd="/", text=True)
    assert product_version() in told
    for tool in ("pip", "setuptools"):
        done = subprocess.run([programs / "python", "-c", f"import {tool}"], cwd="/", check=False)
        assert done.returncode != 0, tool


def build_commands(root: Path) -> list[str]:
    """All but Debian's packages, with absolute paths below `root`."""
    commands = [part.strip() for text in stages()["build"].all("RUN") for part in text.split("&&")]
    return [
        re.sub(r"(?:^|(?<= ))/", f"{root}/", command)
        for command in commands
        if not command.startswith("apt-get")
    ]
