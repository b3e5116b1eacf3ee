"""What the engines found, what it adds up to, and what the policy makes of it.

Engines find (`Report`), the verdict states (`Verdict`: the worst outcome wins), the policy decides
(`Policy.decide`, the only place where open or closed is chosen). Content is named by `ContentId`, a
keyed hash, and remembered under `VerdictKey`, which changes with every engine's version, so that a
signature update needs no invalidation code.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from functools import lru_cache
from itertools import chain
from typing import NewType

from scanner.member_names import printable, shortened, shown

ContentId = NewType("ContentId", bytes)
VerdictKey = NewType("VerdictKey", bytes)
Alias = NewType("Alias", bytes)

UNKNOWN_TYPE = "application/octet-stream"


class Outcome(IntEnum):
    """Ordered by severity: the worst one of all reports is the verdict's.

    OPAQUE is only said of a keyless sample: no engine named it, and it looks like ciphertext.
    """

    CLEAN = 0
    OPAQUE = 1
    UNSCANNABLE = 2
    FAILED = 3
    FORBIDDEN = 4
    INFECTED = 5


class Reason(StrEnum):
    """Why a report is not clean, in fixed words."""

    MALWARE = "malware"
    FORBIDDEN_TYPE = "forbidden_type"
    DENIED = "denied"
    OPAQUE = "opaque"
    # unscannable
    ENCRYPTED_ARCHIVE = "encrypted_archive"
    ENCRYPTED_DOCUMENT = "encrypted_document"
    LIMIT = "limit"
    TIME_LIMIT = "time_limit"
    DAMAGED = "damaged"
    AMBIGUOUS = "ambiguous"
    READERS_DISAGREE = "readers_disagree"
    # failed
    ENGINE_UNAVAILABLE = "engine_unavailable"
    ENGINE_ERROR = "engine_error"
    ENGINE_TIMEOUT = "engine_timeout"
    TEST_SIGNATURES = "test_signatures"
    CANARY = "canary"


class Category(StrEnum):
    """Kinds of detections, few enough for a metric label."""

    TROJAN = "trojan"
    EXPLOIT = "exploit"
    MACRO = "macro"
    PHISHING = "phishing"
    RANSOMWARE = "ransomware"
    PUA = "pua"
    HEURISTIC = "heuristic"
    TEST = "test"
    OTHER = "other"


_CATEGORY_WORDS = (
    (Category.TEST, re.compile(r"eicar|(?:^|\.)test(?:\.|-|_|$)", re.IGNORECASE)),
    (Category.RANSOMWARE, re.compile(r"ransom", re.IGNORECASE)),
    (Category.PHISHING, re.compile(r"phish", re.IGNORECASE)),
    (Category.EXPLOIT, re.compile(r"exploit|cve[-_.]", re.IGNORECASE)),
    (Category.MACRO, re.compile(r"macro|^doc\.|^xls\.", re.IGNORECASE)),
    (Category.PUA, re.compile(r"^pua\.", re.IGNORECASE)),
    (Category.HEURISTIC, re.compile(r"^heuristics\.", re.IGNORECASE)),
    (Category.TROJAN, re.compile(r"trojan|backdoor|dropper|downloader|malware", re.IGNORECASE)),
)
_SIGNATURE_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Detection:
    """One named finding. The name may come from a hostile database: it is escaped at birth.

    `path` is where it lies in an archive, "" where it is the file itself: names that somebody wrote into a
    private room. They are for whoever brought the file, and go into no event and no store.
    """

    signature: str
    path: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not _SIGNATURE_NAME.fullmatch(self.signature):
            escaped = re.sub(r"[^A-Za-z0-9._-]", lambda m: f"_x{ord(m[0]):x}_", self.signature)
            object.__setattr__(self, "signature", escaped[:128] or "unnamed")
        if self.path:
            object.__setattr__(self, "path", shortened(printable(self.path)))

    def inside(self, member: bytes) -> Detection:
        """As it is seen from outside of the archive in which it lies in `member`, a name as it stands."""
        return replace(self, path="/".join(filter(None, (shown(member), self.path))))

    @property
    def category(self) -> Category:
        """The first kind whose words stand in the signature's name."""
        for category, words in _CATEGORY_WORDS:
            if words.search(self.signature):
                return category
        return Category.OTHER


def located(detections: Iterable[Detection]) -> tuple[Detection, ...]:
    """Each once, and none without a path that is also there with one."""
    unique = dict.fromkeys(detections)
    inside = {found.signature for found in unique if found.path}
    return tuple(found for found in unique if found.path or found.signature not in inside)


