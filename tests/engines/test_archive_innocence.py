"""What ordinary programs write is not refused: hundreds of files of many types, of packages and programs."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from scanner.verdict import Outcome, Verdict
from tests.corpus.kept import innocents
from tests.judging import Judge, judging_bytes
from tests.real_clamd import Clamd

_AT_ONCE = 3


@pytest.fixture(scope="module")
def files() -> list[Path]:
    return innocents()


@pytest.mark.real
@pytest.mark.timeout(600)
async def test_not_one_innocent_file_is_withheld(clamd: Clamd, files: list[Path], tmp_path: Path) -> None:
    async with judging_bytes(clamd, tmp_path) as judge:
        room = asyncio.Semaphore(_AT_ONCE)
        verdicts = await asyncio.gather(*(_judged(judge, room, path) for path in files))
    judged = dict(zip(files, verdicts, strict=True))
    withheld = {path: verdict for path, verdict in judged.items() if verdict.outcome is not Outcome.CLEAN}
    assert not withheld, _table(files, withheld)


@pytest.mark.real
@pytest.mark.timeout(600)
def test_the_innocent_files_are_many_and_of_many_types(files: list[Path]) -> None:
    counts = Counter(path.parent.name for path in files)
    assert counts.total() >= 300
    assert len(counts) >= 20
    assert counts.keys() >= {"docx", "xlsx", "pptx", "odt", "ods", "odp", "pdf", "epub", "jar", "apk", "whl"}
    assert counts.keys() >= {"zip", "7z", "tar.gz", "tar.xz", "tar.zst", "deb", "iso", "kra", "zst", "lz4"}


async def _judged(judge: Judge, room: asyncio.Semaphore, path: Path) -> Verdict:
    async with room:
        return await judge(await asyncio.to_thread(path.read_bytes))


def _table(files: list[Path], withheld: dict[Path, Verdict]) -> str:
    """By type how many there are and how many are withheld; then each with its reason."""
    lines = ["", f"{'type':10}{'files':>8}{'withheld':>10}"]
    refused = Counter(path.parent.name for path in withheld)
    for kind, count in sorted(Counter(path.parent.name for path in files).items()):
        lines.append(f"{kind:10}{count:8}{refused[kind]:10}")
    for path, verdict in withheld.items():
        reasons = ", ".join(f"{report.engine} {report.reason}" for report in verdict.reports if report.reason)
        lines.append(f"{path.parent.name}/{path.name}: {verdict.outcome.name} by {reasons}")
    return "\n".join(lines)
