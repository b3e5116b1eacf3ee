from __future__ import annotations

import pytest

from scanner.clamd.findings import report
from scanner.verdict import Detection, Outcome, Reason, Report


def test_only_an_ok_is_clean() -> None:
    assert report(None, "v") == Report("clamav", Outcome.CLEAN, "v")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Heuristics.Limits.Exceeded.MaxScanTime", Reason.TIME_LIMIT),
        ("Heuristics.Limits.Exceeded.MaxFileSize", Reason.LIMIT),
        ("Heuristics.Limits.Exceeded.MaxRecursion", Reason.LIMIT),
        ("Heuristics.Limits.Exceeded.EmailHeaders", Reason.LIMIT),
        ("Heuristics.Limits.Exceeded", Reason.LIMIT),
        ("Heuristics.Encrypted.PDF", Reason.ENCRYPTED_DOCUMENT),
        ("Heuristics.Encrypted.OLE2", Reason.ENCRYPTED_DOCUMENT),
        ("Heuristics.Encrypted.Doc", Reason.ENCRYPTED_DOCUMENT),
        ("Heuristics.Encrypted.Zip", Reason.ENCRYPTED_ARCHIVE),
        ("Heuristics.Encrypted.RAR", Reason.ENCRYPTED_ARCHIVE),
        ("Heuristics.Encrypted.7Zip", Reason.ENCRYPTED_ARCHIVE),
        ("Heuristics.Encrypted.EGG", Reason.ENCRYPTED_ARCHIVE),
        ("Heuristics.Broken.Executable", Reason.DAMAGED),
        ("Heuristics.Broken.Media.JPEG.NoImages", Reason.DAMAGED),
    ],
)
def test_what_clamd_could_not_look_into_is_unscannable(name: str, reason: Reason) -> None:
    assert report(name, "v") == Report("clamav", Outcome.UNSCANNABLE, "v", reason)


@pytest.mark.parametrize(
    "name",
    [
        "Eicar-Test-Signature",
        "OK",
        "Heuristics.Phishing.Email.SpoofedDomain",
        "Heuristics.Structured.SSN",
        "Win.Trojan.Heuristics.Encrypted.Zip",
        "heuristics.encrypted.zip",
    ],
)
def test_every_other_name_is_malware(name: str) -> None:
    assert report(name, None) == Report("clamav", Outcome.INFECTED, None, Reason.MALWARE, (Detection(name),))