@dataclass(frozen=True, slots=True)
class Report:
    """One engine's statement about one sample.

    `version` is the engine's (signatures and settings) in force when it was asked; None means that it
    was not certain, and that the verdict must not be remembered. `asked` are name and version of engines
    that it asked itself, about what is in the sample. `also` are further reasons why something in an
    unscannable one was not seen: who hands it over must want that for each of them.
    """

    engine: str
    outcome: Outcome
    version: str | None = None
    reason: Reason | None = None
    detections: tuple[Detection, ...] = ()
    asked: frozenset[tuple[str, str | None]] = frozenset()
    also: frozenset[Reason] = frozenset()

    def without_paths(self) -> Report:
        """Each signature once, wherever it was found."""
        names = dict.fromkeys(found.signature for found in self.detections)
        return replace(self, detections=tuple(map(Detection, names)))


@dataclass(frozen=True, slots=True)
class Hashes:
    """Hexadecimal digests of an infected plaintext, for the SOC's look-ups."""

    sha256: str
    sha1: str
    md5: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """All reports on one content. `judged_at` is Unix time; `hashes` stand there for what is quarantined.

    `kept`: the quarantine has the sample. `content` names what was judged; whoever hands
    a verdict out says so, it is not stored.
    """

    reports: tuple[Report, ...]
    judged_at: float = 0.0
    mime_type: str = UNKNOWN_TYPE
    hashes: Hashes | None = None
    kept: bool = False
    content: ContentId | None = field(default=None, compare=False)

    @property
    def outcome(self) -> Outcome:
        """The worst one; no report at all is a failure, never clean."""
        return max((report.outcome for report in self.reports), default=Outcome.FAILED)

    @property
    def conclusive(self) -> bool:
        """Whether every engine judged: only then may the verdict be remembered."""
        return bool(self.reports) and all(report.outcome is not Outcome.FAILED for report in self.reports)

    @property
    def versions(self) -> Mapping[str, str] | None:
        """Engine name to version, None where one is not certain, or the whole was judged by another."""
        known = {report.engine: report.version for report in self.reports if report.version is not None}
        agreed = all(known.get(name) == version for report in self.reports for name, version in report.asked)
        return known if agreed and len(known) == len(self.reports) else None

    @property
    def detections(self) -> tuple[Detection, ...]:
        """What all engines named."""
        return tuple(found for report in self.reports for found in report.detections)

    def without_paths(self) -> Verdict:
        """For everybody but who brought the file: what was detected, and not in which member."""
        if not any(found.path for found in self.detections):
            return self
        return replace(self, reports=tuple(report.without_paths() for report in self.reports))

    def to_json(self) -> str:
        """For the stores; `from_json` reads it back."""
        return json.dumps(
            {
                "reports": [
                    [
                        *(r.engine, r.outcome.name, r.version, r.reason),
                        *([d.signature for d in r.detections], sorted(r.also)),
                    ]
                    for r in self.reports
                ],
                "judged_at": self.judged_at,
                "mime_type": self.mime_type,
                "hashes": self.hashes and [self.hashes.sha256, self.hashes.sha1, self.hashes.md5],
                "kept": self.kept,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Raises ValueError, KeyError or TypeError on anything but `to_json`'s own text."""
        stored = json.loads(text)
        reports = tuple(
            Report(
                *(engine, Outcome[outcome], version, reason and Reason(reason), tuple(map(Detection, names))),
                also=frozenset(map(Reason, chain(*also))),  # absent from before there was more than one
            )
            for engine, outcome, version, reason, names, *also in stored["reports"]
        )
        hashes = stored["hashes"] and Hashes(*stored["hashes"])
        kept = bool(stored.get("kept", False))  # absent from before there was a quarantine
        return cls(reports, stored["judged_at"], stored["mime_type"], hashes, kept)


class IndexSecret:
    """Names content without telling a thief of the verdict store which files exist."""

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        self._keyed = hmac.new(secret, digestmod="sha256")

    def __repr__(self) -> str:
        return "<IndexSecret>"

    def content(self, plaintext_sha256: bytes) -> ContentId:
        """HMAC of the plaintext's hash."""
        return ContentId(self._mac(b"content", plaintext_sha256))

    def alias(self, origin: str, media_id: str, attachment: bytes) -> Alias:
        """Leads from an encrypted attachment (its key, IV and ciphertext hash) to its ContentId.

        The media ID is in it: without it an attacker could name his own upload beside a victim's hash.
        """
        return Alias(self._mac(b"alias", f"{origin}/{media_id}\0".encode() + attachment))

    def caller(self, name: str) -> bytes:
        """Tells callers apart without telling who they are; `name` may be a token."""
        return self._mac(b"caller", name.encode())

    def _mac(self, purpose: bytes, message: bytes) -> bytes:
        """From a keyed copy: `hmac.digest` lets go of the interpreter, and waits for it, each time."""
        mac = self._keyed.copy()
        mac.update(purpose + b"\0" + message)
        return mac.digest()


def verdict_key(content: ContentId, versions: Mapping[str, str], *, keyless: bool = False) -> VerdictKey:
    """The name under which a verdict on `content` by engines of these versions is remembered.

    What was judged as a plaintext says nothing of the same bytes as perhaps a ciphertext: `keyless` ones
    have names of their own.
    """
    engines = _encoded(tuple(sorted(versions.items())))
    return VerdictKey(hashlib.sha256(content + engines + (b"keyless" if keyless else b"")).digest())


@lru_cache(maxsize=64)
def _encoded(versions: tuple[tuple[str, str], ...]) -> bytes:
    """The same few, for every file."""
    return json.dumps(versions).encode()


@dataclass(frozen=True, slots=True)
class Override:
    """An analyst's word on a content, whatever engines say: hand it over, or not. `expires` is Unix time."""

    allow: bool
    reason: str
    author: str
    expires: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy makes of a verdict: hand the media over, or not, and why not.

    `observed`: it is handed over only because the policy observes; `approved` is what enforcing would say.
    `override` stands there if it made a difference, `detections` are what makes it infected.
    """

    deliver: bool
    outcome: Outcome
    reason: Reason | None = None
    observed: bool = False
    override: Override | None = None
    detections: tuple[Detection, ...] = ()

    @property
    def approved(self) -> bool:
        """Whether the media would be handed over whatever the mode: the true verdict."""
        return self.deliver and not self.observed


@dataclass(frozen=True, slots=True)
class Policy:
    """Which unscannable media are handed over all the same; nothing else is, unless it only observes.

    What is opaque is judged by where it goes: `opaque_uploads` to the homeserver, `opaque_downloads` from it.
    """

    deliver_encrypted_archives: bool = False
    deliver_encrypted_documents: bool = False
    deliver_unscannable: bool = False
    deliver_opaque_uploads: bool = False
    deliver_opaque_downloads: bool = False
    observe: bool = False

    @property
    def mode(self) -> str:
        """As `policy.mode` has it; a metric label."""
        return "observe" if self.observe else "enforce"

    def decide(self, verdict: Verdict, override: Override | None = None, *, upload: bool = False) -> Decision:
        """The only place where open or closed is chosen; runs after the cache.

        An allow hands over whatever was judged, but never what was not, by one engine or all (FAILED); a deny
        withholds whatever is not infected anyway, as FORBIDDEN.
        """
        decision = _overruled(verdict, override) or self._enforce(verdict, upload)
        if self.observe and not decision.deliver:
            return replace(decision, deliver=True, observed=True)
        return decision

    def _enforce(self, verdict: Verdict, upload: bool) -> Decision:  # noqa: FBT001 - from `decide`
        outcome = verdict.outcome
        if outcome is Outcome.CLEAN:
            return Decision(deliver=True, outcome=outcome)
        if outcome is Outcome.OPAQUE:
            deliver = self.deliver_opaque_uploads if upload else self.deliver_opaque_downloads
            return Decision(deliver, outcome, Reason.OPAQUE)
        if outcome is Outcome.UNSCANNABLE:
            return self._decide_unscannable(verdict)
        reason = _first_reason(verdict, outcome)
        return Decision(deliver=False, outcome=outcome, reason=reason, detections=verdict.detections)

    def _decide_unscannable(self, verdict: Verdict) -> Decision:
        reports = [report for report in verdict.reports if report.outcome is Outcome.UNSCANNABLE]
        reasons = [reason for report in reports for reason in (report.reason, *sorted(report.also))]
        withheld = [reason for reason in reasons if not self._delivers(reason)]
        decisive = (withheld or reasons)[0]
        return Decision(deliver=not withheld, outcome=Outcome.UNSCANNABLE, reason=decisive)

    def _delivers(self, reason: Reason | None) -> bool:
        if reason is Reason.ENCRYPTED_ARCHIVE:
            return self.deliver_encrypted_archives
        if reason is Reason.ENCRYPTED_DOCUMENT:
            return self.deliver_encrypted_documents
        return self.deliver_unscannable


def _overruled(verdict: Verdict, override: Override | None) -> Decision | None:
    if override is None:
        return None
    if override.allow:
        return _allowed(verdict, override)
    if verdict.outcome is Outcome.INFECTED:
        return None
    return Decision(deliver=False, outcome=Outcome.FORBIDDEN, reason=Reason.DENIED, override=override)


def _allowed(verdict: Verdict, override: Override) -> Decision | None:
    if verdict.outcome is Outcome.CLEAN:
        return None
    if not verdict.conclusive:
        return Decision(deliver=False, outcome=Outcome.FAILED, reason=_first_reason(verdict, Outcome.FAILED))
    return Decision(deliver=True, outcome=Outcome.CLEAN, override=override)


def _first_reason(verdict: Verdict, outcome: Outcome) -> Reason | None:
    return next((report.reason for report in verdict.reports if report.outcome is outcome), None)
