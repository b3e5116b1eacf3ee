"""What was done to a content and concerns whoever works with it: held, no longer held, deleted.

Each is a statement of whoever did it, signed as any other, with its approval beside it where one is needed.
None is ever changed: the last one counts, by the time that was signed, so that an old one put a second time
says nothing new. Where the configuration lists no analysts, what stands there is believed.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Self

from scanner.crypto.signing import canonical, parsed
from scanner.quarantine.actions import (
    STATEMENT_TYPES,
    Approval,
    Filed,
    Kind,
    Rules,
    Signed,
    Standing,
    Statement,
)
from scanner.quarantine.layout import MARKERS, marker_key

VERSION = 1
KINDS = (Kind.HOLD, Kind.UNHOLD, Kind.DELETE)
# What is dated further ahead would be the last word for good.
_MOST_AHEAD = 86_400
_KEY = re.compile(rf"{MARKERS}/(?P<sha256>[0-9a-f]{{64}})/[0-9A-Za-z-]{{1,64}}\.json")
_TYPES = {**STATEMENT_TYPES, **dict.fromkeys(("signature", "approved_by", "approval"), str)}


@dataclass(frozen=True, slots=True)
class Marker:
    """One of them, by its name in the store; `said` is None where that is no statement about the content.

    `standing` is None where nobody checks signatures.
    """

    key: str
    sha256: str
    said: Statement | None
    standing: Standing | None

    @classmethod
    def read(cls, key: str, data: bytes, rules: Rules, now: float) -> Self:
        """Judged by `rules`: what was done stays done, and a hold holds until it expires.

        Also if whoever held it is here no longer, and if his clock is ahead, by less than a day.
        """
        sha256 = content_of(key)
        try:
            signed, approvals = _from_json(data)
        except ValueError:
            return cls(key, sha256, None, Standing.MALFORMED)
        said = signed.statement
        if said.sha256 != sha256 or said.action not in KINDS:
            return cls(key, sha256, None, Standing.MALFORMED)
        if not rules.analysts:
            return cls(key, sha256, said, None)
        filed = Filed(signed.id, signed, approvals)
        if said.action is Kind.HOLD:
            standing = rules.with_former().judge(filed, max(now, said.issued))
        else:
            standing = rules.judge(filed, said.issued)
        if standing is Standing.APPROVED and said.issued > now + _MOST_AHEAD:
            standing = Standing.EARLY
        return cls(key, sha256, said, standing)

    @property
    def counts(self) -> bool:
        """Whether it is signed as it must be, or nobody checks."""
        return self.said is not None and self.standing in (None, Standing.APPROVED)


def content_of(key: str) -> str:
    """SHA-256 of the content that what has this name is about; "" where it is the name of no marker."""
    found = _KEY.fullmatch(key)
    return found["sha256"] if found else ""


def new_marker(signed: Signed, approval: Approval | None = None) -> tuple[str, bytes]:
    """Its name in the store, which nobody knows before, and its content (JSON, under 2 KB)."""
    said = signed.statement
    at = datetime.fromtimestamp(said.issued, UTC)
    content = {"version": VERSION, **asdict(said), "signature": signed.signature}
    content |= {
        "approved_by": approval.by if approval else "",
        "approval": approval.signature if approval else "",
    }
    name = f"{at:%Y%m%dT%H%M%SZ}-{said.action}-{secrets.token_hex(4)}"
    return marker_key(said.sha256, name), canonical(content)


def counting(markers: Iterable[Marker], *kinds: Kind) -> list[Statement]:
    """What those that count say, of these kinds, the last one last; of two at once a hold is the last."""
    said = [each.said for each in markers if each.counts and each.said and each.said.action in kinds]
    return sorted(said, key=lambda each: (each.issued, each.action is Kind.HOLD))


def is_held(markers: Iterable[Marker]) -> bool:
    """Whether the last who said so wants the content kept."""
    said = counting(markers, Kind.HOLD, Kind.UNHOLD)
    return bool(said) and said[-1].action is Kind.HOLD


def _from_json(data: bytes) -> tuple[Signed, tuple[Approval, ...]]:
    """Raises ValueError on what is none of this version."""
    content = parsed(data, VERSION, _TYPES)
    approval = Approval(content.pop("approved_by"), content.pop("approval"))
    signature = content.pop("signature")
    return Signed.of(content, signature), (approval,) if approval.by else ()
