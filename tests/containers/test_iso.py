from __future__ import annotations

import pytest

from scanner.containers.iso import SECTOR
from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged, zip_of

PATHS, FIRST = 19, 20  # the sectors of an empty table and of the first directory
FILES = {b"FIRST.TXT;1": b"content", b"TEXT.TXT;1": TEXT}


def both(number: int, size: int = 4) -> bytes:
    return number.to_bytes(size, "little") + number.to_bytes(size, "big")


def record(place: int, size: int, flags: int, name: bytes, use: bytes = b"") -> bytes:
    padded = name + b"\0" * (1 - len(name) % 2)
    fixed = both(place) + both(size) + bytes(7) + bytes([flags, 0, 0]) + both(1, 2) + bytes([len(name)])
    return bytes([33 + len(padded) + len(use), 0]) + fixed + padded + use


def descriptor(kind: int, root: int, size: int) -> bytes:
    content = bytearray(SECTOR)
    content[:7] = bytes([kind]) + b"CD001\1"
    content[80:88], content[120:132] = both(size), both(1, 2) + both(1, 2) + both(SECTOR, 2)
    content[132:140] = both(10)
    content[140:144], content[148:152] = PATHS.to_bytes(4, "little"), PATHS.to_bytes(4, "big")
    content[156:190] = record(root, SECTOR, 2, b"\0")
    content[881] = 1
    if kind == 2:
        content[88:91] = b"%/E"
    return bytes(content)


def iso(files: dict[bytes, bytes], *, second: dict[bytes, bytes] | None = None, use: bytes = b"") -> bytes:
    """A volume with one directory, and one more for Joliet if there are `second` files."""
    trees = [files] if second is None else [files, second]
    place, directories, data, places = FIRST + len(trees), [], b"", dict[bytes, int]()
    for number, tree in enumerate(trees):
        at = FIRST + number
        directory = record(at, SECTOR, 2, b"\0") + record(at, SECTOR, 2, b"\1")
        for name, content in tree.items():
            if content not in places:
                places[content] = place
                padded = content + bytes(-len(content) % SECTOR)
                data, place = data + padded, place + len(padded) // SECTOR
            directory += record(places[content], len(content), 0, name, use)
        directories.append(directory.ljust(SECTOR, b"\0"))
    descriptors = [descriptor(1 + number, FIRST + number, place) for number in range(len(trees))]
    head = b"".join([*descriptors, b"\xffCD001\1".ljust(SECTOR, b"\0")]).ljust(4 * SECTOR, b"\0")
    return bytes(16 * SECTOR) + head + b"".join(directories) + data


def test_files_that_all_trees_have_are_sound() -> None:
    joliet = {name.decode().encode("utf-16-be"): content for name, content in FILES.items()}
    for archive in (iso(FILES), iso(FILES, second=joliet)):
        assert judged(archive) == judged(archive + bytes(SECTOR)) == SOUND
    assert delivered(archive, *SOUND) == [[b"", *FILES.values()]]


def test_trees_that_differ_are_ambiguous() -> None:
    assert judged(iso(FILES, second={b"FIRST.TXT;1": b"evil"})) is Reason.AMBIGUOUS


@pytest.mark.parametrize("entry", [b"ZF\x04\1", b"CL\x04\1", b"SF\x04\1"])
def test_content_that_is_elsewhere_or_packed_is_ambiguous(entry: bytes) -> None:
    assert judged(iso(FILES, use=entry)) is Reason.AMBIGUOUS
    assert judged(iso(FILES, use=b"NM\x04\1")) == SOUND


def test_entries_go_on_elsewhere() -> None:
    """Here at the end of the sector of the first directory."""
    archive = bytearray(iso(FILES, use=b"CE\x1c\1" + both(FIRST) + both(SECTOR - 4) + both(4)))
    place = (FIRST + 1) * SECTOR - 4
    archive[place : place + 4] = b"ZF\x04\1"
    assert judged(bytes(archive)) is Reason.AMBIGUOUS


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (100, b"\xeb"),  # the system area, from which one may boot
        (17 * SECTOR, b"\0"),  # a boot record
        (16 * SECTOR + 128, b"\0\2"),  # another size of blocks
        (FIRST * SECTOR + 68 + 25, b"\x80"),  # a file in several pieces
        (FIRST * SECTOR + 68 + 10, b"\1"),  # two sizes
    ],
)
def test_what_readers_may_differ_in_is_ambiguous(place: int, value: bytes) -> None:
    archive = iso(FILES)
    assert judged(archive[:place] + value + archive[place + len(value) :]) is Reason.AMBIGUOUS


def test_bytes_behind_the_volume_are_ambiguous_and_missing_ones_damage() -> None:
    assert judged(iso(FILES) + b"more") is Reason.AMBIGUOUS
    assert judged(iso(FILES)[: -2 * SECTOR]) is Reason.DAMAGED


def test_directories_in_a_circle_are_ambiguous() -> None:
    archive = bytearray(iso(FILES))
    archive[FIRST * SECTOR + 68 : FIRST * SECTOR + 68 + 34] = record(FIRST, SECTOR, 2, b"A")
    assert judged(bytes(archive)) is not SOUND


def test_a_zip_at_the_end_is_a_member() -> None:
    inner = zip_of({"a": TEXT * 9})
    assert judged(iso({b"A.ZIP;1": inner})) == SOUND
