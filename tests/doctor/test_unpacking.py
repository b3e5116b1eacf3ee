"""Archives are really unpacked, by processes of each kind that there may be."""

from __future__ import annotations

import pytest

from scanner.doctor.finding import Finding, Notes, Status
from scanner.doctor.unpacking import examine
from scanner.unpacking.fork_server import TEMPLATE
from tests.doctor.found import named

WITHOUT_SECCOMP = "tests.unpacking.without_seccomp"
WITHOUT_LIBARCHIVE = "tests.unpacking.without_libarchive"


async def noted(template: str) -> Finding:
    notes = Notes()
    await examine(notes, template)
    return named(notes, "unpacking")


async def test_processes_that_reach_nothing_are_well() -> None:
    finding = await noted(TEMPLATE)
    assert finding.status is Status.OK
    assert finding.found.endswith(", with seccomp")


async def test_processes_that_could_read_the_keys_are_a_warning_which_says_what_to_do() -> None:
    finding = await noted(WITHOUT_SECCOMP)
    assert finding.status is Status.WARNING
    assert "without seccomp" in finding.found
    assert "could read the keys in state_dir" in finding.found
    assert "libseccomp2" in finding.advice


@pytest.mark.parametrize("template", [WITHOUT_LIBARCHIVE, "tests.unpacking.no_such_module"])
async def test_no_process_at_all_is_a_failure(template: str) -> None:
    finding = await noted(template)
    assert finding.status is Status.FAILED
    assert "libarchive13" in finding.advice
