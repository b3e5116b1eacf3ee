"""Refusals in both dialects, held against the tables of facts/wire.md."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest

from scanner import errors
from scanner.errors import (
    AccessDenied,
    DecryptionError,
    MediaNotFound,
    Refusal,
    ScannerError,
    Throttled,
    Unavailable,
    UpstreamFailed,
)
from scanner.verdict import Decision, Outcome, Reason
from scanner.web import dialects
from scanner.web.dialects import FEDERATION, MATRIX, SCANNER

# facts/wire.md, "Rules that follow", 1: the ten reasons that deployed clients know.
TEN = {
    "MCS_MEDIA_NOT_CLEAN",
    "MCS_MIME_TYPE_FORBIDDEN",
    "MCS_BAD_DECRYPTION",
    "MCS_MEDIA_FAILED_TO_DECRYPT",
    "MCS_MEDIA_REQUEST_FAILED",
    "MCS_MALFORMED_JSON",
    "M_NOT_FOUND",
    "M_MISSING_TOKEN",
    "M_UNKNOWN_TOKEN",
    "M_UNKNOWN",
}
# Never reach a caller: they end in the pipeline, in an event, or before anybody listens.
INTERNAL = {
    errors.EngineError,
    errors.EnvelopeError,
    errors.StoreError,
    errors.Unreadable,
    errors.ConfigError,
}
TABLE = {
    errors.MalformedRequest: (400, "MCS_MALFORMED_JSON"),
    errors.RequestTooLarge: (413, "MCS_MALFORMED_JSON"),
    errors.RequestTooSlow: (408, "MCS_MEDIA_REQUEST_FAILED"),
    errors.UnsupportedEncoding: (415, "MCS_MEDIA_REQUEST_FAILED"),
    errors.SealedBodyError: (403, "MCS_BAD_DECRYPTION"),
    errors.DecryptionError: (400, "MCS_MEDIA_FAILED_TO_DECRYPT"),
    errors.InvalidMedia: (404, "M_NOT_FOUND"),
    errors.AccessDenied: (401, "M_MISSING_TOKEN"),
    errors.MediaNotFound: (404, "M_NOT_FOUND"),
    errors.Throttled: (429, "MCS_MEDIA_REQUEST_FAILED"),
    errors.MediaTooLarge: (413, "MCS_MEDIA_REQUEST_FAILED"),
    errors.NotYetUploaded: (504, "MCS_MEDIA_REQUEST_FAILED"),
    errors.UpstreamSilent: (504, "MCS_MEDIA_REQUEST_FAILED"),
    errors.UpstreamFailed: (502, "MCS_MEDIA_REQUEST_FAILED"),
    errors.Unavailable: (503, "M_UNKNOWN"),
}
# facts/wire.md, "Matrix spec and Synapse": what clients know of the homeserver's own routes.
MATRIX_TABLE = {
    errors.MalformedRequest: (400, "M_UNKNOWN"),
    errors.RequestTooLarge: (413, "M_TOO_LARGE"),
    errors.RequestTooSlow: (408, "M_UNKNOWN"),
    errors.UnsupportedEncoding: (415, "M_UNKNOWN"),
    errors.InvalidMedia: (404, "M_NOT_FOUND"),
    errors.AccessDenied: (401, "M_MISSING_TOKEN"),
    errors.MediaNotFound: (404, "M_NOT_FOUND"),
    errors.Throttled: (429, "M_LIMIT_EXCEEDED"),
    errors.MediaTooLarge: (502, "M_TOO_LARGE"),
    errors.NotYetUploaded: (504, "M_NOT_YET_UPLOADED"),
    errors.UpstreamSilent: (504, "M_UNKNOWN"),
    errors.UpstreamFailed: (502, "M_UNKNOWN"),
    errors.Unavailable: (503, "M_UNKNOWN"),
}
# Only routes of the other dialect raise them.
OF_THE_SCANNER_API = {errors.SealedBodyError, errors.DecryptionError}


def leaves() -> Iterator[type[ScannerError]]:
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, ScannerError) and not kind.__subclasses__():
            yield kind


def made(kind: type[ScannerError]) -> ScannerError:
    further: dict[type[ScannerError], Any] = {
        AccessDenied: "M_MISSING_TOKEN",
        DecryptionError: "key",
        Throttled: 7,
        Unavailable: "overload",
    }
    arguments = ["why", further[kind]] if kind in further else ["why"]
    return kind(*arguments)


# -- refusals ------------------------------------------------------------------------------------


def test_the_reasons_are_the_ten() -> None:
    assert set(dialects.Code) == TEN


@pytest.mark.parametrize("kind", [kind for kind in leaves() if kind not in INTERNAL])
def test_every_error_is_refused_as_the_table_says(kind: type[ScannerError]) -> None:
    answer = SCANNER.refusal(made(kind), "en")
    assert (answer.status, answer.reason) == TABLE[kind]
    assert answer.payload == b'{"reason": "%b", "info": "why"}' % TABLE[kind][1].encode()


def test_every_leaf_of_the_tree_is_in_the_table() -> None:
    assert set(leaves()) - INTERNAL == set(TABLE)


def test_overload_and_throttling_say_when_to_come_again() -> None:
    assert SCANNER.refusal(made(Unavailable), "en").headers["Retry-After"] == "5"
    assert SCANNER.refusal(made(Throttled), "en").headers["Retry-After"] == "7"
    assert "Retry-After" not in SCANNER.refusal(Throttled("why", None), "en").headers


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        (Outcome.INFECTED, 403, "MCS_MEDIA_NOT_CLEAN"),
        (Outcome.UNSCANNABLE, 403, "MCS_MEDIA_NOT_CLEAN"),
        (Outcome.FORBIDDEN, 403, "MCS_MIME_TYPE_FORBIDDEN"),
        (Outcome.FAILED, 503, "M_UNKNOWN"),
    ],
)
def test_withheld_media_are_refused_as_the_table_says(outcome: Outcome, status: int, reason: str) -> None:
    answer = SCANNER.withheld(Decision(deliver=False, outcome=outcome, reason=Reason.LIMIT), "en")
    assert (answer.status, answer.reason) == (status, reason)
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_what_an_analyst_denies_is_not_clean_whatever_its_type() -> None:
    denied = Decision(deliver=False, outcome=Outcome.FORBIDDEN, reason=Reason.DENIED)
    answer = SCANNER.withheld(denied, "en")
    assert (answer.status, answer.reason) == (403, "MCS_MEDIA_NOT_CLEAN")
    scanned = SCANNER.scanned(denied, "en")
    assert (scanned.status, json.loads(scanned.payload)["clean"]) == (200, False)
    assert (MATRIX.withheld(denied, "en").status, MATRIX.withheld(denied, "en").reason) == (
        403,
        "M_FORBIDDEN",
    )


@pytest.mark.parametrize("outcome", [Outcome.INFECTED, Outcome.UNSCANNABLE])
def test_a_scan_answers_the_true_verdict_while_the_policy_observes(outcome: Outcome) -> None:
    observed = Decision(deliver=True, outcome=outcome, observed=True)
    enforced = Decision(deliver=False, outcome=outcome)
    assert SCANNER.scanned(observed, "en").payload == SCANNER.scanned(enforced, "en").payload
    assert b'"clean": false' in SCANNER.scanned(observed, "en").payload


@pytest.mark.parametrize("outcome", [Outcome.FORBIDDEN, Outcome.FAILED])
def test_a_scan_refuses_while_the_policy_observes_what_it_refuses_otherwise(outcome: Outcome) -> None:
    observed = Decision(deliver=True, outcome=outcome, observed=True)
    assert SCANNER.scanned(observed, "en") == SCANNER.withheld(Decision(deliver=False, outcome=outcome), "en")


# -- the homeserver's routes ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*MATRIX_TABLE])
def test_every_error_has_its_matrix_form(kind: type[ScannerError]) -> None:
    answer = MATRIX.refusal(made(kind), "en")
    assert (answer.status, answer.reason) == MATRIX_TABLE[kind]
    assert json.loads(answer.payload) == {"errcode": MATRIX_TABLE[kind][1], "error": "why"}


def test_every_leaf_of_the_tree_has_a_matrix_form_or_is_never_raised_there() -> None:
    assert set(leaves()) - INTERNAL - OF_THE_SCANNER_API == set(MATRIX_TABLE)


def test_the_homeserver_refuses_in_its_own_words_on_its_own_routes_alone() -> None:
    error = MediaNotFound("why")
    content = {"errcode": "M_CANNOT_OVERWRITE_MEDIA", "error": "Media has been uploaded", "more": [1]}
    error.refusal = Refusal(409, content, retry_after=7)
    answer = MATRIX.refusal(error, "fr")
    assert (answer.status, json.loads(answer.payload), answer.headers["Retry-After"]) == (409, content, "7")
    assert SCANNER.refusal(error, "en") == SCANNER.refusal(MediaNotFound("why"), "en")


@pytest.mark.parametrize(
    "refusal", [Refusal(404, {}), Refusal(200, {"errcode": "M_X"}), Refusal(999, {"errcode": "M_X"})]
)
def test_what_is_no_refusal_in_the_matrix_form_is_put_into_ours(refusal: Refusal) -> None:
    error = MediaNotFound("why")
    error.refusal = refusal
    assert MATRIX.refusal(error, "en") == MATRIX.refusal(MediaNotFound("why"), "en")


@pytest.mark.parametrize(
    ("status", "answered"),
    [
        (403, (403, "M_FORBIDDEN")),
        (404, (404, "M_NOT_FOUND")),
        (413, (413, "M_TOO_LARGE")),
        (415, (415, "M_UNKNOWN")),
        (307, (502, "M_UNKNOWN")),
        (500, (502, "M_UNKNOWN")),
    ],
)
def test_a_refusal_without_a_word_keeps_its_status(status: int, answered: tuple[int, str]) -> None:
    error = UpstreamFailed("why")
    error.refusal = Refusal(status, {})
    answer = MATRIX.refusal(error, "en")
    assert (answer.status, answer.reason) == answered
    assert json.loads(answer.payload)["error"] == "why"


@pytest.mark.parametrize("outcome", [o for o in Outcome if o not in (Outcome.CLEAN, Outcome.FAILED)])
def test_what_the_policy_withholds_is_forbidden_there(outcome: Outcome) -> None:
    answer = MATRIX.withheld(Decision(deliver=False, outcome=outcome), "en")
    assert (answer.status, answer.reason) == (403, "M_FORBIDDEN")
    assert "Retry-After" not in answer.headers


def test_a_failed_engine_is_to_be_asked_again() -> None:
    answer = MATRIX.withheld(Decision(deliver=False, outcome=Outcome.FAILED), "en")
    assert (answer.status, answer.reason, answer.headers["Retry-After"]) == (503, "M_UNKNOWN", "5")


# -- the federation ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*MATRIX_TABLE])
def test_another_homeserver_is_refused_as_users_are_but_for_what_it_would_take_for_our_end(
    kind: type[ScannerError],
) -> None:
    status, code = MATRIX_TABLE[kind]
    if status >= 500 or status in (401, 429):
        status = 413 if kind is errors.MediaTooLarge else 403
    answer = FEDERATION.refusal(made(kind), "en")
    assert (answer.status, answer.reason) == (status, code)


def test_the_homeserver_itself_may_say_to_another_that_it_is_down() -> None:
    error = MediaNotFound("why")
    error.refusal = Refusal(504, {"errcode": "M_NOT_YET_UPLOADED", "error": "No"})
    assert FEDERATION.refusal(error, "en").status == 504


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.CLEAN])
def test_what_is_withheld_from_another_homeserver_is_never_its_reason_to_think_us_down(
    outcome: Outcome,
) -> None:
    answer = FEDERATION.withheld(Decision(deliver=False, outcome=outcome), "en")
    failed = outcome is Outcome.FAILED
    assert (answer.status, answer.reason) == (403, "M_UNKNOWN" if failed else "M_FORBIDDEN")
    assert ("Retry-After" in answer.headers) == failed
