from __future__ import annotations

import pytest

from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged, zip_of


def member(name: bytes, content: bytes) -> bytes:
    numbers = b"%-12d%-6d%-6d%-8o%-10d" % (0, 0, 0, 0o100644, len(content))
    return b"%-16s" % name + numbers + b"`\n" + content + b"\n" * (len(content) % 2)


def ar(*members: tuple[bytes, bytes]) -> bytes:
    return b"!<arch>\n" + b"".join(member(*one) for one in members)


@pytest.mark.parametrize(
    ("archive", "contents"),
    [
        (ar((b"debian-binary", b"2.0\n"), (b"control.tar", b"odd")), [b"2.0\n", b"odd"]),
        (ar((b"first/", b"one"), (b"second/", TEXT)), [b"one", TEXT]),
        (ar((b"//", b"a-name-that-is-long/\n"), (b"/0", TEXT)), [b"", TEXT]),
    ],
)
def test_members_that_fill_the_file_are_sound(archive: bytes, contents: list[bytes]) -> None:
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [contents]


def test_names_in_the_data_are_ambiguous() -> None:
    assert judged(ar((b"#1/4", b"nameevil"))) is Reason.AMBIGUOUS


def test_a_table_of_names_that_holds_something_else_is_ambiguous() -> None:
    assert judged(ar((b"//", b"X5O!P/X\n\0"))) is Reason.AMBIGUOUS


def test_what_breaks_off_is_damage() -> None:
    archive = ar((b"first", TEXT))
    assert judged(archive[:-1]) is Reason.DAMAGED
    assert judged(archive + b"more") is Reason.DAMAGED
    assert judged(archive.replace(b"`\n", b"``")) is Reason.DAMAGED


def test_a_zip_at_the_end_is_a_member() -> None:
    assert judged(ar((b"a.zip", zip_of({"a": TEXT})))) == SOUND
    hidden = zip_of({"a": b"content"})
    assert judged(ar((b"//", b"a" * 200 + hidden))) is Reason.AMBIGUOUS
