"""What happened, as frozen values, and the bus that hands them to the sinks.

Nothing else counts or logs: metrics and logs are both sinks of these. No event holds a key, a token or
plaintext.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scanner.media import MediaRef
    from scanner.verdict import ContentId, Decision, Outcome, Override, Verdict


class Source(StrEnum):
    """What a sample was inspected for; a metric label."""

    DOWNLOAD = "download"
    SCAN = "scan"
    THUMBNAIL = "thumbnail"
    UPLOAD = "upload"
    FEDERATION = "federation"
    INSPECT = "inspect"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Occasion:
    """The audit fields of one request for one media; what is being uploaded may have no `ref` yet."""

    ref: MediaRef | None
    source: Source
    encrypted: bool
    request_id: str


@dataclass(frozen=True, slots=True)
class Answered:
    """An HTTP answer went out. `route` is the route's template, `reason` the error's, if any."""

    route: str
    method: str
    code: int
    seconds: float
    request_id: str
    reason: str | None = None
    ref: MediaRef | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A request was turned away. `cause`: overload, too_large, shutdown or timeout."""

    cause: str


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A peer sent what is no HTTP; the bytes are not kept, a token may be among them."""

    problem: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """A bug of ours failed one request. `where` is file, line and function; no values."""

    route: str
    problem: str
    where: str
    request_id: str


@dataclass(frozen=True, slots=True)
class UpstreamAnswered:
    """The homeserver answered or failed: `code` is its HTTP status, or `error` or `timeout`."""

    upstream: str
    code: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StageTimed:
    """One stage of a scan ended. `stage`: queue, fetch, decrypt, engine or total."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DecryptFailed:
    """`cause`: hash, key, body or version."""

    cause: str


@dataclass(frozen=True, slots=True)
class VerdictLookedUp:
    """A verdict store was asked. `result`: hit, miss or stale."""

    tier: str
    result: str


@dataclass(frozen=True, slots=True)
class FlightJoined:
    """A request joined work that was already under way. `scope`: local or shared."""

    scope: str


@dataclass(frozen=True, slots=True)
class EngineAnswered:
    """An engine's backend answered. `result`: clean, found, error, timeout, limit or eof."""

    engine: str
    backend: str
    result: str
    seconds: float


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """An engine raised or could not answer; becomes a FAILED report."""

    engine: str
    problem: str


@dataclass(frozen=True, slots=True)
class ArchiveJudged:
    """It was decided whether clamd sees all of an archive or document, and if not, its members were judged.

    `kind` is its format; `answer`: plain, unpacked or unscannable, and then `reason` is why. `members` and
    `size` (bytes) are what was unpacked, archives in it included.
    """

    kind: str
    answer: str
    reason: str | None = None
    members: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class BackendChanged:
    """A backend went up or down, or has another version, transport or database. `state` is one word."""

    engine: str
    backend: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Scanned:
    """The engines judged a content (no recalled verdict)."""

    source: Source
    encrypted: bool
    size: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Detected:
    """Somebody asked for infected media. `seconds` is how long the request took so far."""

    occasion: Occasion
    verdict: Verdict
    decision: Decision
    size: int | None
    ciphertext_sha256: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Delivered:
    """Somebody is given media. `caller` is a keyed hash of who he is."""

    occasion: Occasion
    content: ContentId
    caller: bytes


@dataclass(frozen=True, slots=True)
class Observed:
    """The policy only observes: enforcing would have withheld this media, or did not get a verdict in time.

    `reason` is a `verdict.Reason`, or the cause of an `errors.Unavailable`.
    """

    occasion: Occasion
    outcome: Outcome
    reason: str | None

    @property
    def delivered(self) -> bool:
        """Whether the media went out all the same; a scan has an answer and no media."""
        return self.occasion.source is not Source.SCAN


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The configuration was read again: `changed` keys hold from now on, `pending` ones need a restart."""

    changed: tuple[str, ...]
    pending: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReloadFailed:
    """A new configuration cannot be used; everything stays as it was."""

    problem: str


@dataclass(frozen=True, slots=True)
class CanaryRan:
    """The canary was asked of one backend. `passed` is None where it got no answer."""

    backend: str
    passed: bool | None
    seconds: float


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """A verdict store could not read or write; requests go on without it."""

    store: str
    problem: str


@dataclass(frozen=True, slots=True)
class QuarantineStored:
    """A sample or record is in the store; `new` unless it was there already."""

    store: str
    name: str
    new: bool


@dataclass(frozen=True, slots=True)
class QuarantineFailed:
    """A sample or record could not be written (`store` is `outbox`) or shipped; what waits is tried again."""

    store: str
    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class QuarantineReplaced:
    """The store took another thing under a name that it had: it ignores the condition, here and for all."""

    store: str
    name: str


@dataclass(frozen=True, slots=True)
class HomeserverTold:
    """The homeserver was told of infected media, or of its release.

    `result`: quarantined, released, protected (a moderator said that it must not be), gone, or failed: then
    `problem` says why, and it is tried again. `media` is "" where not even that came to be tried.
    """

    media: str
    result: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Overridden:
    """An analyst's word decided about a media; `outcome` is what the engines say of it."""

    occasion: Occasion
    outcome: Outcome
    override: Override


@dataclass(frozen=True, slots=True)
class ActionJudged:
    """An analyst's statement was found in the store, or became another `result` (`actions.Standing`).

    Whoever can write to the store may have put it there: `author` is what it says of itself.
    """

    id: str
    action: str
    result: str
    sha256: str
    author: str


@dataclass(frozen=True, slots=True)
class ActionsUnread:
    """Analysts' statements cannot be read; those known stay in force. "" for `problem`: they can be again."""

    problem: str


@dataclass(frozen=True, slots=True)
class AuditSigned:
    """A head of the audit chain: in a log that is kept elsewhere it shows whether the end was cut off."""

    number: int
    sha256: str
    at: str
    author: str
    signature: str
    public_key: str


@dataclass(frozen=True, slots=True)
class AuditBroken:
    """A record of the audit chain that was there, with this number and SHA-256, is gone or another."""

    number: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ProcessChanged:
    """A child process of ours started, ended or is tried again. `state` is one word."""

    process: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SignaturesUpdated:
    """A run of freshclam is over. `result`: updated, current (nothing was newer), cooldown or failed.

    `detail` is what there is now, or the line that says why not.
    """

    result: str
    detail: str


@dataclass(frozen=True, slots=True)
class LibraryWarned:
    """A library of ours logged something: the first line of its message, without its arguments."""

    library: str
    message: str


Event = (
    Answered
    | Rejected
    | BadRequest
    | Crashed
    | UpstreamAnswered
    | StageTimed
    | DecryptFailed
    | VerdictLookedUp
    | FlightJoined
    | EngineAnswered
    | EngineFailed
    | ArchiveJudged
    | BackendChanged
    | Scanned
    | Delivered
    | Detected
    | HomeserverTold
    | Observed
    | Reloaded
    | ReloadFailed
    | CanaryRan
    | StoreFailed
    | ProcessChanged
    | Overridden
    | ActionJudged
    | ActionsUnread
    | AuditSigned
    | AuditBroken
    | QuarantineFailed
    | QuarantineReplaced
    | QuarantineStored
    | SignaturesUpdated
    | LibraryWarned
)
Publish = Callable[[Event], None]
