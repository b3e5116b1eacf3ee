"""Where an embedded clamd lives: its directory, its configuration and its signatures.

Everything lies where Debian's AppArmor profile for clamd allows it: under /var/lib/clamav, else under
/tmp (facts/python.md). A home belongs to one service at a time: whoever holds the lock on the
directory itself, which also keeps systemd-tmpfiles from cleaning there.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

EMBEDDED = "embedded"  # its name in configurations, logs and metrics
DATABASE = Path("/var/lib/clamav")
PREFERRED_HOME = DATABASE / "media-scanner"
# What our own freshclam brings where the system's database is not ours to write.
OWN_DATABASE = PREFERRED_HOME / "database"
TEMPORARY = Path("/tmp")  # noqa: S108  # the profile names /tmp itself, not TMPDIR

# Homes in the temporary directory: of services, and of commands, which nobody else should rely on.
SERVICE_PREFIX = "media-scanner-clamd-"
_COMMAND_PREFIX = "media-scanner-command-"
SOCKET = "clamd.sock"
TEST_DATABASE = "test-database"

_LONGEST_FETCH = 3600.0  # seconds

# Files that name what is bad. Not those that only allow, or help others to find, nor PUA (off by default).
_DETECTING = re.compile(r"\.(cvd|cld|cud|db|[hlmn]db|[hm]sb|cdb|yara?)")

# Settings: facts/security.md section 2. MaxFileSize equals MaxScanSize, else too large members of a ZIP
# are skipped in silence; StreamMaxLength is over the product's own limit, so that its 413 comes first.
CLAMD_SETTINGS = """\
# Written by media-scanner at each start; changes here are lost.
Foreground yes
DatabaseDirectory {database}
TemporaryDirectory {temporary}
LocalSocket {socket}
LocalSocketMode 0660
StreamMaxLength 25M
MaxFileSize 400M
MaxScanSize 400M
MaxRecursion 17
MaxFiles 10000
MaxScanTime 20000
AlertExceedsMax yes
AlertEncrypted yes
PCREMaxFileSize 400M
ExitOnOOM yes
MaxThreads 12
MaxQueue 32
ReadTimeout 30
CommandReadTimeout 10
SelfCheck 300
ConcurrentDatabaseReload yes
"""

# The test file of eicar.org, alone (by its hash) and anywhere in a file; in hexadecimal, because a
# repository must not be a detection itself.
_EICAR_MD5 = "44d88612fea8a8f36de82e1278abb02f"
_EICAR_SIZE = 68
_EICAR = (
    "58354f2150254041505b345c505a58353428505e2937434329377d24"
    "45494341522d5354414e444152442d414e544956495255532d544553542d46494c4521"
    "24482b482a"
)


class Home:
    """A private directory (0700) that a clamd has to itself while this object is open.

    `lasting`: the next service finds in it what this one put there.
    """

    def __init__(self, path: Path, lock: int, *, lasting: bool) -> None:
        self.path = path
        self.socket = path / SOCKET
        self.config = path / "clamd.conf"
        self.temporary = path / "tmp"
        self.test_database = path / TEST_DATABASE
        self.lasting = lasting
        self._lock = lock

    @classmethod
    def take(cls, preferred: Path | None = PREFERRED_HOME, temporary: Path = TEMPORARY) -> Self:
        """The preferred home where it can be had, else a fresh one in `temporary`; raises OSError.

        A command prefers none.
        """
        _sweep(temporary)
        if preferred is not None:
            with suppress(OSError):
                return cls(preferred, _take_preferred(preferred), lasting=True)
        prefix = _COMMAND_PREFIX if preferred is None else SERVICE_PREFIX
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=temporary))
        return cls(path, _locked(path), lasting=False)

    def furnish(self, database: Path) -> None:
        """Remove what an earlier clamd left (perhaps plaintext), and write the configuration."""
        self._clear()
        self.temporary.mkdir(mode=0o700)
        if database == self.test_database:
            write_test_signatures(database)
        self.config.write_text(clamd_config(database, self.temporary, self.socket))

    def leave(self) -> None:
        """Remove everything that was made here, and give up the lock."""
        self._clear()
        if not self.lasting:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def _clear(self) -> None:
        for directory in (self.temporary, self.test_database):
            shutil.rmtree(directory, ignore_errors=True)
        for file in (self.socket, self.config):
            file.unlink(missing_ok=True)


def clamd_config(database: Path, temporary: Path, socket: Path) -> str:
    """The text of clamd.conf."""
    return CLAMD_SETTINGS.format(database=database, temporary=temporary, socket=socket)


def has_signatures(database: Path) -> bool:
    """Whether this directory holds signatures that we can read, ClamAV's own or the operator's.

    Not while a freshclam fetches the first of ClamAV's own: half of them would find half of what is bad.
    """
    with suppress(OSError):
        files = list(database.iterdir())
        return any(_is_signature_file(file) for file in files) and not _is_half_fetched(files)
    return False


def write_test_signatures(directory: Path) -> None:
    """The test set: EICAR, and three made-up signatures on the markers of their names."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    whole = marker("MediaScanner.Test.Whole")
    (directory / "test.hdb").write_text(
        f"{_EICAR_MD5}:{_EICAR_SIZE}:Eicar-Test-Signature\n"
        f"{hashlib.md5(whole, usedforsecurity=False).hexdigest()}:{len(whole)}:MediaScanner.Test.Whole\n"
    )
    at_end = marker("MediaScanner.Test.AtEnd")
    (directory / "test.ndb").write_text(
        f"Eicar-Test-Signature:0:*:{_EICAR}\n"
        f"MediaScanner.Test.Marker:0:*:{marker('MediaScanner.Test.Marker').hex()}\n"
        f"MediaScanner.Test.AtEnd:0:EOF-{len(at_end)}:{at_end.hex()}\n"
    )


def marker(signature: str) -> bytes:
    """What a made-up signature of the test set finds: anywhere, at the end, or as the whole file."""
    return hashlib.sha256(signature.encode()).hexdigest().encode()


def _is_signature_file(file: Path) -> bool:
    # bytecode.* unpacks and analyses; what it finds is in the other databases.
    if not _DETECTING.fullmatch(file.suffix) or file.stem == "bytecode":
        return False
    return os.access(file, os.R_OK) and file.is_file() and file.stat().st_size > 0


def _is_half_fetched(files: Sequence[Path]) -> bool:
    """Of main and daily only one is there, and freshclam's temporary directory says that it is at work."""
    official = {file.stem for file in files if file.suffix in {".cvd", ".cld"}}
    return len(official & {"main", "daily"}) == 1 and any(_is_at_work(file) for file in files)


def _is_at_work(directory: Path) -> bool:
    """A freshclam that was killed leaves its temporary directory behind."""
    return directory.name.startswith("tmp.") and time.time() - directory.stat().st_mtime < _LONGEST_FETCH


def _take_preferred(path: Path) -> int:
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not _is_ours(path):
        raise PermissionError(path)
    path.chmod(0o700)
    return _locked(path)


def _is_ours(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _sweep(temporary: Path) -> None:
    """Remove our homes whose owner was killed: the lock went with it. An empty one is just being made."""
    for path in itertools.chain(
        *(temporary.glob(f"{prefix}*") for prefix in (SERVICE_PREFIX, _COMMAND_PREFIX))
    ):
        with suppress(OSError):
            if _is_ours(path) and any(path.iterdir()):
                lock = _locked(path)
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
