"""Compound files with something wrong in their structure: what a reader may, and another may not, forgive."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from tests.archives import zip_of
from tests.compound_files import END, FAT, FREE, Layout, laid_out

_HEADER_FIELDS = (24, 26, 28, 30, 32, 40, 44, 48, 52, 56, 60, 64, 68, 72, 76, 80)
_ENTRY_FIELDS = ((64, 2), (66, 1), (66, 1), (68, 4), (72, 4), (76, 4), (116, 4), (116, 4), (120, 4), (120, 4))
_NUMBERS = (0, 1, 2, 3, 5, 8, 64, 127, 128, 511, 4095, 4096, 9000, 1 << 31, FREE, END, FAT, 0xFFFFFFFC)

Mutation = Callable[[random.Random, Layout], bytes]


def mutant(seed: str, secret: bytes) -> bytes:
    """A compound file in which `secret` begins a stream or a member, after one to three mutations."""
    chance = random.Random(seed)
    layout = _some(chance, secret)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        mutation = chance.choice(_MUTATIONS)
        layout = Layout(
            mutation(chance, layout),
            layout.size,
            layout.fat,
            layout.mini_fat,
            layout.directory,
            layout.sectors,
        )
    return layout.data


def _some(chance: random.Random, secret: bytes) -> Layout:
    """Of either version, in order or shuffled, with streams of which clamd makes something."""
    streams = {"first": chance.randbytes(300), "storage/second": chance.randbytes(6000)}
    content = chance.choice((secret, secret + bytes(5000), zip_of({"a": secret}), zip_of({"a": secret}, 14)))
    for name in chance.sample(_NAMES, 2):
        streams[name] = chance.choice((bytes(5000), workbook(), chance.randbytes(700)))
    streams[chance.choice(("secret", "storage/secret"))] = content
    seed = chance.choice((None, chance.randrange(1000)))
    return laid_out(streams, version=chance.choice((3, 3, 3, 4)), shuffled=seed, spare=chance.randrange(3))


_NAMES = ("WordDocument", "Workbook", "Book", "\1Ole10Native", "FileHeader", "storage/dir", "_VBA_PROJECT")


def workbook(*, drawings: bool = True) -> bytes:
    """The records with which one begins, with drawings or without."""
    records = [(0x809, bytes(16)), (0x42, b"\xb0\4"), *[(0xEB, bytes(200))] * drawings, (0x0A, b"")]
    return b"".join(struct.pack("<2H", kind, len(data)) + data for kind, data in records).ljust(5000, b"\0")


def _number(chance: random.Random, before: int) -> int:
    return chance.choice(
        (chance.choice(_NUMBERS), before + chance.choice((-1, 1, 2)), chance.randrange(40))
    ) % (1 << 32)


def _changed(chance: random.Random, layout: Layout, offset: int, width: int = 4) -> bytes:
    if offset + width > len(layout.data):
        return layout.data
    before = int.from_bytes(layout.data[offset : offset + width], "little")
    return layout.with_number(offset, _number(chance, before) % (1 << 8 * width), width)


def _change_header(chance: random.Random, layout: Layout) -> bytes:
    offset = chance.choice(_HEADER_FIELDS)
    return _changed(chance, layout, offset, 2 if offset < 40 else 4)


def _change_fat(chance: random.Random, layout: Layout) -> bytes:
    return _changed(chance, layout, layout.fat[chance.randrange(min(60, len(layout.fat)))])


def _change_mini_fat(chance: random.Random, layout: Layout) -> bytes:
    return _changed(chance, layout, layout.mini_fat[chance.randrange(min(30, len(layout.mini_fat)))])


def _change_entry(chance: random.Random, layout: Layout) -> bytes:
    offset, width = chance.choice(_ENTRY_FIELDS)
    return _changed(chance, layout, chance.choice(layout.directory) + offset, width)


def _swap_entries(chance: random.Random, layout: Layout) -> bytes:
    one, other = (chance.choice(layout.directory) for _ in range(2))
    data = bytearray(layout.data)
    data[one : one + 128], data[other : other + 128] = data[other : other + 128], data[one : one + 128]
    return bytes(data)


def _truncate(chance: random.Random, layout: Layout) -> bytes:
    return layout.data[: -chance.choice((1, 100, layout.size, layout.size + 1, 2 * layout.size))]


def _append(chance: random.Random, layout: Layout) -> bytes:
    return layout.data + chance.choice((b"\0", bytes(512), zip_of({"clean": b"clean"})))


_MUTATIONS: tuple[Mutation, ...] = (
    *(
        _change_header,
        _change_fat,
        _change_fat,
        _change_mini_fat,
        _change_entry,
        _change_entry,
        _change_entry,
    ),
    *(_swap_entries, _truncate, _append),
)
