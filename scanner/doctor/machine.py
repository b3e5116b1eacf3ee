"""The machine: memory for what is configured, descriptors, memory files, and what runs on it."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scanner.admission import Slots
from scanner.doctor.finding import Notes
from scanner.doctor.words import size
from scanner.errors import Unavailable
from scanner.media import BodyWriter, reopened
from scanner.unpacking.allowance import FREELY

_MIB = 2**20
# Measured: the program itself, and clamd with ClamAV's own signatures; a reload holds the old ones beside the
# new ones (facts/security.md, section 2).
_PROGRAM = 130 * _MIB
_CLAMD = 2 * 1300 * _MIB
_FEW_DESCRIPTORS = 4096
_UNLIMITED = 2**60  # what cgroup v1 has for "none" is near 2**63
_NAMED = ("Python", "libmagic", "clamd", "aiohttp", "cryptography")


@dataclass(frozen=True, slots=True)
class Demand:
    """Bytes that the configuration asks for. `clamds` is how many of them run on this machine.

    `unpacked` is what the archives of one file may come to.
    """

    memory: int
    media_size: int
    clamds: int
    unpacked: int = 0

    @property
    def buffers(self) -> int:
        """Bodies under way, plaintext of what each core scans, what is unpacked; taken only while needed."""
        cores = os.cpu_count() or 1
        unpacked = self.unpacked and self.unpacked + Slots(cores, 0).capacity * FREELY
        return self.memory + cores * self.media_size + unpacked

    @property
    def total(self) -> int:
        """With everything that runs all the time."""
        return self.buffers + _PROGRAM + self.clamds * _CLAMD


async def examine(notes: Notes, demand: Demand, versions: Mapping[str, str], root: Path = Path("/")) -> None:
    """The machine, or the container that we are in; `root` has its `proc` and `sys`."""
    _versions(notes, versions)
    _memory(notes, demand, root)
    _descriptors(notes)
    _memory_files(notes)
    _user(notes)


def _versions(notes: Notes, versions: Mapping[str, str]) -> None:
    shown = [f"{name} {versions[name]}" for name in _NAMED if name in versions]
    notes.ok("versions", ", ".join(shown) or "unknown")
    notes.ok("cores", str(os.cpu_count() or 1))


def _memory(notes: Notes, demand: Demand, root: Path) -> None:
    known = _meminfo(root)
    limit = memory_limit(root)
    there = min([known.get("MemTotal", _UNLIMITED), limit or _UNLIMITED])
    if there == _UNLIMITED:
        notes.skipped("memory", "this system does not tell how much there is")
        return
    found = f"{size(demand.total)} are needed at most, of {size(there)}"
    if demand.total > there:
        notes.failed("memory", found, f"add memory, or lower limits.memory ({size(demand.memory)})")
    elif known.get("MemAvailable", there) < demand.buffers:
        found = f"{size(known['MemAvailable'])} left, less than {size(demand.buffers)} for media under way"
        notes.warning("memory", found, "see what else takes memory here, or lower limits.memory")
    else:
        notes.ok("memory", f"{found}{' (cgroup)' if limit == there else ''}")


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes that our control group may have, version 2 or 1, None: as much as there is."""
    limits = [int(text) for path in _limit_files(root) if (text := _text(path)).isdigit()]
    return min([limit for limit in limits if limit < _UNLIMITED], default=None)


def _limit_files(root: Path) -> Iterator[Path]:
    """Of our group and of those above it; in a container the path may lead nowhere, the top does not."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        parts = Path(group.lstrip("/"))
        yield from (base / above / name for above in (parts, *parts.parents))


def _meminfo(root: Path) -> dict[str, int]:
    found = re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    return {name: int(kibibytes) * 1024 for name, kibibytes in found}


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""


def _descriptors(notes: Notes) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FEW_DESCRIPTORS:
        advice = f"set LimitNOFILE=65536 in the unit, or ulimit -Hn {_FEW_DESCRIPTORS} or more"
        notes.warning("descriptors", f"{hard} at most: a busy service needs more", advice)
    else:
        notes.ok("descriptors", "unlimited" if hard == resource.RLIM_INFINITY else f"{hard} at most")


def _memory_files(notes: Notes) -> None:
    """As the service makes and passes them; needs /proc."""
    try:
        body = BodyWriter().seal()
        try:
            with reopened(body.fileno()):
                notes.ok("memory files", "can be made, sealed and passed on")
        finally:
            body.release()
    except (OSError, Unavailable):
        found = "cannot be made, or not be opened again"
        notes.failed("memory files", found, "mount /proc, and let the sandbox allow memfd_create")


def _user(notes: Notes) -> None:
    if os.geteuid() == 0:
        notes.ok("user", "root, for this check; the service should have a user of its own")
    else:
        notes.ok("user", f"user ID {os.geteuid()}")
