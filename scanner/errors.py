"""Every exception of the product. No HTTP here: `web/wire.py` alone knows status codes.

    ScannerError
    ├── ClientError                 what the caller sent cannot be served, now or later
    │   ├── MalformedRequest        not JSON, or not the JSON we expect
    │   ├── RequestTooLarge         a request body over 1 MiB, or an upload over its limit
    │   ├── RequestTooSlow          an upload that came too slowly
    │   ├── UnsupportedEncoding     an upload with a Content-Encoding
    │   ├── SealedBodyError         `encrypted_body` that none of our secrets opens
    │   ├── DecryptionError         key, IV or hash unusable, or not those of this ciphertext
    │   └── InvalidMedia            no media can have this name
    ├── UpstreamError               the homeserver refused, failed or was silent
    │   ├── AccessDenied            401, with the homeserver's code
    │   ├── MediaNotFound           404, or 403: the caller may not know which
    │   ├── Throttled               429, with its Retry-After
    │   ├── MediaTooLarge           more bytes than `limits.media_size`
    │   ├── NotYetUploaded          504 M_NOT_YET_UPLOADED
    │   ├── UpstreamSilent          no answer in time
    │   └── UpstreamFailed          anything else that went wrong there
    ├── Unavailable                 we cannot answer now: overload, shutdown, out of time
    ├── EngineError                 an engine could not judge; never leaves the pipeline
    ├── StoreError                  a verdict store failed; never fails a request
    ├── EnvelopeError               a quarantine envelope cannot be sealed or opened
    ├── Unreadable                  a file on disk cannot be judged as it stands
    └── ConfigError                 the operator must change something; exit 2

A verdict is a value; an exception is for what we could not do. Foreign errors are translated
once, where they enter. Messages are shown to users: they name fields, never values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class ScannerError(Exception):
    """Root of the tree; its message is safe to show to a user."""

    def __init__(self, info: str) -> None:
        super().__init__(info)
        self.info = info


class ClientError(ScannerError):
    """What the caller sent cannot be served."""


class MalformedRequest(ClientError):
    """Not JSON, or a member is missing or of the wrong type."""


class RequestTooLarge(ClientError):
    """The request body is over its limit."""


class RequestTooSlow(ClientError):
    """The request body came too slowly, or not at all."""


class UnsupportedEncoding(ClientError):
    """The request body is encoded: what would be stored is not what it looks like."""


class SealedBodyError(ClientError):
    """None of our secrets opens the sealed body."""


class DecryptionError(ClientError):
    """The attachment cannot be decrypted with what the caller supplied.

    `cause` is a metric label: `key` (key or IV), `hash` (wrong hash) or `version`.
    """

    def __init__(self, info: str, cause: str) -> None:
        super().__init__(info)
        self.cause = cause


class InvalidMedia(ClientError):
    """The path names nothing that can be a media ID on a server."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The homeserver's own words: a status, a JSON object with an `errcode` or nothing, seconds to wait."""

    status: int
    content: Mapping[str, Any]
    retry_after: int | None = None


class UpstreamError(ScannerError):
    """The homeserver did not do what we asked; `refusal` is what it said to that, if it did."""

    refusal: Refusal | None = None


class AccessDenied(UpstreamError):
    """The homeserver does not accept the caller's token; `code` is its M_ code."""

    def __init__(self, info: str, code: str) -> None:
        super().__init__(info)
        self.code = code


class MediaNotFound(UpstreamError):
    """There is no such media for this caller."""


class Throttled(UpstreamError):
    """The homeserver asks the caller to wait; `retry_after` is in seconds."""

    def __init__(self, info: str, retry_after: int | None) -> None:
        super().__init__(info)
        self.retry_after = retry_after


class MediaTooLarge(UpstreamError):
    """The media is over `limits.media_size`."""


class NotYetUploaded(UpstreamError):
    """The media ID was created, its bytes have not arrived."""


class UpstreamSilent(UpstreamError):
    """The homeserver did not answer in time."""


class UpstreamFailed(UpstreamError):
    """The homeserver is unreachable, broke off, or answered what we cannot use."""


class Unavailable(ScannerError):
    """We cannot answer now; asking again later may help.

    `cause` is a metric label: `overload`, `shutdown` or `timeout`; `retry_after` is in seconds.
    """

    def __init__(self, info: str, cause: str, retry_after: int = 5) -> None:
        super().__init__(info)
        self.cause = cause
        self.retry_after = retry_after


class EngineError(ScannerError):
    """An engine could not judge a sample; `result` is a metric label: error, timeout, limit, eof."""

    def __init__(self, info: str, result: str) -> None:
        super().__init__(info)
        self.result = result


class StoreError(ScannerError):
    """A verdict store could not read or write."""


class EnvelopeError(ScannerError):
    """A quarantine envelope is damaged, sealed to others, or cannot be sealed."""


class Unreadable(ScannerError):
    """A file or directory that cannot be read whole, or is too large."""


class ConfigError(ScannerError):
    """The configuration is unusable; the message names file, key and problem."""
