from __future__ import annotations

from pathlib import Path

import pytest

from scanner.clamd.protocol import ClamdAddress
from scanner.doctor import clamd as doctor
from scanner.doctor.clamd import Patient
from scanner.doctor.finding import Notes, Status
from scanner.doctor.signatures import Terms
from tests.clamd.fake_clamd import FakeClamd, found
from tests.doctor.found import named, not_ok
from tests.real_clamd import Clamd

MIB = 2**20
ANY = Terms(None, accept_test_set=True)


async def examined(patients: dict[str, Patient]) -> Notes:
    notes = Notes()
    await doctor.examine(notes, patients, ANY, media_size=MIB, scan_timeout=5)
    return notes


@pytest.mark.real
async def test_each_clamd_has_its_findings_in_the_order_of_the_configuration(clamd: Clamd) -> None:
    unix = f"unix:{clamd.socket}"
    gone, tcp = "unix:/nonexistent", f"tcp:127.0.0.1:{clamd.port}"
    notes = await examined({name: Patient(ClamdAddress.parse(name)) for name in (unix, gone, tcp)})
    assert list(dict.fromkeys(finding.subject for finding in notes.findings)) == [unix, gone, tcp]
    failed = [finding for finding in notes.findings if finding.status is Status.FAILED]
    assert [(finding.subject, finding.name) for finding in failed] == [(gone, "connection")]


async def test_a_clamd_that_finds_everything_is_not_called_well(tmp_path: Path) -> None:
    async with FakeClamd(tmp_path, found) as clamd:
        notes = await examined({"x": Patient(clamd.unix)})
    assert named(notes, "clean file").status is Status.FAILED


async def test_nothing_more_is_asked_of_a_clamd_that_is_away() -> None:
    notes = await examined({"x": Patient(ClamdAddress(path="/nonexistent"))})
    assert not_ok(notes) == {"connection": Status.FAILED, "limits": Status.SKIPPED}
