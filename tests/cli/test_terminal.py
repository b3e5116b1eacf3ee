"""Names may hold anything; a terminal gets one harmless line."""

from __future__ import annotations

import os

import pytest

from scanner.cli.terminal import one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/é/日本 x", "/é/日本 x"),
        ("a\nb\r\t", "a\\x0ab\\x0d\\x09"),
        ("\x1b[2J\x9b1m", "\\x1b[2J\\x9b1m"),
        ("gpj\u202eexe", "gpj\\x202eexe"),
        (os.fsdecode(b"caf\xe9"), "caf\\xe9"),
        ("\ud800", "\\xd800"),
    ],
)
def test_what_is_no_text_is_escaped_and_bytes_stand_as_themselves(text: str, shown: str) -> None:
    assert one_line(text) == shown
