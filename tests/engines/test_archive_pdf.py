"""No PDF is clean from which a program saves an archive with EICAR, whatever is wrong with it."""

from __future__ import annotations

import asyncio
import zipfile
from pathlib import Path

import pytest

from scanner.verdict import Outcome
from tests.archives import zip_of
from tests.judging import judging_bytes
from tests.pdf_mutants import mutant, saved
from tests.pdfs import attached, deflated
from tests.real_clamd import EICAR, Clamd

pytestmark = pytest.mark.real
SEED, LONG_SEED = 20261121, 20261122
MUTANTS, LONG_MUTANTS = 1000, 6000
_ZIP = b"PK\3\4"


async def leaks(clamd: Clamd, state: Path, seed: int, count: int) -> list[str]:
    """Mutants that are clean though a program saves the archive, or have no verdict."""
    found = []
    async with judging_bytes(clamd, state) as judge:
        for number in range(count):
            data = mutant(f"{seed}/{number}", EICAR)
            outcome = (await judge(data)).outcome
            if outcome is Outcome.CLEAN and (program := await asyncio.to_thread(saved, data, _ZIP)):
                found.append(f"{number}: {program}")
            if outcome is Outcome.FAILED:
                found.append(f"{number}: failed")
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_program_saves_eicar_from_a_clean_pdf(strict_clamd: Clamd, tmp_path: Path) -> None:
    assert await leaks(strict_clamd, tmp_path, SEED, MUTANTS) == []


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_no_program_saves_eicar_from_very_many_clean_pdfs(strict_clamd: Clamd, tmp_path: Path) -> None:
    assert await leaks(strict_clamd, tmp_path, LONG_SEED, LONG_MUTANTS) == []


def test_the_programs_that_tell_the_truth_save_from_most_mutants() -> None:
    """Else a leak would go unseen."""
    by = [saved(mutant(f"{SEED}/{number}", EICAR), _ZIP) for number in range(60)]
    assert {"pdfdetach", "qpdf"} <= set(by)
    assert sum(program is not None for program in by) > 20


@pytest.mark.parametrize("begins", [b"%XDF-1.7\n", b"\0" * 9, b"%PDF 1.7\n"])
async def test_a_pdf_without_its_beginning_with_something_attached_is_withheld(
    strict_clamd: Clamd, tmp_path: Path, begins: bytes
) -> None:
    archive = deflated(zip_of({"a": EICAR}, zipfile.ZIP_LZMA))
    data = attached(archive).replace(b"%PDF-1.7\n", begins).replace(b"(a.bin)", b"(a.zip)")
    assert saved(data, _ZIP)
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        assert (await judge(data)).outcome is Outcome.UNSCANNABLE
