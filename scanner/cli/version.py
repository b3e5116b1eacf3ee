"""Which version of the product this is, and of what it stands on."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, requires, version

import magic

_DISTRIBUTION = "matrix-media-scanner"
_SYSTEM_PATH = "/usr/sbin:/usr/local/sbin"  # where clamd is, which is not in everybody's PATH


def product_version() -> str:
    """Of the installed package; "unknown" where it runs from a folder."""
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def all_versions() -> dict[str, str]:
    """Of the product, of clamd, libmagic and Python on this machine, and of every library that we require."""
    libmagic = divmod(magic.version(), 100)  # type: ignore[no-untyped-call]
    return {
        "media-scanner": product_version(),
        "clamd": _clamd_version(),
        "libmagic": "{}.{:02}".format(*libmagic),
        "Python": platform.python_version(),
        **{name: version(name) for name in _required()},
    }


def _clamd_version() -> str:
    """With the signatures that it would load, where there are any."""
    binary = shutil.which("clamd") or shutil.which("clamd", path=_SYSTEM_PATH)
    if binary is None:
        return "not installed"
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "does not run"
    return done.stdout.strip().removeprefix("ClamAV ")


def _required() -> list[str]:
    try:
        requirements = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
    ours = (requirement for requirement in requirements if "extra ==" not in requirement)
    return sorted(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in ours)
