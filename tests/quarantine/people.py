"""Analysts with keys, and what they sign."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any

from scanner.crypto.signing import Signer, format_public_key
from scanner.quarantine.actions import (
    Analyst,
    Approval,
    Filed,
    Kind,
    Role,
    Rules,
    Signed,
    Statement,
    new_nonce,
)
from scanner.quarantine.markers import Marker, new_marker

STORE = "https://s3.example.org/quarantine/"
SHA256 = hashlib.sha256(b"a sample").hexdigest()
HOUR = 3600

SIGNERS = {name: Signer(hashlib.sha256(name.encode()).digest()) for name in ("alice", "bob", "carol", "dave")}
ROLES = {"alice": Role.ANALYST, "bob": Role.APPROVER, "carol": Role.APPROVER, "dave": Role.FORMER}
ANALYSTS = {name: Analyst(name, ROLES[name], signer.public_key) for name, signer in SIGNERS.items()}
MALLORY = Signer(b"m" * 32)

NOBODY = Rules(STORE, {})
TWO_EYES = Rules(STORE, ANALYSTS)
FOUR_EYES = Rules(STORE, ANALYSTS, four_eyes=True)


def statement(action: Kind = Kind.RELEASE, **others: Any) -> Statement:
    """Alice's, for an hour from now."""
    now = int(time.time())
    said = Statement(
        action=action,
        sha256=SHA256,
        store=STORE,
        reason="a false positive",
        author="alice",
        nonce=new_nonce(),
        issued=now,
        expires=now + HOUR,
    )
    return replace(said, **others)


def signed(action: Kind = Kind.RELEASE, **others: Any) -> Signed:
    """By its author."""
    said = statement(action, **others)
    return Signed.by(SIGNERS[said.author], said)


def approved(what: Signed, by: str, signer: Signer | None = None) -> Approval:
    """By whoever is named, with his own key unless another is given."""
    return Approval.of(what.statement, signer or SIGNERS[by], by)


def filed(what: Signed | None, *approvals: Approval) -> Filed:
    """As it may stand in a store."""
    return Filed(what.id if what else "20261121T120000Z-00000000", what, approvals)


def marker(what: Signed, approval: Approval | None = None, rules: Rules = TWO_EYES) -> Marker:
    """As it is read from a store now, by `rules`."""
    return Marker.read(*new_marker(what, approval), rules, time.time())


def configured_analysts(*names: str) -> list[dict[str, str]]:
    """As `quarantine.analysts` has them."""
    return [
        {"name": name, "role": ROLES[name], "public_key": format_public_key(SIGNERS[name].public_key)}
        for name in names or SIGNERS
    ]
