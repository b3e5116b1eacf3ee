"""Old Office files before the whole product: what clamd sees in their streams, and what it does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scanner.unpacking import by_ole2
from scanner.unpacking.allowance import Unreadable
from scanner.verdict import Outcome
from tests.archives import extracted
from tests.compound_cases import ENCRYPTED, NOISE, SECRET, SEEN, hidden, packed_zips
from tests.compound_files import by_sevenzip, compound
from tests.compound_mutants import mutant, workbook
from tests.judging import judging_bytes
from tests.real_clamd import EICAR, Clamd

pytestmark = pytest.mark.real
SEED = 20261121
JUDGED, READ = 500, 1000


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("shuffled", [None, 5])
def test_clamd_sees_what_is_plain(strict_clamd: Clamd, name: str, shuffled: int | None) -> None:
    assert strict_clamd.scan(compound(SEEN[name], shuffled=shuffled)).endswith("FOUND")


async def test_malware_that_clamd_does_not_see_is_found(strict_clamd: Clamd, tmp_path: Path) -> None:
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        for name, data in hidden(SECRET).items():
            assert name == "in a 7z" or strict_clamd.scan(data).endswith("OK"), name
            assert (await judge(data)).outcome is Outcome.INFECTED, name


async def test_what_clamd_does_not_see_is_clean_without_malware(strict_clamd: Clamd, tmp_path: Path) -> None:
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        for name, data in hidden(b"innocent" + NOISE).items():
            assert (await judge(data)).outcome is Outcome.CLEAN, name


async def test_a_zip_that_clamd_does_not_open_is_never_clean(strict_clamd: Clamd, tmp_path: Path) -> None:
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        for name, data in packed_zips().items():
            assert strict_clamd.scan(data).endswith("OK"), name
            assert (await judge(data)).outcome in (Outcome.UNSCANNABLE, Outcome.INFECTED), name


async def test_nothing_hides_behind_what_is_encrypted(strict_clamd: Clamd, tmp_path: Path) -> None:
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        data = compound(ENCRYPTED["new"] | {"Workbook": workbook(), "x": SECRET})
        assert (await judge(data)).outcome is Outcome.INFECTED
        assert (await judge(compound(ENCRYPTED["new"]))).outcome is Outcome.UNSCANNABLE


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_program_gets_eicar_out_of_a_clean_compound_file(
    strict_clamd: Clamd, tmp_path: Path
) -> None:
    leaks = []
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        for number in range(JUDGED):
            data = mutant(f"{SEED}/{number}", EICAR)
            outcome = (await judge(data)).outcome
            assert outcome is not Outcome.FAILED, number
            if outcome is Outcome.CLEAN and (reader := await asyncio.to_thread(extracted, data, EICAR)):
                leaks.append(f"{number}: {reader}")
    assert leaks == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sevenzip_reads_the_same_where_both_read_a_file() -> None:
    """And often only one of them does: it minds what is left over, and we do not."""
    both, alone, differ = 0, 0, []
    for number in range(READ):
        data = mutant(f"{SEED}/{number}", EICAR)
        ours, theirs = _ours(data), by_sevenzip(data)
        both += ours is not None and theirs is not None
        alone += ours is None and theirs is not None
        if ours is not None and theirs is not None and ours != theirs:
            differ.append(number)
    assert differ == []
    assert both > READ // 10
    assert alone < READ // 50


def _ours(data: bytes) -> list[bytes] | None:
    try:
        contents = [
            b"".join(map(bytes, pieces)) for _, pieces in by_ole2.entries(memoryview(bytearray(data)))
        ]
    except Unreadable:
        return None
    return sorted(contents)
