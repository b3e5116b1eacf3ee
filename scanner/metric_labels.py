"""What the labels of metrics may say: each series is there from the start, and any other value is `other`."""

from __future__ import annotations

from scanner.events import Source
from scanner.verdict import Outcome, Reason

# The reasons of the scanner API and the errcodes on the homeserver's routes (facts/wire.md): ours, and those
# that it says of media every day; its others count as `other`.
REASONS = (
    *("M_CANNOT_OVERWRITE_MEDIA", "M_FORBIDDEN", "M_LIMIT_EXCEEDED", "M_MISSING_TOKEN", "M_NOT_FOUND"),
    *("M_NOT_YET_UPLOADED", "M_TOO_LARGE", "M_UNKNOWN", "M_UNKNOWN_TOKEN"),
    *("MCS_BAD_DECRYPTION", "MCS_MALFORMED_JSON", "MCS_MEDIA_FAILED_TO_DECRYPT", "MCS_MEDIA_NOT_CLEAN"),
    *("MCS_MEDIA_REQUEST_FAILED", "MCS_MIME_TYPE_FORBIDDEN"),
)
REJECTIONS = ("overload", "shutdown", "timeout", "too_large")
OBJECTIONS = (*Reason, "overload", "timeout")
RESULTS = ("clean", "found", "error", "timeout", "limit", "eof")
DECRYPT_FAILURES = ("body", "hash", "key", "version")
WRITES = ("stored", "existing", "replaced", "failed")
# `upstream.admin.Fate`, and `failed`.
FATES = ("quarantined", "protected", "gone", "released", "failed")
# `quarantine.actions` knows these words; a test holds both to each other.
ACTIONS = ("release", "allow", "deny", "forget", "delete", "hold", "unhold", "other")
STANDINGS = (
    *("approved", "waiting", "early", "expired", "forged", "other_store"),
    *("self_approved", "replayed", "malformed"),
)
OVERRIDES = {True: "allow", False: "deny"}
ENDS = ("crash", "timeout", "protocol", "template_ended", "template_stalled")  # in scanner/unpacking
UPDATES = ("updated", "current", "cooldown", "failed")
# `containers.recognise` knows the kinds, `engines.archive` the answers; a test holds them to each other.
KINDS = (
    *("zip", "sevenzip", "rar", "cab", "tar", "ar", "cpio", "rpm", "iso", "pdf", "ole2", "other"),
    *("gzip", "bzip2", "xz", "zstd", "lz4", "lzip", "lzma", "compress"),
)
ANSWERS = ("plain", "unpacked", "unscannable")
LOOKUPS = ("hit", "miss", "stale")
UPSTREAMS = ("homeserver",)
CODES = tuple(map(str, (200, 304, 400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 500, 502, 503, 504)))
UPSTREAM_CODES = (*CODES, "301", "302", "307", "308", "501", "error", "timeout")
SOURCES = tuple(source.value for source in Source if source is not Source.CANARY)
OUTCOMES = {outcome: outcome.name.lower() for outcome in Outcome}
BOOLEANS = {False: "false", True: "true"}
STAGES = ("queue", "fetch", "decrypt", "engine", "quarantine", "total")
