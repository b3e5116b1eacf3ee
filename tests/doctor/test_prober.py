from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from scanner.clamd.protocol import ClamdAddress
from scanner.doctor.finding import Notes, Status
from scanner.doctor.prober import Prober
from scanner.verdict import Outcome
from tests.clamd.fake_clamd import Connection, FakeClamd, found, hang_up, ok, says, stall
from tests.doctor.found import named, not_ok
from tests.real_clamd import EICAR, Clamd


async def refuse_descriptors(connection: Connection) -> None:
    """As under AppArmor: clamd closes the connection."""
    await (hang_up if connection.command == "FILDES" else found)(connection)


async def test_descriptors_are_taken_and_eicar_is_found(tmp_path: Path) -> None:
    notes = Notes()
    async with FakeClamd(tmp_path, found) as clamd:
        prober = Prober(clamd.unix, 5)
        assert await prober.connect(notes)
        assert clamd.commands == ["FILDES"]
    assert not_ok(notes) == {}
    assert named(notes, "test virus").found == "found: Eicar-Test-Signature"


async def test_refused_descriptors_are_a_warning_that_names_the_profile_and_probes_are_streamed(
    tmp_path: Path,
) -> None:
    notes = Notes()
    async with FakeClamd(tmp_path, refuse_descriptors) as clamd:
        prober = Prober(clamd.unix, 5)
        assert await prober.connect(notes)
        assert (await prober.ask(b"x")).outcome is Outcome.INFECTED
        assert clamd.commands == ["FILDES", "INSTREAM", "INSTREAM"]
    assert not_ok(notes) == {"transport": Status.WARNING}
    assert "deploy/apparmor/" in named(notes, "transport").advice


async def test_a_clamd_elsewhere_is_streamed_to_without_a_complaint(tmp_path: Path) -> None:
    notes = Notes()
    async with FakeClamd(tmp_path, found) as clamd:
        assert await Prober(clamd.tcp, 5).connect(notes)
        assert clamd.commands == ["INSTREAM"]
    assert not_ok(notes) == {}


async def test_eicar_that_is_not_found_is_a_failure(tmp_path: Path) -> None:
    notes = Notes()
    async with FakeClamd(tmp_path, ok) as clamd:
        assert not await Prober(clamd.unix, 5).connect(notes)
    assert not_ok(notes) == {"test virus": Status.FAILED}


async def test_a_clamd_that_never_answers_costs_its_time_and_no_more(tmp_path: Path) -> None:
    notes, began = Notes(), time.monotonic()
    async with FakeClamd(tmp_path, stall) as clamd:
        assert not await Prober(clamd.unix, 0.1).connect(notes)
    assert time.monotonic() - began < 2
    assert "no answer within" in named(notes, "connection").found


async def test_a_socket_on_which_nobody_accepts_costs_its_time_and_no_more(tmp_path: Path) -> None:
    notes, began = Notes(), time.monotonic()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "silent"))
        listening.listen(0)
        assert not await Prober(ClamdAddress(path=str(tmp_path / "silent")), 0.1).connect(notes)
    assert time.monotonic() - began < 2
    assert not_ok(notes) == {"connection": Status.FAILED}


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("unix:/nonexistent/clamd", "start clamd"),
        ("tcp:127.0.0.1:1", "start clamd"),
        ("tcp:nowhere.invalid:3310", "correct the host"),
    ],
)
async def test_a_clamd_that_is_not_there_is_told_with_what_to_do(address: str, advice: str) -> None:
    notes = Notes()
    assert not await Prober(ClamdAddress.parse(address), 10).connect(notes)
    assert named(notes, "connection").advice.startswith(advice)


async def test_an_error_of_clamd_is_told_as_it_is(tmp_path: Path) -> None:
    notes = Notes()
    async with FakeClamd(tmp_path, says(b"PREFIX: Can't write to file ERROR\0")) as clamd:
        assert not await Prober(clamd.tcp, 5).connect(notes)
    assert "Can't write to file ERROR" in named(notes, "connection").found


@pytest.mark.real
async def test_the_real_clamd_takes_descriptors_and_streams(clamd: Clamd) -> None:
    for address in (f"unix:{clamd.socket}", f"tcp:127.0.0.1:{clamd.port}"):
        notes = Notes()
        prober = Prober(ClamdAddress.parse(address), 10)
        assert await prober.connect(notes)
        assert not_ok(notes) == {}
        assert (await prober.ask(EICAR, streamed=True)).outcome is Outcome.INFECTED
        assert (await prober.ask(b"clean")).outcome is Outcome.CLEAN
