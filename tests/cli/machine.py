"""A machine as far as commands look for a service on it: /tmp and /var/lib/clamav are the test's own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.cli.command import ROOT

# A checkout there would be gone with the /tmp that is replaced.
_CHECKOUT_IN_TMP = ROOT.relative_to("/tmp") if ROOT.is_relative_to("/tmp") else None
_MOUNTS = 'mount --bind "$1" /var/lib/clamav && mount --rbind "$2" /tmp && shift 2 && exec "$@"'


@dataclass(frozen=True)
class Machine:
    """Files of a test outside /tmp, and a launcher of programs that see such a machine."""

    directory: Path

    @classmethod
    @contextmanager
    def new(cls) -> Iterator[Self]:
        """One whose files are gone after the block."""
        with tempfile.TemporaryDirectory(prefix="machine-", dir="/var/tmp") as directory:
            machine = cls(Path(directory))
            machine._make()
            yield machine

    @property
    def database(self) -> Path:
        return self.directory / "clamav"

    @property
    def temporary(self) -> Path:
        return self.directory / "tmp"

    @property
    def launcher(self) -> list[str]:
        mounts = _MOUNTS
        if _CHECKOUT_IN_TMP is not None:
            mounts = f"mount --bind {ROOT} {self.temporary / _CHECKOUT_IN_TMP} && {mounts}"
        become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        enter = ["unshare", "--mount", *become_root, "sh", "-c", mounts, "sh"]
        return [*enter, str(self.database), str(self.temporary)]

    def in_tmp(self) -> list[Path]:
        ours = _CHECKOUT_IN_TMP.parts[:1] if _CHECKOUT_IN_TMP is not None else ()
        return [path for path in self.temporary.iterdir() if path.name not in ours]

    def leftovers(self) -> list[Path]:
        return [*self.in_tmp(), *self.database.glob("*/*")]

    def _make(self) -> None:
        """Open to other users."""
        for path, mode in ((self.directory, 0o755), (self.database, 0o755), (self.temporary, 0o1777)):
            path.mkdir(exist_ok=True)
            path.chmod(mode)
        if _CHECKOUT_IN_TMP is not None:
            (self.temporary / _CHECKOUT_IN_TMP).mkdir(parents=True)
