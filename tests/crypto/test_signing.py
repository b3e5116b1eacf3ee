from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.crypto.signing import Content, Signer, canonical, format_public_key, parsed, verified

SIGNER = Signer(bytes(32))
CONTENT: Content = {"b": 1, "a": "ü\n"}


def test_what_was_signed_is_verified_whatever_its_order() -> None:
    signature = SIGNER.sign("test", CONTENT)
    assert verified(SIGNER.public_key, signature, "test", {"a": CONTENT["a"], "b": CONTENT["b"]})


@pytest.mark.parametrize(
    ("key", "purpose", "content"),
    [
        (Signer(b"x" * 32).public_key, "test", CONTENT),
        (SIGNER.public_key, "other", CONTENT),
        (SIGNER.public_key, "test", {**CONTENT, "b": 2}),
        (SIGNER.public_key, "test", {**CONTENT, "b": "1"}),
        (SIGNER.public_key, "test", {**CONTENT, "c": ""}),
        (b"short", "test", CONTENT),
    ],
)
def test_another_key_purpose_or_content_is_refused(key: bytes, purpose: str, content: Content) -> None:
    assert not verified(key, SIGNER.sign("test", CONTENT), purpose, content)


@pytest.mark.parametrize("signature", ["", "?", "é", "AAAA", " "])
def test_what_is_no_signature_is_refused(signature: str) -> None:
    assert not verified(SIGNER.public_key, signature, "test", CONTENT)


def test_signature_with_anything_behind_it_is_refused() -> None:
    signature = SIGNER.sign("test", CONTENT)
    assert not any(verified(SIGNER.public_key, signature + more, "test", CONTENT) for more in "\n =")


def test_another_spelling_of_a_signature_is_refused() -> None:
    """The last digit has four bits that say nothing; whoever changes them changes a record of the audit."""
    signature = SIGNER.sign("test", CONTENT)
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = digits[digits.index(signature[-3]) + 1]
    assert not verified(SIGNER.public_key, f"{signature[:-3]}{last}==", "test", CONTENT)


def test_canonical_form_is_sorted_ascii_without_white_space() -> None:
    assert canonical(CONTENT) == rb'{"a":"\u00fc\n","b":1}'


@given(st.dictionaries(st.text(), st.text() | st.integers()))
def test_canonical_form_says_the_same_and_has_one_spelling(content: Content) -> None:
    assert json.loads(canonical(content)) == content
    assert canonical(json.loads(canonical(content))) == canonical(content)


def test_what_was_spelled_is_read_back() -> None:
    assert parsed(canonical({"version": 1, **CONTENT}), 1, {"a": str, "b": int}) == CONTENT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b"[" * 100_000,
        b'{"a":"x","b":1,"version":2}',
        b'{"a":"x","b":true,"version":1}',
        b'{"a":"x","b":1.0,"version":1}',
        b'{"a":"x","b":1,"c":1,"version":1}',
        b'{"a":"x","version":1}',
        b'{"a":"x", "b":1,"version":1}',
        b'{"b":1,"a":"x","version":1}',
        b'{"a":"x","a":"x","b":1,"version":1}',
        b'{"a":"x","b":1,"version":true}',
    ],
)
def test_anything_else_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own and ours
        parsed(data, 1, {"a": str, "b": int})


def test_key_shows_nothing_of_itself() -> None:
    assert repr(SIGNER) == "<Signer>"
    assert format_public_key(SIGNER.public_key) == "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik"
