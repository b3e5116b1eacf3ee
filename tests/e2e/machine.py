"""A mount namespace in which /var/lib/clamav is the test's own, and what a process leaves behind on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Wherever the product could write.
_WRITABLE = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path("/run"))
_BIND = 'mount --bind "$1" /var/lib/clamav && shift && exec "$@"'
_SMALL_DISK = 'mount -t tmpfs -o size=2m tmpfs "$1" && shift && exec "$@"'


def own_database(directory: Path) -> list[str]:
    """A launcher of programs that see `directory` in the place of Debian's signatures."""
    return _with_mount(_BIND, directory)


def small_disk(directory: Path) -> list[str]:
    """A launcher of programs that have 2 MiB at `directory`, and see them as nobody else does."""
    return _with_mount(_SMALL_DISK, directory)


def fill(file: Path) -> None:
    """Take all that its file system has."""
    with file.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            pass


def _with_mount(script: str, directory: Path) -> list[str]:
    directory.mkdir(exist_ok=True)
    become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *become_root, "sh", "-c", script, "sh", str(directory)]


def embedded_clamd_of(pid: int) -> int:
    """The process ID of the clamd that a product runs."""
    return next(child for child in _children(pid) if _name(child) == "clamd")


def clamds_of(database: Path) -> list[int]:
    """Every clamd that runs below `own_database(database)`, whoever its parent is by now."""
    return [pid for pid in _processes() if _name(pid) == "clamd" and _sees(pid, database)]


def descendants_of(pid: int) -> set[int]:
    """The process IDs of its children, their children and so on, but for those that are just ending."""
    children: list[int] = []
    with suppress(OSError):
        children = _children(pid)
    return {*children, *(each for child in children for each in descendants_of(child))}


def memory_of(pid: int) -> int:
    """Bytes of a process: its own, and those of its memory files, mapped or not."""
    files = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if "memfd:" in str(descriptor.readlink()):
                status = descriptor.stat()
                files[status.st_ino] = status.st_blocks * 512
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_Anon"))
    return private * 1024 + sum(files.values())


def descriptors_of(pid: int) -> int:
    """How many it has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def files_with(mark: bytes, since: float) -> list[Path]:
    """Files written since that Unix time that hold `mark`."""
    return [path for path in _written_since(since) if _holds(path, mark)]


def _written_since(since: float) -> Iterator[Path]:
    """Fast, for what is looked for may be there for a moment only; and however deep a tree is."""
    folders = [str(top) for top in _WRITABLE]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False) and entry.stat().st_mtime >= since:
                    yield Path(entry.path)


def _holds(path: Path, mark: bytes) -> bool:
    with suppress(OSError):
        return mark in path.read_bytes()
    return False


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _sees(pid: int, database: Path) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/root/var/lib/clamav").stat().st_ino == database.stat().st_ino
    return False
