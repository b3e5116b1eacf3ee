from __future__ import annotations

import random
import time
import tracemalloc
from dataclasses import replace

import pytest

from scanner.containers.inspection import Part, Unsure
from scanner.containers.ole2 import CompoundFile, gathered
from scanner.verdict import Reason
from tests.compound_files import END, FREE, Layout, by_sevenzip, compound, laid_out

_CHANCE = random.Random(1)
STREAMS = {
    "small": b"some text",
    "storage/tiny": _CHANCE.randbytes(700),
    "storage/inner/large": _CHANCE.randbytes(20_000),
    "large": _CHANCE.randbytes(9_001),
    "empty": b"",
}


def read(data: bytes) -> dict[str, bytes]:
    """The contents of all streams by path."""
    streams = CompoundFile(Part.of(data)).streams()
    return {"/".join(stream.path): stream.content.read(0, stream.content.size) for stream in streams}


def refusal(data: bytes) -> Reason | None:
    try:
        read(data)
    except Unsure as unsure:
        return unsure.reason
    return None


@pytest.fixture
def layout() -> Layout:
    return laid_out(STREAMS, shuffled=3)


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("shuffled", [None, 1, 2])
def test_streams_are_gathered_from_wherever_their_sectors_lie(version: int, shuffled: int | None) -> None:
    assert read(compound(STREAMS, version=version, shuffled=shuffled)) == STREAMS


@pytest.mark.slow
@pytest.mark.parametrize("version", [3, 4])
def test_sevenzip_reads_the_same(version: int) -> None:
    for seed in (None, 1, 2):
        data = compound(STREAMS, version=version, shuffled=seed)
        assert by_sevenzip(data) == sorted(read(data).values())


def test_a_fat_of_more_sectors_than_the_header_knows_is_read() -> None:
    large = random.Random(2).randbytes(8_000_000)
    for fat_sectors in (0, 109, 110, 300):
        data = compound({"large": large, "small": b"some text"}, shuffled=1, fat_sectors=fat_sectors)
        assert read(data) == {"large": large, "small": b"some text"}


def test_a_stream_in_one_piece_tells_where_it_lies() -> None:
    data = compound(STREAMS)
    for stream in CompoundFile(Part.of(data)).streams():
        assert stream.offset is not None
        content = stream.content.read(0, stream.content.size)
        assert data[stream.offset : stream.offset + stream.content.size] == content
    shuffled = CompoundFile(Part.of(compound(STREAMS, shuffled=3))).streams()
    assert {stream.name: stream.offset for stream in shuffled}["large"] is None


def test_a_stream_in_pieces_is_read_from_any_place() -> None:
    content = STREAMS["storage/inner/large"]
    (found,) = [
        stream.content
        for stream in CompoundFile(Part.of(compound(STREAMS, shuffled=3))).streams()
        if stream.name == "large" and stream.content.size == len(content)
    ]
    for offset, length in ((0, 1), (511, 2), (512, 512), (100, 9000), (19_999, 50), (20_000, 1)):
        assert found.read(offset, length) == content[offset : offset + length]
    assert found.slice(700, 5000).read(0, 9999) == content[700:5700]


def test_a_chain_in_a_circle_is_damaged(layout: Layout) -> None:
    first, second = layout.sectors["large"][:2]
    assert refusal(layout.with_number(layout.fat[second], first)) is Reason.DAMAGED
    assert refusal(layout.with_number(layout.fat[first], first)) is Reason.DAMAGED


def test_a_stream_longer_than_its_chain_is_damaged(layout: Layout) -> None:
    second = layout.sectors["large"][1]
    for number in (END, FREE, 1_000_000):
        assert refusal(layout.with_number(layout.fat[second], number)) is Reason.DAMAGED


def test_a_stream_shorter_than_its_chain_is_as_long_as_it_says() -> None:
    layout = laid_out({"large": STREAMS["large"]})
    assert read(layout.with_number(layout.directory[1] + 120, 5000)) == {"large": STREAMS["large"][:5000]}


def test_streams_that_share_a_sector_are_damaged(layout: Layout) -> None:
    shared = layout.sectors["large"][-1]
    assert refusal(layout.with_number(layout.fat[layout.sectors["storage/inner/large"][0]], shared)) is (
        Reason.DAMAGED
    )


def test_a_small_stream_in_a_circle_or_too_long_is_damaged() -> None:
    layout = laid_out({"tiny": bytes(200)})
    for number in (0, END, 500):
        assert refusal(layout.with_number(layout.mini_fat[1], number)) is Reason.DAMAGED


def test_what_lies_behind_the_end_is_damaged(layout: Layout) -> None:
    assert refusal(layout.data[:-700]) is Reason.DAMAGED
    assert refusal(layout.with_number(layout.directory[0] + 116, 9999)) is Reason.DAMAGED


