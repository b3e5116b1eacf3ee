from __future__ import annotations

import os
from pathlib import Path

import pytest

from scanner.doctor.finding import Notes, Status
from scanner.doctor.machine import Demand, examine, memory_limit
from tests.doctor.found import named, not_ok

MIB, GIB = 2**20, 2**30
DEMAND = Demand(memory=256 * MIB, media_size=20 * MIB, clamds=1)
NO_LIMIT_V1 = 9223372036854771712


def machine(directory: Path, *, total: int = 16 * GIB, available: int = 8 * GIB) -> Path:
    """A directory in the place of the root, with what the kernel tells."""
    (directory / "proc/self").mkdir(parents=True)
    lines = (
        f"MemTotal:       {total // 1024} kB\nMemAvailable:   {available // 1024} kB\nHugePages_Total:   0\n"
    )
    (directory / "proc/meminfo").write_text(lines)
    return directory


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


async def noted(root: Path, demand: Demand = DEMAND) -> Notes:
    notes = Notes()
    await examine(notes, demand, {"Python": "3.11.2", "libmagic": "5.44", "other": "1"}, root)
    return notes


async def test_this_machine_is_looked_at_without_a_fault_of_ours() -> None:
    notes = Notes()
    await examine(notes, Demand(MIB, MIB, clamds=0), {})
    assert {finding.name for finding in notes.findings} == {
        "versions", "cores", "memory", "descriptors", "memory files", "user",
    }  # fmt: skip
    assert named(notes, "memory files").status is Status.OK


async def test_memory_that_suffices_is_well(tmp_path: Path) -> None:
    notes = await noted(machine(tmp_path))
    assert named(notes, "memory").status is Status.OK
    assert named(notes, "versions").found == "Python 3.11.2, libmagic 5.44"


async def test_too_little_memory_is_a_failure_which_says_how_much_is_needed(tmp_path: Path) -> None:
    notes = await noted(machine(tmp_path, total=2 * GIB))
    assert named(notes, "memory").status is Status.FAILED
    assert "of 2.0 GiB" in named(notes, "memory").found


async def test_a_clamd_elsewhere_needs_no_memory_here(tmp_path: Path) -> None:
    root = machine(tmp_path, total=2 * GIB, available=GIB)
    assert named(await noted(root, Demand(256 * MIB, 20 * MIB, clamds=0)), "memory").status is Status.OK


async def test_what_is_unpacked_needs_memory_too(tmp_path: Path) -> None:
    root = machine(tmp_path, total=GIB, available=GIB)
    for unpacked, status in ((0, Status.OK), (GIB, Status.FAILED)):
        notes = await noted(root, Demand(256 * MIB, 20 * MIB, 0, unpacked))
        assert named(notes, "memory").status is status


async def test_memory_that_others_take_is_a_warning(tmp_path: Path) -> None:
    notes = await noted(machine(tmp_path, available=100 * MIB))
    assert named(notes, "memory").status is Status.WARNING


async def test_a_control_group_counts_as_the_machine_does(tmp_path: Path) -> None:
    root = machine(tmp_path)
    put(root / "proc/self/cgroup", "0::/system.slice/scanner.service\n")
    put(root / "sys/fs/cgroup/system.slice/scanner.service/memory.max", f"{GIB}\n")
    assert named(await noted(root), "memory").status is Status.FAILED


async def test_a_system_that_tells_nothing_is_skipped(tmp_path: Path) -> None:
    assert named(await noted(tmp_path), "memory").status is Status.SKIPPED


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/a/b", {"a/b/memory.max": "max"}, None),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "2000"}, 2000),
        ("0::/a/b", {"a/b/memory.max": "1000", "a/memory.max": "2000"}, 1000),
        ("0::/../elsewhere", {"memory.max": "3000"}, 3000),
        ("4:cpu,memory:/c\n1:cpu:/d\n0::/", {"memory/c/memory.limit_in_bytes": "4000"}, 4000),
        ("4:memory:/c", {"memory/c/memory.limit_in_bytes": str(NO_LIMIT_V1)}, None),
        ("4:memory:/lost", {"memory/memory.limit_in_bytes": "5000"}, 5000),
        ("", {}, None),
    ],
)
def test_limits_of_both_kinds_of_control_groups_are_found(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    put(tmp_path / "proc/self/cgroup", groups)
    for name, text in files.items():
        put(tmp_path / "sys/fs/cgroup" / name, text)
    assert memory_limit(tmp_path) == limit


async def test_what_is_needed_counts_cores_and_a_reload_of_clamd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert DEMAND.buffers == (256 + 4 * 20) * MIB
    assert DEMAND.total == DEMAND.buffers + (130 + 2600) * MIB


async def test_few_descriptors_are_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda kind: (1024, 1024))
    assert not_ok(await noted(machine(tmp_path))) == {"descriptors": Status.WARNING}
