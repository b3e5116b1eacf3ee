from __future__ import annotations

import pytest

from scanner.containers.cpio import begins_cpio
from scanner.containers.inspection import Part
from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged, zip_of

FILE, DIRECTORY, LINK = 0o100644, 0o040755, 0o120777


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def new(name: bytes, content: bytes = b"", mode: int = FILE) -> bytes:
    numbers = (1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    return padded(b"070701" + b"%08X" * 13 % numbers + name + b"\0") + padded(content)


def cpio(*members: bytes) -> bytes:
    return b"".join(members) + new(b"TRAILER!!!", mode=0)


def test_new_archives_are_sound() -> None:
    archive = cpio(new(b"d", mode=DIRECTORY), new(b"a", b"odd"), new(b"l", b"a", LINK), new(b"b", TEXT))
    assert judged(archive) == judged(archive + bytes(400)) == SOUND
    assert delivered(archive, *SOUND) == [[b"", b"odd", b"", TEXT]]


def test_posix_archives_are_sound() -> None:
    header = b"070707" + b"%06o" * 7 + b"%011o%06o%011o"
    members = ((b"a", b"odd"), (b"b", TEXT), (b"TRAILER!!!", b""))
    archive = b"".join(
        header % (0, number, FILE, 0, 0, 1, 0, 0, len(name) + 1, len(content)) + name + b"\0" + content
        for number, (name, content) in enumerate(members)
    )
    assert judged(archive) == SOUND
    assert delivered(archive, *SOUND) == [[b"odd", TEXT]]


@pytest.mark.parametrize(
    "archive",
    [
        cpio(new(b"d", b"content", DIRECTORY)),
        cpio(new(b"a", b"content", 0)),
        cpio(new(b"l", b"content\n", LINK)),
        cpio(new(b"a\0b", b"content")),
        cpio(new(b"a", b"content")) + b"more",
        new(b"TRAILER!!!", b"content"),
    ],
)
def test_content_where_readers_may_not_look_is_ambiguous(archive: bytes) -> None:
    assert judged(archive) is Reason.AMBIGUOUS


def test_what_breaks_off_is_damage() -> None:
    archive = cpio(new(b"a", TEXT))
    assert judged(archive[:-130]) is Reason.DAMAGED
    assert judged(archive.replace(b"070701", b"070702", 1)) is Reason.DAMAGED
    assert judged(archive.replace(b"000001", b"00000x", 1)) is Reason.DAMAGED


def test_a_zip_at_the_end_is_a_member() -> None:
    assert judged(cpio(new(b"a.zip", zip_of({"a": TEXT})))) == SOUND


def test_one_begins_where_a_zero_ends_its_name() -> None:
    """Dates and digits look like its magic: `20070701123456789`."""
    old = b"070707" + b"%06o" * 7 % (1, 1, FILE, 0, 0, 1, 0) + b"%011o%06o%011o" % (0, 2, 0)
    for header, name in ((new(b"a")[:110], b"a\0"), (old, b"a\0")):
        assert begins_cpio(Part.of(b"text" + header + name), 4)
        assert not begins_cpio(Part.of(b"text" + header + b"ab"), 4)
        assert not begins_cpio(Part.of(b"text" + header), 4)
    assert not begins_cpio(Part.of(b"070701" + b"f" * 999), 0)
    assert not begins_cpio(Part.of(b"070701 in a text" * 99), 0)