def test_a_last_sector_may_end_with_the_stream() -> None:
    """As some programs leave it."""
    file = Part.of(bytes(512) + b"content")
    assert gathered(file, [0, 512], 512, 519).read(0, 999) == bytes(512) + b"content"
    assert gathered(file, [512], 512, 7).read(0, 999) == b"content"
    with pytest.raises(Unsure):
        gathered(file, [512], 512, 8)


def test_a_directory_in_a_circle_is_damaged(layout: Layout) -> None:
    first = layout.sectors["directory"][0]
    assert refusal(layout.with_number(layout.fat[layout.sectors["directory"][-1]], first)) is Reason.DAMAGED


@pytest.mark.parametrize("link", [68, 72, 76])
@pytest.mark.parametrize("leads_to", [0, 1, 500])
def test_a_directory_that_is_no_tree_is_damaged(layout: Layout, link: int, leads_to: int) -> None:
    """Clamd ends its search where it has been before, and goes by what is none."""
    assert refusal(layout.with_number(layout.directory[1] + link, leads_to)) is Reason.DAMAGED


@pytest.mark.parametrize("kind", [0, 3, 4, 5, 9])
def test_an_entry_of_an_unknown_kind_is_damaged(layout: Layout, kind: int) -> None:
    """Clamd does not go on to its siblings."""
    assert refusal(layout.with_number(layout.directory[1] + 66, kind, 1)) is Reason.DAMAGED


@pytest.mark.parametrize("length", [3, 66, 0xFFFF])
def test_a_name_of_no_length_that_clamd_takes_is_damaged(layout: Layout, length: int) -> None:
    assert refusal(layout.with_number(layout.directory[1] + 64, length, 2)) is Reason.DAMAGED


@pytest.mark.parametrize(
    ("offset", "number", "width"),
    [
        (26, 5, 2),
        (28, 0xFEFF, 2),
        (30, 12, 2),
        (30, 7, 2),
        (32, 7, 2),
        (44, 90_000, 4),
        (56, 512, 4),
        (48, FREE, 4),
    ],
)
def test_a_header_that_readers_take_differently_is_damaged(
    layout: Layout, offset: int, number: int, width: int
) -> None:
    assert refusal(layout.with_number(offset, number, width)) is Reason.DAMAGED


def test_a_header_alone_is_damaged() -> None:
    for length in (8, 75, 76, 500, 512, 1024):
        assert refusal(compound(STREAMS)[:length]) is Reason.DAMAGED


def test_entries_that_nothing_leads_to_are_no_streams(layout: Layout) -> None:
    """No reader finds them."""
    assert read(layout.with_number(layout.directory[0] + 76, FREE)) == {}


def test_the_higher_half_of_a_size_counts_in_version_4_alone() -> None:
    for version, reason in ((3, None), (4, Reason.DAMAGED)):
        layout = laid_out(STREAMS, version=version)
        assert refusal(layout.with_number(layout.directory[1] + 124, 7)) is reason


def test_storages_in_each_other_without_end_are_refused() -> None:
    assert refusal(compound({"/".join("s" * 16): b"x"})) is None
    assert refusal(compound({"/".join("s" * 17): b"x"})) is Reason.LIMIT


def test_more_entries_than_clamd_takes_are_refused() -> None:
    layout = laid_out({"large": bytes(3_000_000)})
    assert refusal(layout.with_number(48, layout.sectors["large"][0])) is Reason.LIMIT


def test_a_file_of_single_sectors_costs_no_more_than_its_size() -> None:
    data = compound({f"{number:05}": bytes([number % 256]) * 4096 for number in range(2000)}, shuffled=1)
    began = time.process_time()
    assert len(read(data)) == 2000
    assert time.process_time() - began < 2


def test_a_file_full_of_tables_costs_no_more_than_its_size() -> None:
    """Twenty MiB took 200 MB: each byte of a FAT is a number of Python's."""
    fats = compound({"x": b"y"}, fat_sectors=6000)
    layout = laid_out({"large": bytes(3_000_000)})
    emptied = replace(layout, data=layout.with_number(layout.directory[1] + 120, 0))
    claimed = replace(emptied, data=emptied.with_number(60, layout.sectors["large"][0]))
    mini_fats = claimed.with_number(64, len(layout.sectors["large"]))
    for data, streams in ((fats, {"x": b"y"}), (mini_fats, {"large": b""})):
        tracemalloc.start()
        assert read(data) == streams
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < len(data)


@pytest.mark.parametrize("offsets", [[64, 0], [0, 64, 0], [640, 0]])
def test_a_sector_that_breaks_off_is_damage_wherever_it_is_in_a_chain(offsets: list[int]) -> None:
    with pytest.raises(Unsure):
        gathered(Part.of(bytes(100)), offsets, 64, 64 * len(offsets))
