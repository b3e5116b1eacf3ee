"""Secrets and the files around them: there, whole, and nobody else's."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from scanner.crypto.pk import ServerKeys
from scanner.doctor.finding import Notes
from scanner.doctor.words import size
from scanner.errors import ConfigError
from scanner.key_files import read_secret, retired_secret_files

_LITTLE_SPACE = 256 * 2**20
_ROOT = 0


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret file. `name` is what stands in the report, `key` names it; null there: it is `generated`."""

    name: str
    key: str
    path: Path
    generated: bool = False
    public: bool = False


@dataclass(frozen=True, slots=True)
class Files:
    """What to look at. `config_holds_secrets`: it has headers for the homeserver, a token perhaps."""

    state_dir: Path
    secrets: tuple[Secret, ...]
    config: Path | None = None
    config_holds_secrets: bool = False


async def examine(notes: Notes, files: Files) -> None:
    """All files; what this user may not see is skipped."""
    _state_dir(notes, files.state_dir)
    owner = _owner(files.state_dir)
    for secret in files.secrets:
        _secret(notes, secret, owner)
        for retired in retired_secret_files(secret.path) if secret.public else []:
            _secret(notes, Secret("retired secret", secret.key, retired, public=True), owner)
    if files.config is not None:
        _config(notes, files.config, holds_secrets=files.config_holds_secrets)


def _state_dir(notes: Notes, path: Path) -> None:
    name = "state_dir"
    try:
        status = path.stat()
    except PermissionError:
        notes.skipped(name, f"{path}: closed to this user", "run doctor as the service's user, or as root")
        return
    except OSError as problem:
        advice = f"start the service once, or make it: install -d -m 700 -o media-scanner {path}"
        notes.warning(name, f"{path}: {problem.strerror}", advice)
        return
    if not stat.S_ISDIR(status.st_mode):
        notes.failed(name, f"{path}: is no directory", "correct state_dir")
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        notes.failed(name, f"{path}: others may write there, secrets included", f"chmod 700 {path}")
    elif status.st_uid == os.geteuid() and not os.access(path, os.W_OK):
        notes.failed(name, f"{path}: cannot be written to", f"chmod 700 {path}; is it mounted read-only?")
    else:
        notes.ok(name, f"{path}, of {_user(status.st_uid)}")
        _space(notes, path)


def _space(notes: Notes, path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < _LITTLE_SPACE:
        found = f"{size(free)} free at {path}"
        notes.warning("disk space", found, "make room: verdicts cannot be kept on a full disk")
    else:
        notes.ok("disk space", f"{size(free)} free")


def _secret(notes: Notes, secret: Secret, service: int | None) -> None:
    path = secret.path
    try:
        status = path.stat()
        content = read_secret(path, secret.key)
    except FileNotFoundError:
        _note_absent(notes, secret)
        return
    except (OSError, ConfigError) as problem:
        if os.access(path, os.R_OK):
            notes.failed(secret.name, str(problem), "restore the file from a backup")
        else:
            _note_closed(notes, secret, service)
        return
    _note_permissions(notes, secret, status, service)
    if secret.public:
        notes.ok(f"{secret.name}'s public key", ServerKeys(content).public_key)


def _note_absent(notes: Notes, secret: Secret) -> None:
    if secret.generated:
        found = f"{secret.path}: not there yet"
        notes.warning(secret.name, found, "start the service once, which makes it")
    else:
        notes.failed(
            secret.name, f"{secret.path}: No such file", f"correct {secret.key}, or restore the file"
        )


def _note_closed(notes: Notes, secret: Secret, service: int | None) -> None:
    if service == os.geteuid():
        found = f"{secret.path}: the service's user may not read it"
        notes.failed(secret.name, found, f"chown {_user(service)} {secret.path}")
    else:
        found = f"{secret.path}: closed to this user"
        notes.skipped(secret.name, found, "run doctor as the service's user, or as root")


def _note_permissions(notes: Notes, secret: Secret, status: os.stat_result, service: int | None) -> None:
    path, mode = secret.path, stat.S_IMODE(status.st_mode)
    about = f"{path}{', generated' if secret.generated else ''}"
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        notes.failed(secret.name, f"{about}: mode {mode:04o}, others have it too", f"chmod 600 {path}")
    elif mode & stat.S_IRGRP:
        notes.warning(secret.name, f"{about}: its group may read it", f"chmod 600 {path}")
    elif service not in {None, _ROOT, status.st_uid}:
        found = f"{about}: belongs to {_user(status.st_uid)}, the service runs as {_user(service)}"
        notes.failed(secret.name, found, f"chown {_user(service)} {path}")
    else:
        notes.ok(secret.name, f"{about}, mode {mode:04o}, of {_user(status.st_uid)}")


def _config(notes: Notes, path: Path, *, holds_secrets: bool) -> None:
    status = path.stat()
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        notes.failed("configuration", f"{path}: others may change it", f"chmod go-w {path}")
    elif holds_secrets and status.st_mode & stat.S_IROTH:
        found = f"{path}: all may read homeserver.additional_headers"
        notes.warning("configuration", found, f"chmod o-r {path}, if a token is among them")
    else:
        notes.ok("configuration", f"{path}, of {_user(status.st_uid)}")


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _user(uid: int | None) -> str:
    try:
        return pwd.getpwuid(-1 if uid is None else uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
