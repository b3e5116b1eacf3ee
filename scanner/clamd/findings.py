"""What the names that clamd gives mean: malware, or something that it could not look into.

`Heuristics.Limits.Exceeded*`, `Encrypted*` and `Broken*` are clamd saying that it did not see all of a
file (facts/security.md section 2); every other name is a detection.
"""

from __future__ import annotations

import hashlib
import re

from scanner.verdict import Detection, Outcome, Reason, Report

ENGINE = "clamav"

_UNSCANNABLE = (
    (r"Heuristics\.Limits\.Exceeded\.MaxScanTime", Reason.TIME_LIMIT),
    (r"Heuristics\.Limits\.Exceeded", Reason.LIMIT),
    (r"Heuristics\.Encrypted\.(?:PDF|OLE|Doc|Xls|Ppt|Office)", Reason.ENCRYPTED_DOCUMENT),
    (r"Heuristics\.Encrypted", Reason.ENCRYPTED_ARCHIVE),
    (r"Heuristics\.Broken", Reason.DAMAGED),
)
_MEANINGS = tuple((re.compile(pattern), reason) for pattern, reason in _UNSCANNABLE)

# Part of the engine's version: a verdict reached under other rules is not recalled.
RULES = hashlib.sha256(repr(_UNSCANNABLE).encode()).hexdigest()[:8]


def report(found: str | None, version: str | None) -> Report:
    """The engine's report where clamd found `found`, or None for an exact OK, under `version`."""
    if found is None:
        return Report(ENGINE, Outcome.CLEAN, version)
    for pattern, reason in _MEANINGS:
        if pattern.match(found):
            return Report(ENGINE, Outcome.UNSCANNABLE, version, reason)
    return Report(ENGINE, Outcome.INFECTED, version, Reason.MALWARE, (Detection(found),))
