"""How old a clamd's signatures are, and whether several clamds have the same."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from scanner.clamd import control
from scanner.clamd.control import ClamdVersion
from scanner.clamd.home import marker
from scanner.doctor.finding import Notes
from scanner.doctor.prober import Prober
from scanner.doctor.words import duration
from scanner.errors import EngineError

# ClamAV no longer mends older ones, and refuses them signatures some time later.
_OLDEST_MENDED = (1, 0)
_AGE_TO_WARN_OF = 2 * 86400.0
# Clocks differ; a date further ahead is a wrong clock (facts/security.md, section 4).
_AHEAD = 3600.0
_GREATEST_SKEW = 1
_TEST_SIGNATURE = "MediaScanner.Test.Marker"


@dataclass(frozen=True, slots=True)
class Terms:
    """What signatures have to be; `max_age` is in seconds, None: any set will do."""

    max_age: float | None
    accept_test_set: bool


async def examine(notes: Notes, prober: Prober, terms: Terms) -> ClamdVersion | None:
    """Version of clamd and age of its signatures; None where it does not tell."""
    try:
        version = await control.version(prober.address)
    except EngineError as problem:
        notes.failed("version", problem.info, "look at clamd's log; is something else listening there?")
        return None
    _note_version(notes, version)
    if version.signature_version is None and await _has_test_set(prober):
        _note_test_set(notes, terms)
    else:
        _note_age(notes, version, terms)
    return version


def compare(notes: Notes, versions: Mapping[str, ClamdVersion]) -> None:
    """Of several clamds."""
    numbers = {
        name: version.signature_version
        for name, version in versions.items()
        if version.signature_version is not None
    }
    if len(numbers) < 2:
        return
    oldest, newest = min(numbers, key=lambda name: numbers[name]), max(numbers.values())
    if newest - numbers[oldest] > _GREATEST_SKEW:
        found = f"{oldest} has {numbers[oldest]}, another one {newest}"
        notes.warning("same signatures", found, f"run freshclam where {oldest} is")
    else:
        notes.ok("same signatures", f"{len(numbers)} clamds, none far behind")


def _note_version(notes: Notes, version: ClamdVersion) -> None:
    text = version.text.partition("/")[0]
    number = re.search(r"(\d+)\.(\d+)", text)
    if number is not None and (int(number[1]), int(number[2])) < _OLDEST_MENDED:
        notes.warning("version", f"{text}, which gets no security fixes", "upgrade to ClamAV 1.4 or newer")
    else:
        notes.ok("version", text)


async def _has_test_set(prober: Prober) -> bool:
    return (await prober.ask(marker(_TEST_SIGNATURE))).info.startswith(_TEST_SIGNATURE)


def _note_test_set(notes: Notes, terms: Terms) -> None:
    if terms.accept_test_set:
        found = "only the test set, which clamav.accept_test_signatures allows: for trying"
        notes.warning("signatures", found, "run freshclam before anybody relies on this")
    else:
        found = "only the test set: every file is refused"
        notes.failed("signatures", found, "run freshclam; the embedded clamd takes them up by itself")


def _note_age(notes: Notes, version: ClamdVersion, terms: Terms) -> None:
    made = version.signature_timestamp
    if made is None:
        _note_undated(notes, terms)
        return
    age = time.time() - made
    found = f"{version.signature_version}, {duration(abs(age))} {'old' if age >= 0 else 'ahead of our clock'}"
    if age < -_AHEAD:
        notes.failed("signatures", found, "set the clock of this host, or of clamd's")
    elif terms.max_age is not None and age > terms.max_age:
        advice = f"run freshclam: more than {duration(terms.max_age)} (clamav.max_signature_age) is too old"
        notes.failed("signatures", found, advice)
    elif age > _AGE_TO_WARN_OF:
        notes.warning("signatures", found, "see why freshclam brings none; there are new ones every day")
    else:
        notes.ok("signatures", found)


def _note_undated(notes: Notes, terms: Terms) -> None:
    if terms.max_age is None:
        notes.ok("signatures", "a set without a date, which clamav.max_signature_age: null allows")
    else:
        notes.failed(
            "signatures",
            "without a date: none of ClamAV's own",
            "run freshclam; if this set is meant to be all, clamav.max_signature_age: null",
        )
