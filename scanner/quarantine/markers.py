"""What was done to a content and concerns whoever works with it: held, no longer held, deleted.

The name of a marker alone says what, so that a listing is enough; who and why stand inside. None is ever
changed: the last one counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from scanner.ports import Stored
from scanner.quarantine.layout import MARKERS, marker_key

_LONGEST_REASON, _LONGEST_NAME = 300, 100
_TIME = "%Y%m%dT%H%M%S.%fZ"
_KEY = re.compile(
    rf"{MARKERS}/(?P<sha256>[0-9a-f]{{64}})/(?P<at>[0-9]{{8}}T[0-9]{{6}}\.[0-9]{{6}}Z)-"
    r"(?P<what>hold|unhold|delete)-[0-9a-f]{8}\.json"
)


class Marking(StrEnum):
    """What is marked."""

    HOLD = "hold"
    UNHOLD = "unhold"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Marker:
    """One of them, by its name in the store: what was done to which content, and when it says that was.

    `stored` is when the store took it (Unix time), by one clock for all workstations.
    """

    key: str
    sha256: str
    what: Marking
    at: datetime
    stored: float

    @classmethod
    def of(cls, stored: Stored) -> Self | None:
        """None where this is the name of no marker."""
        found = _KEY.fullmatch(stored.key)
        if found is None:
            return None
        try:
            at = datetime.strptime(found["at"], _TIME).replace(tzinfo=UTC)
        except ValueError:
            return None
        return cls(stored.key, found["sha256"], Marking(found["what"]), at, stored.modified)


def new_marker(
    sha256: str, what: Marking, *, by: str, reason: str, at: datetime, nonce: str
) -> tuple[str, bytes]:
    """Its name in the store, and its content (JSON, under 2 KB); `at` is in UTC, `nonce` hexadecimal."""
    name = f"{at:{_TIME}}-{what}-{nonce[:8]}"
    content = {"version": 1, "sha256": sha256, "what": what, "at": at.isoformat(timespec="milliseconds")}
    content |= {"by": by[:_LONGEST_NAME], "reason": reason[:_LONGEST_REASON]}
    return marker_key(sha256, name), json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def is_held(markers: Iterable[Marker]) -> bool:
    """Whether the last who said so wants the content kept; stores tell times in whole seconds."""
    said = [marker for marker in markers if marker.what is not Marking.DELETE]
    last = max(said, key=lambda marker: (int(marker.stored), marker.at), default=None)
    return last is not None and last.what is Marking.HOLD
