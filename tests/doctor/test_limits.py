"""Each bad setting of a real clamd must be found, and no good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner.clamd.protocol import ClamdAddress
from scanner.doctor import limits
from scanner.doctor.finding import Notes, Status
from scanner.doctor.limits import Remedy
from scanner.doctor.prober import Prober
from tests.clamd.fake_clamd import FakeClamd, stall_after_sample
from tests.doctor.found import clamd_with, named, not_ok
from tests.real_clamd import Clamd

MIB = 2**20
FAILED, WARNING, SKIPPED = Status.FAILED, Status.WARNING, Status.SKIPPED
# What Debian writes into clamd.conf, as far as it differs from ours.
DEBIAN = """\
MaxFileSize 25M
MaxScanSize 100M
MaxRecursion 16
AlertExceedsMax no
AlertEncrypted no
"""
UPSTREAM = "MaxFileSize 100M\nMaxScanSize 400M\nAlertExceedsMax no\nAlertEncrypted no\n"
QUIET = "AlertExceedsMax no\n"


async def looked_at(clamd: Clamd, *, streamed: bool = False, media_size: int = 20 * MIB) -> Notes:
    notes = Notes()
    address = f"tcp:127.0.0.1:{clamd.port}" if streamed else f"unix:{clamd.socket}"
    remedy = Remedy(embedded=False, media_size=media_size)
    await limits.examine(notes, Prober(ClamdAddress.parse(address), 10), remedy)
    return notes


@pytest.mark.real
@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("", {}),
        ("MaxFileSize 500M", {}),
        (DEBIAN, {"AlertExceedsMax": FAILED, "MaxFileSize": FAILED, "AlertEncrypted": FAILED}),
        ("MaxFileSize 100M", {"MaxFileSize": FAILED}),
        ("AlertEncrypted no", {"AlertEncrypted": FAILED}),
        (QUIET, {"AlertExceedsMax": FAILED, "MaxFileSize": SKIPPED}),
        ("MaxFileSize 5M", {"media size": FAILED, "MaxFileSize": FAILED}),
        ("MaxScanSize 5M", {"media size": FAILED}),
        (QUIET + "MaxScanSize 5M", {"media size": FAILED, "AlertExceedsMax": FAILED, "MaxFileSize": SKIPPED}),
        ("MaxRecursion 5", {"MaxRecursion": WARNING}),
        ("MaxFiles 500", {"MaxFiles": WARNING}),
        (
            QUIET + UPSTREAM + "MaxRecursion 5\nMaxFiles 500",
            {
                "MaxRecursion": FAILED,
                "MaxFiles": FAILED,
                "AlertExceedsMax": FAILED,
                "MaxFileSize": FAILED,
                "AlertEncrypted": FAILED,
            },
        ),
        ("StreamMaxLength 10M", {"StreamMaxLength": WARNING}),
        ("ScanArchive no", {"formats": FAILED, "limits": SKIPPED}),
        ("ScanPDF no", {"formats": FAILED}),
        ("ScanMail no", {"formats": FAILED}),
    ],
)
async def test_what_a_setting_does_is_found_and_nothing_else(settings: str, found: dict[str, Status]) -> None:
    with clamd_with(settings) as clamd:
        assert not_ok(await looked_at(clamd)) == found


@pytest.mark.real
async def test_debians_settings_are_found_in_one_run_each_with_its_line() -> None:
    with clamd_with(DEBIAN) as clamd:
        notes = await looked_at(clamd, streamed=True)
    assert "set AlertExceedsMax yes in clamd.conf" in named(notes, "AlertExceedsMax").advice
    assert "set AlertEncrypted yes in clamd.conf" in named(notes, "AlertEncrypted").advice
    assert "set MaxFileSize 400M, MaxScanSize 400M in clamd.conf" in named(notes, "MaxFileSize").advice


@pytest.mark.real
async def test_a_stream_that_is_cut_off_is_a_failure_where_files_are_streamed() -> None:
    with clamd_with("StreamMaxLength 10M") as clamd:
        notes = await looked_at(clamd, streamed=True)
        assert not_ok(notes) == {"media size": SKIPPED, "StreamMaxLength": FAILED}
        assert "StreamMaxLength 25M" in named(notes, "StreamMaxLength").advice
        assert not_ok(await looked_at(clamd, streamed=True, media_size=10 * MIB)) == {}


@pytest.mark.real
async def test_the_advice_grows_with_the_media() -> None:
    with clamd_with("StreamMaxLength 25M\nMaxFileSize 30M\nMaxScanSize 30M") as clamd:
        notes = await looked_at(clamd, media_size=150 * MIB)
    assert "MaxFileSize 600M, MaxScanSize 600M" in named(notes, "media size").advice
    assert "StreamMaxLength 188M" in named(notes, "StreamMaxLength").advice


def test_nobody_is_told_to_change_the_embedded_clamds_configuration() -> None:
    advice = Remedy(embedded=True, media_size=20 * MIB).sizes
    assert "clamd.conf" not in advice
    assert "limits.media_size" in advice


async def test_a_clamd_that_stops_answering_is_no_clamd_without_faults(tmp_path: Path) -> None:
    notes = Notes()
    async with FakeClamd(tmp_path, stall_after_sample) as clamd:
        await limits.examine(notes, Prober(clamd.unix, 0.05), Remedy(embedded=False, media_size=MIB))
    assert not_ok(notes) == {"formats": FAILED, "limits": SKIPPED}
