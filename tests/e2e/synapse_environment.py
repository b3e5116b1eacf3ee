"""An environment with Synapse and what Synapse needs, into which the scanner was installed with --no-deps.

Synapse's packages are links to those of this environment: downloading them again would take minutes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
_PACKAGED = ("pyproject.toml", "README.md", "LICENSE", "scanner")
_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]
_OFFLINE = ["--no-deps", "--no-index", "--no-cache-dir"]


# What Synapse needs of its needs; its own are there only where they are installed here.
_EXTRAS = {"twisted": ("tls",), "matrix-synapse": ("url-preview",)}


def make(directory: Path) -> Path:
    """The Python of a new environment in `directory`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "env"], check=True)
    python = directory / "env/bin/python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(directory / "env")}))
    for each in _needed_by("matrix-synapse"):
        for entry in _entries(each):
            if not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    _install_scanner(directory, python)
    return python


def _install_scanner(directory: Path, python: Path) -> None:
    source = directory / "source"  # a build leaves files behind
    source.mkdir()
    for name in _PACKAGED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    subprocess.run(
        [*_PIP, "wheel", *_OFFLINE, "--no-build-isolation", "-w", directory / "wheels", source], check=True
    )
    [wheel] = (directory / "wheels").glob("*.whl")
    subprocess.run([*_PIP, "--python", python, "install", *_OFFLINE, wheel], check=True)


def _needed_by(name: str) -> Iterator[Distribution]:
    """A package that is installed here, and all that it needs, without extras."""
    seen, waiting = set[str](), [name]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        yield found
        for text in found.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ("", *_EXTRAS.get(name, ()))
            ):
                waiting.append(needed.name)


def _entries(package: Distribution) -> set[Path]:
    """What it has put beside other packages: modules, folders, libraries and its own metadata."""
    root = Path(str(package.locate_file("")))
    tops = {Path(file).parts[0] for file in package.files or ()} - {"..", "__pycache__"}
    return {root / top for top in tops}
