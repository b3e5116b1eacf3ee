from __future__ import annotations

import pytest

from scanner.containers.inspection import Unsure
from scanner.containers.sevenzip_header import Reader, read_files, read_streams
from scanner.verdict import Reason

ONE_STREAM = b"\6\0\1\x09\5\0"  # packed streams: from 0, one, sizes, 5
BCJ2, LZMA = b"\x14\3\3\1\x1b\4\1", b"\3\3\1\1"
NAMES = b"\x11\5\0a\0\0\0"


def streams(*coders: bytes, packed: bytes = ONE_STREAM, bound: bytes = b"", sizes: bytes = b"\5") -> Reader:
    folder = bytes([len(coders)]) + b"".join(coders) + bound
    return Reader(packed + b"\7\x0b\1\0" + folder + b"\x0c" + sizes + b"\0\0")


def test_a_single_coder_is_a_chain() -> None:
    (folder,) = read_streams(streams(LZMA)).folders
    assert (folder.is_chain, folder.packed, folder.size, folder.streams) == (True, 1, 5, [5])


def test_coders_that_feed_each_other_have_one_free_output() -> None:
    """BCJ2 takes four streams, three of them unpacked, as 7-Zip writes it."""
    packed = b"\6\0\4\x09\1\1\1\1\0"
    bound = b"\0\1" + b"\1\2" + b"\2\3" + b"\4\5\6\3"
    (folder,) = read_streams(
        streams(BCJ2, LZMA, LZMA, LZMA, packed=packed, bound=bound, sizes=b"\7\1\2\3")
    ).folders
    assert (folder.is_chain, folder.packed, folder.size) == (False, 4, 7)


@pytest.mark.parametrize(
    "bound", [b"\0\1" + b"\0\2" + b"\2\3" + b"\4\5\6\3", b"\0\0" + b"\1\1" + b"\2\1" + b"\4\5\6\3"]
)
def test_inputs_that_are_bound_twice_are_ambiguous(bound: bytes) -> None:
    with pytest.raises(Unsure) as raised:
        read_streams(streams(BCJ2, LZMA, LZMA, LZMA, packed=b"\6\0\4\x09\1\1\1\1\0", bound=bound))
    assert raised.value.reason is Reason.AMBIGUOUS


def test_a_password_is_told() -> None:
    encrypted, readable = b"\x04\6\xf1\7\1", b"\1\0"
    for coders, bound, expected in (
        ((encrypted,), b"", True),
        ((LZMA, encrypted), b"\0\1", True),
        ((encrypted, LZMA), b"\0\1", True),
        ((readable,), b"", False),
        ((LZMA, readable), b"\0\1", False),
    ):
        (folder,) = read_streams(streams(*coders, bound=bound, sizes=b"\5" * len(coders))).folders
        assert folder.encrypted is expected


@pytest.mark.parametrize(
    ("attributes", "special"),
    [
        (0x20, False),
        (0x10, True),
        (0x8000 | 0o100644 << 16, False),
        (0x8000 | 0o120777 << 16, True),
    ],
)
def test_content_of_what_is_no_file_is_told(attributes: int, special: bool) -> None:
    values = b"\x15\6\1\0" + attributes.to_bytes(4, "little")
    assert read_files(Reader(b"\1" + NAMES + values + b"\0\0"), 1) is special


def test_a_header_that_breaks_off_is_damage() -> None:
    with pytest.raises(Unsure) as raised:
        read_files(Reader(b"\1" + NAMES), 1)
    assert raised.value.reason is Reason.DAMAGED


def test_files_without_streams_and_streams_without_files_are_ambiguous() -> None:
    for count in (0, 2):
        with pytest.raises(Unsure) as raised:
            read_files(Reader(b"\1" + NAMES + b"\0\0"), count)
        assert raised.value.reason is Reason.AMBIGUOUS
