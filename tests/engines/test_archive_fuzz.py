"""Not one archive from which 7-Zip, unzip, bsdtar or Python get EICAR is clean, whatever is wrong with it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.archive_fuzz import seeds, wrong
from tests.archive_records import records_of_a_zip, with_extra
from tests.archives import extracted, judged, streamed_zip_of
from tests.real_clamd import EICAR, Clamd

SEED, LONG_SEEDS = 20261121, (20261122, 20261123)
MUTANTS, LONG_MUTANTS = 1000, 30_000


@pytest.fixture(scope="module")
def archives() -> dict[str, bytes]:
    return seeds()


@pytest.mark.real
@pytest.mark.timeout(600)
async def test_no_program_gets_eicar_out_of_a_clean_mutant(
    strict_clamd: Clamd, archives: dict[str, bytes], tmp_path: Path
) -> None:
    assert await wrong(strict_clamd, archives, SEED, MUTANTS, tmp_path) == []


@pytest.mark.real
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", LONG_SEEDS)
async def test_no_program_gets_eicar_out_of_very_many_clean_mutants(
    strict_clamd: Clamd, archives: dict[str, bytes], tmp_path: Path, seed: int
) -> None:
    assert await wrong(strict_clamd, archives, seed, LONG_MUTANTS, tmp_path) == []


def test_a_member_of_8_gib_behind_a_descriptor_is_judged() -> None:
    """Seed 3, number 1023: the sizes fit no 32 bits, and the archive ended in a struct.error."""
    archive = streamed_zip_of({"a": EICAR})
    ((central, _),) = records_of_a_zip(archive)
    extra = struct.pack("<HHQ", 1, 8, 1 << 33)
    assert judged(with_extra(archive, central, 46, 28, 24, extra, b"\xff" * 4)) is not None


@pytest.mark.real
def test_the_programs_that_tell_the_truth_open_every_kind(archives: dict[str, bytes]) -> None:
    """Else a leak would go unseen."""
    closed = {kind for kind, data in archives.items() if extracted(data, EICAR) is None}
    # The one is for kernels, and in the other EICAR lies behind a hole.
    assert closed == {"initramfs", "tar-pax-sparse"}
