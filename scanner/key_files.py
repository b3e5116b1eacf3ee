"""Secrets on disk: read strictly, generated once, readable by their owner alone."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from scanner.crypto.pk import generate_secret, parse_secret
from scanner.errors import ConfigError

# The secret that opens sealed bodies, in `state_dir` where none is named.
REQUEST_SECRET = "request-secret"


def read_secret(path: Path, key: str) -> bytes:
    """The 32 bytes of a named secret file; `key` is the configuration key that names it."""
    try:
        return parse_secret(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{key}: {path}: {error}") from None


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


def write_secret(path: Path) -> None:
    """A new secret, whole or not at all. Raises FileExistsError rather than replace one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.") as draft:  # mode 0600
        draft.write(generate_secret() + "\n")
        draft.flush()
        os.fsync(draft.fileno())
        os.link(draft.name, path)
