"""What refusals look like, in one of two dialects; with `wire.py` the only file that knows status codes.

On the scanner API an error is `{"reason", "info"}`, the reason one of exactly ten, never with an
`errcode`: deployed clients would not see the reason. On the homeserver's routes it is the Matrix form,
and what the homeserver itself said goes through in its own words (facts/wire.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from scanner.errors import (
    AccessDenied,
    DecryptionError,
    InvalidMedia,
    MalformedRequest,
    MediaNotFound,
    MediaTooLarge,
    NotYetUploaded,
    Refusal,
    RequestTooLarge,
    RequestTooSlow,
    ScannerError,
    SealedBodyError,
    Throttled,
    Unavailable,
    UnsupportedEncoding,
    UpstreamError,
    UpstreamFailed,
    UpstreamSilent,
)
from scanner.verdict import Decision, Outcome, Reason
from scanner.web import texts
from scanner.web.texts import Language
from scanner.web.wire import RETRY_AFTER, Answer, json_answer


class Dialect(Protocol):
    """How a family of routes says no. `headers` stand on all their answers."""

    headers: Mapping[str, str]

    def refusal(self, error: ScannerError, language: Language) -> Answer:
        """What the caller gets for `error`."""
        ...

    def withheld(self, decision: Decision, language: Language) -> Answer:
        """What the caller gets instead of what the policy withholds."""
        ...

    def crashed(self, language: Language) -> Answer:
        """An error of ours that nobody foresaw."""
        ...


# -- the scanner API -----------------------------------------------------------------------------


class Code(StrEnum):
    """The ten reasons that deployed clients know."""

    NOT_CLEAN = "MCS_MEDIA_NOT_CLEAN"
    TYPE_FORBIDDEN = "MCS_MIME_TYPE_FORBIDDEN"
    BAD_DECRYPTION = "MCS_BAD_DECRYPTION"
    FAILED_TO_DECRYPT = "MCS_MEDIA_FAILED_TO_DECRYPT"
    REQUEST_FAILED = "MCS_MEDIA_REQUEST_FAILED"
    MALFORMED_JSON = "MCS_MALFORMED_JSON"
    NOT_FOUND = "M_NOT_FOUND"
    MISSING_TOKEN = "M_MISSING_TOKEN"
    UNKNOWN_TOKEN = "M_UNKNOWN_TOKEN"
    UNKNOWN = "M_UNKNOWN"


# facts/wire.md, "Answers on the scanner routes, case by case"; a test holds every leaf of the tree to it.
_REFUSALS: Mapping[type[ScannerError], tuple[int, Code]] = {
    MalformedRequest: (400, Code.MALFORMED_JSON),
    RequestTooLarge: (413, Code.MALFORMED_JSON),
    RequestTooSlow: (408, Code.REQUEST_FAILED),
    UnsupportedEncoding: (415, Code.REQUEST_FAILED),
    SealedBodyError: (403, Code.BAD_DECRYPTION),
    DecryptionError: (400, Code.FAILED_TO_DECRYPT),
    InvalidMedia: (404, Code.NOT_FOUND),
    AccessDenied: (401, Code.UNKNOWN_TOKEN),
    MediaNotFound: (404, Code.NOT_FOUND),
    Throttled: (429, Code.REQUEST_FAILED),
    MediaTooLarge: (413, Code.REQUEST_FAILED),
    NotYetUploaded: (504, Code.REQUEST_FAILED),
    UpstreamSilent: (504, Code.REQUEST_FAILED),
    UpstreamFailed: (502, Code.REQUEST_FAILED),
    Unavailable: (503, Code.UNKNOWN),
}

_WITHHELD: Mapping[Outcome, tuple[int, Code]] = {
    Outcome.INFECTED: (403, Code.NOT_CLEAN),
    Outcome.UNSCANNABLE: (403, Code.NOT_CLEAN),
    Outcome.OPAQUE: (403, Code.NOT_CLEAN),
    Outcome.FORBIDDEN: (403, Code.TYPE_FORBIDDEN),
    Outcome.FAILED: (503, Code.UNKNOWN),
}


class ScannerDialect:
    """`reason` and `info`."""

    headers: Mapping[str, str] = {}

    def refusal(self, error: ScannerError, language: Language) -> Answer:
        status, code = _REFUSALS[type(error)]
        if isinstance(error, AccessDenied):
            code = Code(error.code)
        return _with_retry_after(_reason(status, code, texts.in_language(error.info, language)), error)

    def withheld(self, decision: Decision, language: Language) -> Answer:
        status, code = _WITHHELD[_as_clients_know_it(decision)]
        return _retried_if_failed(_reason(status, code, texts.on_decision(decision, language)), decision)

    def crashed(self, language: Language) -> Answer:
        return _reason(500, Code.UNKNOWN, texts.in_language(texts.CRASHED, language))

    def malformed(self, language: Language) -> Answer:
        """What came is no HTTP: it may have been meant for a route of ours, so it has their form."""
        return _reason(400, Code.UNKNOWN, texts.in_language(texts.MALFORMED, language))

    def scanned(self, decision: Decision, language: Language) -> Answer:
        """The answer of `scan*`: the true verdict; a forbidden type and a failure are errors here, too."""
        if _as_clients_know_it(decision) in (Outcome.FORBIDDEN, Outcome.FAILED):
            return self.withheld(decision, language)
        return json_answer({"clean": decision.approved, "info": texts.on_decision(decision, language)})


def _as_clients_know_it(decision: Decision) -> Outcome:
    """`FORBIDDEN` is a type to them; what an analyst denies is not clean, whatever its type."""
    return Outcome.UNSCANNABLE if decision.reason is Reason.DENIED else decision.outcome


def _reason(status: int, code: Code, info: str) -> Answer:
    return json_answer({"reason": code, "info": info}, status, code)


# -- the homeserver's routes ---------------------------------------------------------------------

_MATRIX_REFUSALS: Mapping[type[ScannerError], tuple[int, str]] = {
    MalformedRequest: (400, "M_UNKNOWN"),
    RequestTooLarge: (413, "M_TOO_LARGE"),
    RequestTooSlow: (408, "M_UNKNOWN"),
    UnsupportedEncoding: (415, "M_UNKNOWN"),
    InvalidMedia: (404, "M_NOT_FOUND"),
    AccessDenied: (401, "M_UNKNOWN_TOKEN"),
    MediaNotFound: (404, "M_NOT_FOUND"),
    Throttled: (429, "M_LIMIT_EXCEEDED"),
    MediaTooLarge: (502, "M_TOO_LARGE"),  # as Synapse says of remote media
    NotYetUploaded: (504, "M_NOT_YET_UPLOADED"),
    UpstreamSilent: (504, "M_UNKNOWN"),
    UpstreamFailed: (502, "M_UNKNOWN"),
    Unavailable: (503, "M_UNKNOWN"),
}


# What the homeserver, or a proxy before it, refused without a word of Matrix.
_UNNAMED: Mapping[int, str] = {403: "M_FORBIDDEN", 404: "M_NOT_FOUND", 413: "M_TOO_LARGE"}


class MatrixDialect:
    """`errcode` and `error`."""

    headers: Mapping[str, str] = {"Access-Control-Allow-Methods": "GET, POST, PUT, OPTIONS"}

    def refusal(self, error: ScannerError, language: Language) -> Answer:
        said = error.refusal if isinstance(error, UpstreamError) else None
        if said is not None and said.content and 400 <= said.status < 600:
            return _with_retry_after(json_answer(said.content, said.status, said.content["errcode"]), said)
        status, code = _MATRIX_REFUSALS[type(error)]
        if isinstance(error, AccessDenied):
            code = error.code
        elif isinstance(error, UpstreamFailed) and said is not None and 400 <= said.status < 500:
            status, code = said.status, _UNNAMED.get(said.status, "M_UNKNOWN")
        return _with_retry_after(_errcode(status, code, texts.in_language(error.info, language)), error)

    def withheld(self, decision: Decision, language: Language) -> Answer:
        failed = decision.outcome is Outcome.FAILED
        status, code = (503, "M_UNKNOWN") if failed else (403, "M_FORBIDDEN")
        return _retried_if_failed(_errcode(status, code, texts.on_decision(decision, language)), decision)

    def crashed(self, language: Language) -> Answer:
        return _errcode(500, "M_UNKNOWN", texts.in_language(texts.CRASHED, language))


class FederationDialect(MatrixDialect):
    """What we refuse, and not the homeserver itself, is 4xx, though not 401 or 429.

    Synapse takes anything else for our whole server being down, and sends it nothing for ten minutes or more.
    """

    def refusal(self, error: ScannerError, language: Language) -> Answer:
        answer = super().refusal(error, language)
        said = error.refusal if isinstance(error, UpstreamError) else None
        if said is not None and said.content:
            return answer
        return _for_this_media_alone(answer, 413 if isinstance(error, MediaTooLarge) else 403)

    def withheld(self, decision: Decision, language: Language) -> Answer:
        return _for_this_media_alone(super().withheld(decision, language), 403)

    def crashed(self, language: Language) -> Answer:
        return _for_this_media_alone(super().crashed(language), 403)


def _for_this_media_alone(answer: Answer, status: int) -> Answer:
    if answer.status >= 500 or answer.status in (401, 429):
        answer.status = status
    return answer


def unrecognized(status: int, error: str) -> Answer:
    """A route or method that is not ours, on either kind of route."""
    return _errcode(status, "M_UNRECOGNIZED", error)


def method_not_allowed(allowed: str) -> Answer:
    """A route of ours, asked in a way that it does not answer."""
    answer = unrecognized(405, "method not allowed")
    answer.headers["Allow"] = f"{allowed}, OPTIONS" if allowed != "GET" else "GET, HEAD, OPTIONS"
    return answer


def _errcode(status: int, code: str, error: str) -> Answer:
    return json_answer({"errcode": code, "error": error}, status, code)


# -- both ----------------------------------------------------------------------------------------


def _with_retry_after(answer: Answer, cause: ScannerError | Refusal) -> Answer:
    seconds = getattr(cause, "retry_after", None)
    if seconds is not None:
        answer.headers["Retry-After"] = str(seconds)
    return answer


def _retried_if_failed(answer: Answer, decision: Decision) -> Answer:
    if decision.outcome is Outcome.FAILED:
        answer.headers["Retry-After"] = str(RETRY_AFTER)
    return answer


SCANNER = ScannerDialect()
MATRIX = MatrixDialect()
FEDERATION = FederationDialect()
