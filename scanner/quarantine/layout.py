"""The names of everything in a quarantine store (facts/operations.md, section 5).

    v1/objects/<recipients>/sha256/ab/cd/<sha256>    sealed samples, named by their plaintext
    v1/detections/2026/11/21/<id>.json               who was refused what, once a content, media ID and day
    v1/deliveries/<sha256>/<replica>                 sealed: who had been given it before, so one replica says
    v1/actions/<id>.json                             signed statements of analysts, named by what they say
    v1/actions/<id>.approval-<name>-<digest>.json    another analyst's signature on one
    v1/nonces/<nonce>                                which statement used it: put by a scanner that obeys
    v1/markers/<sha256>/<time>-<what>-<random>.json  held, no longer held, deleted: signed as statements are
    v1/audit/<number>.json                           the chain of what was done
    v1/audit/heads/<number>-<scanner>.json           how long it was, signed by a scanner

Nothing is ever changed: state is the fold of what is there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime

ROOT = "v1"
OBJECTS = f"{ROOT}/objects"
DETECTIONS = f"{ROOT}/detections"
DELIVERIES = f"{ROOT}/deliveries"
ACTIONS = f"{ROOT}/actions"
MARKERS = f"{ROOT}/markers"
NONCES = f"{ROOT}/nonces"
AUDIT = f"{ROOT}/audit"
HEADS = f"{AUDIT}/heads"
_OF_CONTENT = re.compile(
    rf"(?:{DELIVERIES}/|{OBJECTS}/[0-9a-f]{{16}}/sha256/[0-9a-f]{{2}}/[0-9a-f]{{2}}/)"
    r"(?P<sha256>[0-9a-f]{64})(?:/(?P<replica>[0-9a-z]+))?"
)


def fingerprint(public_keys: Sequence[bytes]) -> str:
    """Names the recipients of an envelope, so that another SOC key finds copies of its own only."""
    return hashlib.sha256(b"".join(sorted(public_keys))).hexdigest()[:16]


def object_key(recipients: str, sha256: str) -> str:
    """Of the sealed sample whose plaintext has this hash."""
    return f"{OBJECTS}/{recipients}/sha256/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def detection_key(day: datetime, identity: str) -> str:
    """Of the one record that a content and media ID have for this day."""
    return f"{DETECTIONS}/{day:%Y/%m/%d}/{identity}.json"


def deliveries_of(sha256: str) -> str:
    """What the names of all replicas' deliveries of a content begin with."""
    return f"{DELIVERIES}/{sha256}/"


def deliveries_key(sha256: str, replica: str) -> str:
    """Of what one replica says of a content."""
    return f"{deliveries_of(sha256)}{replica}"


def content_of(key: str) -> str:
    """Whose sample or deliveries have this name; "" where the name is that of neither."""
    found = _OF_CONTENT.fullmatch(key)
    return found["sha256"] if found else ""


def replica_of(key: str) -> str:
    """Who says what has this name of deliveries; "" where it is none."""
    found = _OF_CONTENT.fullmatch(key)
    return found["replica"] or "" if found else ""


def markers_prefix(sha256: str) -> str:
    """What the names of all markers of a content begin with."""
    return f"{MARKERS}/{sha256}/"


def marker_key(sha256: str, name: str) -> str:
    """Of one thing that was done to a content."""
    return f"{markers_prefix(sha256)}{name}.json"


def action_key(name: str) -> str:
    """Of a signed statement, by its ID."""
    return f"{ACTIONS}/{name}.json"


def approval_key(name: str, approver: str, digest: str) -> str:
    """Of an approver's signature on the statement `name`; nobody knows the digest before he signs."""
    return f"{ACTIONS}/{name}.approval-{approver}-{digest}.json"


def nonce_key(nonce: str) -> str:
    """Of the mark that a nonce is used."""
    return f"{NONCES}/{nonce}"


def audit_key(number: int) -> str:
    """Of one record of the chain; names sort by number."""
    return f"{AUDIT}/{number:09}.json"


def head_key(number: int, scanner: str) -> str:
    """Of a scanner's signature on the record that was then the last."""
    return f"{HEADS}/{number:09}-{scanner}.json"


def identity(sha256: str, media: str) -> str:
    """What makes a detection the same: replicas that see it write one record."""
    return hashlib.sha256(f"{sha256} {media}".encode()).hexdigest()[:32]
