"""Keys and ciphers of PDFs; what real programs encrypt is in `tests/containers/test_pdf_attachments.py`."""

from __future__ import annotations

import pytest

from scanner.crypto.pdf_standard import by_aes128, by_aes256, by_rc4, file_key, old_file_key


def test_the_old_cipher_is_its_own_inverse_with_a_key_for_each_object() -> None:
    key = old_file_key(bytes(32), -4, b"id", 2, 5)
    secret = by_rc4(key, 4, 0, b"content")
    assert len(key) == 5
    assert by_rc4(key, 4, 0, secret) == b"content"
    assert by_rc4(key, 5, 0, secret) != b"content"
    assert by_rc4(key, 4, 1, secret) != b"content"


def test_keys_depend_on_all_that_they_are_made_of() -> None:
    keys = {
        old_file_key(owner, permissions, identifier, revision, 16)
        for owner in (b"a", b"b")
        for permissions in (-4, -8)
        for identifier in (b"", b"\xff" * 4)
        for revision in (3, 2)
    }
    assert len(keys) == 16
    assert file_key(bytes(48), bytes(32), 5) != file_key(bytes(48), bytes(32), 6)


def test_nothing_comes_of_less_than_two_blocks() -> None:
    assert by_aes128(bytes(16), 4, 0, b"short") == b""
    assert by_aes256(bytes(32), bytes(16)) == b""


def test_what_cannot_be_a_key_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="key size"):
        by_aes256(bytes(5), bytes(64))
