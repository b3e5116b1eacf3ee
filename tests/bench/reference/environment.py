"""The reference in a virtual environment of its own, made on first use from what pip is configured to use.

Every file is pinned by its hash. The package is not built: its Python sources are taken as they are, and
`mcs_rust.py` stands in for its compiled module.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.services import BenchError

_HERE = Path(__file__).parent
_PACKAGE = "matrix_content_scanner"


def reference_python(folder: Path, say: Callable[[str], None]) -> Path:
    """The interpreter that has the reference; below `folder`."""
    environment = folder / "reference"
    python = environment / "bin" / "python"
    done = environment / "ready"
    pins = "".join((_HERE / name).read_text() for name in ("package.txt", "requirements.txt", "mcs_rust.py"))
    if not done.exists() or done.read_text() != pins:
        say("installing the reference (once)")
        _run(sys.executable, "-m", "venv", "--clear", str(environment))
        _pip(python, "install", "--require-hashes", "-r", str(_HERE / "requirements.txt"))
        _install_sources(python, next((environment / "lib").glob("python*/site-packages")))
        done.write_text(pins)
    return python


def _install_sources(python: Path, packages: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = ("--require-hashes", "--no-deps", "--no-binary", ":all:", "-r", str(_HERE / "package.txt"))
        _pip(python, "download", "-d", folder, *source)
        (archive,) = Path(folder).glob("*.tar.gz")
        shutil.unpack_archive(archive, folder)
        (sources,) = Path(folder).glob(f"*/src/{_PACKAGE}")
        shutil.copytree(sources, packages / _PACKAGE)
    shutil.copy(_HERE / "mcs_rust.py", packages / _PACKAGE)


def _pip(python: Path, command: str, *arguments: str) -> None:
    _run(str(python), "-m", "pip", command, "-qq", "--disable-pip-version-check", "--no-input", *arguments)


def _run(*command: str) -> None:
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if ran.returncode:
        raise BenchError(f"the reference could not be installed: {ran.stdout.strip()[-500:]}")
