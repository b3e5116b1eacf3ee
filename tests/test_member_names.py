from __future__ import annotations

import pytest

from scanner.member_names import printable, shortened, shown


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"folder/evil.exe", "folder/evil.exe"),
        ("caf\xe9/\u65e5\u672c".encode(), "caf\xe9/\u65e5\u672c"),
        (b"./usr/bin/evil", "usr/bin/evil"),
        (b"a\x1b[2J\nb: clean", "a\\x1b[2J\\x0ab: clean"),
        ("a\u202egpj.exe".encode(), "a\\xe2\\x80\\xaegpj.exe"),
        (b"caf\xe9", "caf\\xe9"),
        (b"../../etc/passwd", "\\x2e\\x2e/\\x2e\\x2e/etc/passwd"),
        (b"a/..", "a/\\x2e\\x2e"),
        (b"..\\windows", "..\\x5cwindows"),
        (b"a..b/...", "a..b/..."),
        (b"/etc/passwd", "\\x2fetc/passwd"),
        (b"", ""),
    ],
)
def test_names_in_archives_are_shown_as_they_are_where_that_does_no_harm(name: bytes, expected: str) -> None:
    assert shown(name) == expected


def test_what_is_printable_stays_and_every_other_character_is_its_bytes() -> None:
    assert printable("caf\xe9 \u202e\udce9\ud800") == "caf\xe9 \\xe2\\x80\\xae\\xe9\\xed\\xa0\\x80"


def test_of_a_long_path_the_end_is_left() -> None:
    assert shortened("a" * 1000) == "a" * 1000
    assert shortened("a" * 1000 + "b") == "..." + "a" * 996 + "b"
