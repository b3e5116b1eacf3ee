"""Secrets on disk: read strictly, generated once, readable by their owner alone.

A secret that was rotated away lies beside the current one, under its name and the time, and still opens
bodies: Element X never asks for the public key again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from errno import EFBIG, EINVAL
from glob import escape
from pathlib import Path
from secrets import token_hex
from stat import S_IMODE, S_ISDIR, S_ISREG
from tempfile import NamedTemporaryFile

from scanner.crypto.pk import ServerKeys, generate_secret, parse_secret
from scanner.errors import ConfigError

# The secret that opens sealed bodies, in `state_dir` where none is named.
REQUEST_SECRET = "request-secret"
# The secret that names remembered content, likewise.
INDEX_SECRET = "index-secret"
# The private half of the SOC's key, where no public one is named.
QUARANTINE_KEY = "quarantine-key"
# What a scanner signs the audit chain with.
AUDIT_KEY = "audit-key"
_RETIRED = ".retired-"
_LARGEST = 64 * 1024


def read_small(path: Path) -> bytes:
    """A regular file of 64 KiB at most: no device is read for ever, no pipe waited for. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not S_ISREG(os.fstat(fd).st_mode) and not S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(EINVAL, "is no regular file")
        content = os.read(fd, _LARGEST + 1)
    finally:
        os.close(fd)
    if len(content) > _LARGEST:
        raise OSError(EFBIG, "is too large")
    return content


def read_secret(path: Path, key: str) -> bytes:
    """The 32 bytes of a named secret file; `key` is the configuration key that names it."""
    try:
        return parse_secret(read_small(path))
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{key}: {path}: {error}") from None


def read_token(path: Path, key: str) -> str:
    """The access token in a named file; `key` is the configuration key that names it."""
    try:
        token = read_small(path).decode("ascii").strip()
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise ConfigError(f"{key}: {path}: holds no access token")
    return token


def read_or_generate_secret(named: Path | None, default: Path, key: str) -> bytes:
    """The named secret, or the one in `state_dir`, which is made at the first start."""
    if named is not None:
        return read_secret(named, key)
    try:
        write_secret(default)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"state_dir: {default}: {error.strerror}") from None
    return read_secret(default, "state_dir")


def server_keys(named: Path | None, default: Path, retired: Iterable[Path]) -> ServerKeys:
    """What opens sealed bodies: the current secret, those that were rotated away beside it, and `retired`."""
    current = read_or_generate_secret(named, default, "crypto.secret_file")
    beside = [read_secret(path, "crypto.secret_file") for path in retired_secret_files(named or default)]
    return ServerKeys(
        current, beside + [read_secret(path, "crypto.retired_secret_files") for path in retired]
    )


def write_secret(path: Path, secret: str | None = None) -> None:
    """A secret, whole or not at all; a new one unless given. Raises FileExistsError, never replaces one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.") as draft:  # mode 0600
        draft.write((secret or generate_secret()) + "\n")
        draft.flush()
        os.fsync(draft.fileno())
        os.link(draft.name, path)


def retired_secret_files(path: Path) -> list[Path]:
    """The secrets that `rotate_secret` put aside for the one in `path`, the newest first."""
    return sorted(path.parent.glob(f"{escape(path.name)}{_RETIRED}*"), reverse=True)


def rotate_secret(path: Path) -> Path:
    """Put a new secret into `path`, with owner and mode of the old one; returns where that lies now.

    The old one gets its second name before the new one takes the first: no crash leaves neither. Raises
    FileExistsError rather than replace an old one, and other OSErrors.
    """
    retired = path.with_name(f"{path.name}{_RETIRED}{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    draft = path.with_name(f".{path.name}.{token_hex(8)}")
    with _locked(path.parent) as folder:
        try:
            write_secret(draft)
            _make_like(path, draft)
            os.link(path, retired, follow_symlinks=False)
            os.fsync(folder)
            draft.replace(path)
            os.fsync(folder)
        finally:
            draft.unlink(missing_ok=True)
    return retired


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """The folder's descriptor; two rotations at once would lose the secret of one of them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _make_like(path: Path, draft: Path) -> None:
    """Whoever reads the one must be able to read the other, whoever runs this command."""
    status = path.stat()
    os.chown(draft, status.st_uid, status.st_gid)
    draft.chmod(S_IMODE(status.st_mode))
