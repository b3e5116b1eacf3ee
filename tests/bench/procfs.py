"""Processor time and memory of a process and all its descendants, from /proc."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PERIOD = 0.05


def family(pid: int) -> Iterator[int]:
    """The process and its living descendants."""
    yield pid
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def cpu_seconds(pid: int | None) -> float:
    """Of the family and of those in it that have ended."""
    return sum(map(_cpu_ticks, family(pid))) / _TICKS if pid else 0.0


def _cpu_ticks(pid: int) -> int:
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))


def memory(pid: int) -> int:
    """Bytes of the family: all private and shared-memory pages, and the file pages of the largest."""
    resident = [_resident(each) for each in family(pid)]
    return sum(own for own, _ in resident) + max(files for _, files in resident)


def _resident(pid: int) -> tuple[int, int]:
    """Bytes of its own, and of mapped files."""
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0, 0
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    own = kilobytes.get("RssAnon", 0) + kilobytes.get("RssShmem", 0)
    return own * 1024, kilobytes.get("RssFile", 0) * 1024


def shared_memory() -> int:
    """Bytes in tmpfs and memory files on this machine: they are in nobody's own pages."""
    lines = (_PROC / "meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Shmem:"))


class MemoryWatch:
    """The highest sum of a family's memory and of the growth of shared memory, while it is open."""

    def __init__(self, pid: int | None) -> None:
        self.peak = 0
        self._pid = pid
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self._pid:
            self._before = shared_memory()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._pid:
            self._thread.join()

    def _watch(self) -> None:
        assert self._pid
        while not self._closed.is_set():
            began = time.monotonic()
            self.peak = max(self.peak, memory(self._pid) + max(0, shared_memory() - self._before))
            # Watching takes a twentieth of a processor at most.
            self._closed.wait(max(_PERIOD, 20 * (time.monotonic() - began)))
