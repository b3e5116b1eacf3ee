"""What analysts decide about contents: signed statements, and whether one counts. Pure.

A statement names the action, the plaintext's SHA-256, the store, a reason, its author, a nonce and when it
ends. With four eyes most need the approval of another person, a signature of his own beside it: nothing is
changed in place. Whoever can write to the store is not trusted: only signatures count, and the keys that the
configuration lists. What a statement says, signature and nonce included, is its only name, so that a second
copy of it is known as one by anybody, and nobody can take the name first.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from scanner.crypto.signing import Signer, canonical, parsed, verified

VERSION = 1
LONGEST_REASON = 500
_ACTION, _APPROVAL = "action 1", "approval 1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NONCE = re.compile(r"[0-9a-f]{32}")
_LONGEST_TEXT = 1_000
# Bytes as it is spelled, so that it stays under 2 KB with two signatures.
_LARGEST_STATEMENT = 1_700
# The last second of the calendar: of what has no end.
NEVER = 253_402_300_799
# Clocks of workstations are not ours; S3 refuses those that are wrong by more.
_SKEW = 900


class Kind(StrEnum):
    """What is to be done; a metric label.

    `release` and `allow` hand a content over whatever the engines say, `deny` withholds it, `forget` takes
    back whatever was said of it before; the others are what is done to a sample.
    """

    RELEASE = "release"
    ALLOW = "allow"
    DENY = "deny"
    FORGET = "forget"
    DELETE = "delete"
    HOLD = "hold"
    UNHOLD = "unhold"

    @property
    def needs_approval(self) -> bool:
        """Whether four eyes are for this: not for what is urgent and harms nobody."""
        return self not in (Kind.DENY, Kind.HOLD)


class Standing(StrEnum):
    """Whether a statement counts, or why not; a metric label."""

    APPROVED = "approved"
    WAITING = "waiting"
    EARLY = "early"
    EXPIRED = "expired"
    FORGED = "forged"
    OTHER_STORE = "other_store"
    SELF_APPROVED = "self_approved"
    REPLAYED = "replayed"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Statement:
    """What an analyst says. `issued` and `expires` are Unix times in whole seconds."""

    action: Kind
    sha256: str
    store: str
    reason: str
    author: str
    nonce: str
    issued: int
    expires: int

    def __post_init__(self) -> None:
        texts = (self.store, self.reason, self.author)
        if not (all(0 < len(text) <= _LONGEST_TEXT for text in texts) and len(self.reason) <= LONGEST_REASON):
            raise ValueError("a text is empty or too long")
        if len(canonical(asdict(self))) > _LARGEST_STATEMENT:
            raise ValueError("the texts are too long together")
        if not (_SHA256.fullmatch(self.sha256) and _NONCE.fullmatch(self.nonce)):
            raise ValueError("no SHA-256, or no nonce")
        if not 0 <= self.issued < self.expires <= NEVER:
            raise ValueError("it ends before it begins")


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement as it stands in the store, under its author's signature."""

    statement: Statement
    signature: str

    @classmethod
    def by(cls, signer: Signer, statement: Statement) -> Self:
        """Signed by its author."""
        return cls(statement, signer.sign(_ACTION, asdict(statement)))

    @property
    def id(self) -> str:
        """Its name in a store: sorts by time, can be typed, and cannot be known before it is signed."""
        at = datetime.fromtimestamp(self.statement.issued, UTC)
        return f"{at:%Y%m%dT%H%M%SZ}-{_digest(self.to_json())}"

    def to_json(self) -> bytes:
        """`from_json` reads it back; under 2 KB."""
        return canonical({"version": VERSION, "signature": self.signature, **asdict(self.statement)})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Raises ValueError on what is none of this version."""
        content = parsed(data, VERSION, {**STATEMENT_TYPES, "signature": str})
        signature = content.pop("signature")
        return cls.of(content, signature)

    @classmethod
    def of(cls, content: Mapping[str, Any], signature: str) -> Self:
        """From members of the types of a statement. Raises ValueError on what is none."""
        return cls(Statement(**{**content, "action": Kind(content["action"])}), signature)


@dataclass(frozen=True, slots=True)
class Approval:
    """Another person's signature on a statement."""

    by: str
    signature: str

    @classmethod
    def of(cls, statement: Statement, signer: Signer, by: str) -> Self:
        """`by` is the signer's name in the configuration."""
        return cls(by, signer.sign(_APPROVAL, _approved(statement, by)))

    @property
    def digest(self) -> str:
        """Part of its name in a store."""
        return _digest(self.to_json())

    def to_json(self) -> bytes:
        """`from_json` reads it back."""
        return canonical({"version": VERSION, "by": self.by, "signature": self.signature})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Raises ValueError on what is none of this version."""
        return cls(**parsed(data, VERSION, {"by": str, "signature": str}))


@dataclass(frozen=True, slots=True)
class Filed:
    """What stands in the store under one name; `signed` is None where that is no statement."""

    id: str
    signed: Signed | None
    approvals: tuple[Approval, ...] = ()


class Role(StrEnum):
    """`analyst` signs statements, `approver` also approves those of others; `former` neither, any longer."""

    ANALYST = "analyst"
    APPROVER = "approver"
    FORMER = "former"


@dataclass(frozen=True, slots=True)
class Analyst:
    """Somebody whose signatures count. `public_key` is 32 bytes (Ed25519)."""

    name: str
    role: Role
    public_key: bytes


@dataclass(frozen=True)
class Rules:
    """Whose statements count here: `store` is the name of this store, `four_eyes` asks for two people."""

    store: str
    analysts: Mapping[str, Analyst]
    four_eyes: bool = False

    def judge(self, filed: Filed, now: float) -> Standing:
        """Whether it counts, looked at alone; of several `judge_all` says whether a nonce is used twice."""
        if filed.signed is None:
            return Standing.MALFORMED
        if not self._is_signed(filed.signed):
            return Standing.FORGED
        if filed.id != filed.signed.id:
            return Standing.REPLAYED
        statement = filed.signed.statement
        if statement.store != self.store:
            return Standing.OTHER_STORE
        if now >= statement.expires:
            return Standing.EXPIRED
        early = statement.issued > now + _SKEW
        return Standing.EARLY if early else self._approval(statement, filed.approvals)

    def judge_all(self, filed: Iterable[Filed], now: float) -> Iterator[tuple[Filed, Standing]]:
        """Each of what a store has, in its order."""
        return without_repeats((each, self.judge(each, now)) for each in filed)

    def unapproved(self) -> Rules:
        """The same for what an author says, whoever approves it."""
        return replace(self, four_eyes=False)

    def with_former(self) -> Rules:
        """The same for what outlasts those who said it."""
        analysts = self.analysts.values()
        active = {
            each.name: replace(each, role=Role.ANALYST) for each in analysts if each.role is Role.FORMER
        }
        return replace(self, analysts={**self.analysts, **active})

    def approval_of(self, filed: Filed) -> Approval | None:
        """The first that counts."""
        if filed.signed is None:
            return None
        statement, approved = filed.signed.statement, Standing.APPROVED
        return next(
            (each for each in filed.approvals if self._judge_approval(statement, each) is approved), None
        )

    def author_of(self, public_key: bytes) -> Analyst | None:
        """Whose key this is."""
        return next((each for each in self.analysts.values() if each.public_key == public_key), None)

    def _is_signed(self, signed: Signed) -> bool:
        author = self.analysts.get(signed.statement.author)
        if author is None or author.role is Role.FORMER:
            return False
        return verified(author.public_key, signed.signature, _ACTION, asdict(signed.statement))

    def _approval(self, statement: Statement, approvals: Sequence[Approval]) -> Standing:
        """One that counts is enough: what others put beside it takes nothing away."""
        if not (self.four_eyes and statement.action.needs_approval):
            return Standing.APPROVED
        found = {self._judge_approval(statement, approval) for approval in approvals}
        for standing in (Standing.APPROVED, Standing.SELF_APPROVED, Standing.FORGED):
            if standing in found:
                return standing
        return Standing.WAITING

    def _judge_approval(self, statement: Statement, approval: Approval) -> Standing:
        approver, own = self.analysts.get(approval.by), approval.by == statement.author
        if approver is None or (approver.role is not Role.APPROVER and not own):
            return Standing.FORGED
        content = _approved(statement, approval.by)
        if not verified(approver.public_key, approval.signature, _APPROVAL, content):
            return Standing.FORGED
        return Standing.SELF_APPROVED if own else Standing.APPROVED


def new_nonce() -> str:
    """Never the same twice."""
    return secrets.token_hex(16)


def without_repeats(judged: Iterable[tuple[Filed, Standing]]) -> Iterator[tuple[Filed, Standing]]:
    """A nonce counts once: of what an author signed with the same, the first that counts or counted."""
    used = set[tuple[str, str]]()
    for filed, standing in judged:
        if standing in (Standing.APPROVED, Standing.EXPIRED) and filed.signed is not None:
            nonce = filed.signed.statement.author, filed.signed.statement.nonce
            yield filed, Standing.REPLAYED if nonce in used else standing
            used.add(nonce)
        else:
            yield filed, standing


def words_on_contents(statements: Iterable[Statement]) -> dict[str, Statement]:
    """By SHA-256, the release, allow or deny that holds: the last one that was not taken back."""
    last: dict[str, Statement] = {}
    for statement in sorted(statements, key=lambda each: (each.issued, each.nonce)):
        if statement.action in (Kind.RELEASE, Kind.ALLOW, Kind.DENY):
            last[statement.sha256] = statement
        elif statement.action is Kind.FORGET:
            last.pop(statement.sha256, None)
    return last


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _approved(statement: Statement, by: str) -> dict[str, str | int]:
    """What an approver signs."""
    return {**asdict(statement), "approved_by": by}


STATEMENT_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("action", "sha256", "store", "reason", "author", "nonce"), str),
    **dict.fromkeys(("issued", "expires"), int),
}
