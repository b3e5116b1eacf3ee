"""The processes below this one, and the memory that they have."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_EVERY = 0.02


def children(pid: int) -> list[int]:
    """Of any of its threads; none where it is gone."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def descendants(pid: int, *, but: int = 0) -> list[int]:
    """Children and their children, without `but` and its own."""
    found = []
    for child in children(pid):
        if child != but:
            found += [child, *descendants(child, but=but)]
    return found


def memory(*, but: int = 0) -> int:
    """Bytes that this process and those below it have, memory files included, but for `but` and its own."""
    processes = [os.getpid(), *descendants(os.getpid(), but=but)]
    files: dict[int, int] = {}
    for pid in processes:
        files.update(_memory_files(pid))
    return sum(_anonymous(pid) for pid in processes) + sum(files.values())


class Peak:
    """The most memory seen so far, in bytes above what there was at first."""

    def __init__(self, but: int) -> None:
        self._but = but
        self._first = memory(but=but)
        self.bytes = 0

    def look(self) -> None:
        self.bytes = max(self.bytes, memory(but=self._but) - self._first)


@contextmanager
def watching(*, but: int) -> Iterator[Peak]:
    """Looks again and again until it is left."""
    peak, over = Peak(but), threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY):
            peak.look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _anonymous(pid: int) -> int:
    """Of a child that shares pages with its parent all are counted: more rather than less."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def _memory_files(pid: int) -> Iterator[tuple[int, int]]:
    """Inode and size of each memory file that the process has open."""
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - pathlib sorts nothing either, but is slower
            with suppress(OSError):
                path = f"/proc/{pid}/fd/{name}"
                if os.readlink(path).startswith("/memfd:"):  # noqa: PTH115 - likewise
                    status = os.stat(path)  # noqa: PTH116 - likewise
                    yield status.st_ino, status.st_blocks * 512
