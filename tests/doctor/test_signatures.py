from __future__ import annotations

import time
from pathlib import Path

import pytest

from scanner.clamd.control import ClamdVersion
from scanner.clamd.protocol import ClamdAddress
from scanner.doctor import signatures
from scanner.doctor.finding import Notes, Status
from scanner.doctor.prober import Prober
from scanner.doctor.signatures import Terms
from tests.clamd.fake_clamd import FakeClamd, ok
from tests.doctor.found import clamd_with, named, not_ok
from tests.real_clamd import Clamd

HOUR, DAY = 3600.0, 86400.0
WEEK = Terms(7 * DAY, accept_test_set=False)


async def noted(tmp_path: Path, version: str, terms: Terms = WEEK) -> Notes:
    notes = Notes()
    async with FakeClamd(tmp_path, ok, version.encode()) as clamd:
        await signatures.examine(notes, Prober(clamd.unix, 5), terms)
    return notes


def made(seconds_ago: float, number: int = 27800) -> str:
    date = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - seconds_ago))
    return f"ClamAV 1.4.6/{number}/{date}"


@pytest.mark.parametrize(
    ("age", "status", "said"),
    [
        (3 * HOUR, Status.OK, "27800, 3 hours old"),
        (3 * DAY, Status.WARNING, "27800, 3 days old"),
        (8 * DAY, Status.FAILED, "27800, 8 days old"),
        (-600.0, Status.OK, "27800, 10 minutes ahead of our clock"),
        (-5 * HOUR, Status.FAILED, "27800, 5 hours ahead of our clock"),
    ],
)
async def test_age_counts(tmp_path: Path, age: float, status: Status, said: str) -> None:
    finding = named(await noted(tmp_path, made(age)), "signatures")
    assert (finding.status, finding.found) == (status, said)


async def test_any_age_will_do_where_none_is_asked_for(tmp_path: Path) -> None:
    notes = await noted(tmp_path, made(300 * DAY), Terms(None, accept_test_set=False))
    assert not_ok(notes) == {"signatures": Status.WARNING}


@pytest.mark.parametrize(
    ("terms", "status"), [(WEEK, Status.FAILED), (Terms(None, accept_test_set=False), Status.OK)]
)
async def test_a_set_without_a_date_is_accepted_only_on_purpose(
    tmp_path: Path, terms: Terms, status: Status
) -> None:
    assert named(await noted(tmp_path, "ClamAV 1.4.6", terms), "signatures").status is status


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("0.102.4", Status.WARNING),
        ("0.103.12", Status.WARNING),
        ("1.0.5", Status.OK),
        ("1.5.0-rc", Status.OK),
    ],
)
async def test_an_old_clamd_is_a_warning(tmp_path: Path, version: str, status: Status) -> None:
    notes = await noted(tmp_path, made(HOUR).replace("1.4.6", version))
    assert named(notes, "version").status is status


async def test_what_does_not_speak_as_clamd_does_is_a_failure(tmp_path: Path) -> None:
    assert not_ok(await noted(tmp_path, "220 mail.example.org ESMTP")) == {"version": Status.FAILED}


@pytest.mark.real
@pytest.mark.parametrize(("accepted", "status"), [(False, Status.FAILED), (True, Status.WARNING)])
async def test_the_test_set_is_recognised_by_what_it_finds(
    clamd: Clamd, accepted: bool, status: Status
) -> None:
    notes = Notes()
    prober = Prober(ClamdAddress.parse(f"unix:{clamd.socket}"), 5)
    await signatures.examine(notes, prober, Terms(7 * DAY, accept_test_set=accepted))
    assert named(notes, "signatures").status is status
    assert "test set" in named(notes, "signatures").found


@pytest.mark.real
async def test_other_signatures_without_a_date_are_not_taken_for_the_test_set() -> None:
    notes = Notes()
    with clamd_with() as clamd:
        await signatures.examine(notes, Prober(ClamdAddress.parse(f"unix:{clamd.socket}"), 5), WEEK)
    assert "without a date" in named(notes, "signatures").found


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ([100], {}),
        ([100, None], {}),
        ([100, 101], {}),
        ([100, 102, 102], {"same signatures": Status.WARNING}),
    ],
)
def test_clamds_whose_signatures_differ_are_a_warning(
    numbers: list[int | None], found: dict[str, Status]
) -> None:
    notes = Notes()
    versions = {f"clamd-{i}": ClamdVersion("ClamAV 1.4.6", number) for i, number in enumerate(numbers)}
    signatures.compare(notes, versions)
    assert not_ok(notes) == found
    if found:
        assert "run freshclam where clamd-0 is" in notes.findings[0].advice
