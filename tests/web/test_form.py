"""Forms taken apart: what clients send, and what attackers do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import (
    ClientError,
    MalformedRequest,
    MediaTooLarge,
    RequestTooLarge,
    UnsupportedEncoding,
)
from scanner.web.form import MOST_INFO, Form
from tests.test_media import memory_files

BOUNDARY = "----frontier"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
FILE, INFO = b"\r\n--the file--\r\n", b'{"file": {}}'
MOST = 2 * MOST_INFO
END = f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture(autouse=True)
def no_memory_file_is_left() -> Iterator[None]:
    before = memory_files()
    yield
    assert memory_files() == before


def part(
    content: bytes, name: str, content_type: str | None = None, filename: str | None = None, **headers: str
) -> bytes:
    """One part, its frontier before it; underscores in the names of headers stand for hyphens."""
    named = f'; filename="{filename}"' if filename is not None else ""
    lines = [f"--{BOUNDARY}", f'Content-Disposition: form-data; name="{name}"{named}']
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{header.replace('_', '-')}: {value}" for header, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content + b"\r\n"


def read(*pieces: bytes, content_type: str = CONTENT_TYPE) -> tuple[bytes, bytes | None]:
    form = Form(content_type, MOST)
    try:
        for piece in pieces:
            form.feed(piece)
        body, info = form.complete()
    except BaseException:
        form.discard()
        raise
    try:
        return body.read(0, body.size), info
    finally:
        body.release()


PNG, BYTES, JSON, TEXT = "image/png", "application/octet-stream", "application/json", "text/plain"
PAIRS = {
    # The reference's proposal, by curl, by requests, by a browser, and by what sends neither type nor name.
    "proposed": (part(FILE, "body", BYTES, "a.bin"), part(INFO, "file", JSON)),
    "requests": (part(FILE, "body", BYTES, "a.bin"), part(INFO, "file", JSON, "metadata.json")),
    "browser": (part(FILE, "body", PNG, "blob"), part(INFO, "file")),
    "blobs": (part(FILE, "body", PNG, "blob"), part(INFO, "file", JSON, "blob")),
    "bare": (part(FILE, "body"), part(INFO, "file")),
    "aiohttp": (part(FILE, "body", BYTES), part(INFO, "file", f"{TEXT}; charset=utf-8")),
    "json file": (part(FILE, "body", JSON, "package.json"), part(INFO, "file", JSON)),
    "json blobs": (part(FILE, "body", JSON, "package.json"), part(INFO, "file", JSON, "blob")),
    "text file": (part(FILE, "body", TEXT, "a.txt"), part(INFO, "file", JSON, "blob")),
    # The other way round.
    "swapped": (part(FILE, "file", PNG, "a.png"), part(INFO, "body", JSON)),
    "swapped browser": (part(FILE, "file", PNG, "a.png"), part(INFO, "body")),
    "swapped blobs": (part(FILE, "file", TEXT, "a.txt"), part(INFO, "body", JSON, "blob")),
    "swapped json file": (part(FILE, "file", JSON, "package.json"), part(INFO, "body", JSON)),
    "swapped bare": (part(FILE, "file", BYTES), part(INFO, "body")),
    # By its own name.
    "sealed": (part(FILE, "file", JSON, "package.json"), part(INFO, "encrypted_body", JSON, "blob")),
    "sealed field": (part(FILE, "media", BYTES), part(INFO, "encrypted_body")),
}
LONE = {
    "proposed": part(FILE, "body", BYTES, "a.bin"),
    "bare": part(FILE, "body"),
    "swapped": part(FILE, "file", PNG, "a.png"),
    "swapped json file": part(FILE, "file", JSON, "package.json"),
    "nameless": part(FILE, "", BYTES),
    "nested": part(FILE, "body", "multipart/mixed; boundary=inner"),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("order", [1, -1])
def test_the_file_is_told_from_its_info_in_either_order(pair: Sequence[bytes], order: int) -> None:
    assert read(*pair[::order], END) == (FILE, INFO)


@pytest.mark.parametrize("lone", LONE.values(), ids=LONE)
def test_a_file_may_come_alone(lone: bytes) -> None:
    assert read(lone, END) == (FILE, None)


@settings(deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=400), max_size=12), st.binary(max_size=60))
def test_it_makes_no_difference_where_the_form_is_cut(cuts: list[int], noise: bytes) -> None:
    content = noise + b"\r\n--" + BOUNDARY.encode()[:-1] + b"!" + noise
    whole = b"".join((part(INFO, "file"), part(content, "body", BYTES), END))
    places = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    pieces = [whole[start:end] for start, end in pairwise(places)]
    assert read(*pieces) == (content, INFO)


def test_an_empty_file_is_a_file() -> None:
    assert read(part(b"", "body", BYTES, "empty"), END) == (b"", None)


def test_what_stands_before_and_behind_the_form_is_left_out() -> None:
    assert read(b"preamble\r\n", LONE["proposed"], END, b"\r\n", b"epilogue") == (FILE, None)


# -- what is no such form ------------------------------------------------------------------------

NO_BOUNDARY = [
    "",
    "application/json",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    f"multipart/mixed; boundary={BOUNDARY}",
    f"multipart/form-data; boundary={'x' * 71}",
    'multipart/form-data; boundary="a\\"b"',
    'multipart/form-data; boundary="ends in a space "',
    "multipart/form-data; boundary=\udcff",
    "multipart/form-data; " + "a=" * 4000,
    "multipart/form-data; a=" + '"' * 4000,
    "multipart/form-data" + "; " * 4000,
]


@pytest.mark.parametrize("content_type", NO_BOUNDARY)
def test_a_form_needs_its_type_and_boundary(content_type: str) -> None:
    began = time.thread_time()
    with pytest.raises(MalformedRequest, match="multipart/form-data"):
        Form(content_type, MOST)
    assert time.thread_time() - began < 0.005


@pytest.mark.parametrize("quote", ["", '"'])
def test_the_boundary_may_be_quoted_and_the_type_in_capitals(quote: str) -> None:
    content_type = f"Multipart/Form-Data; charset=utf-8; Boundary={quote}{BOUNDARY}{quote}"
    assert read(LONE["proposed"], END, content_type=content_type) == (FILE, None)


FRONTIER = f"--{BOUNDARY}".encode()
DISPOSITION = b'Content-Disposition: form-data; name="body"'
MALFORMED = {
    "nothing": [],
    "no boundary": [b"just bytes"],
    "another boundary": [b"--other\r\n", DISPOSITION, b"\r\n\r\nx\r\n--other--\r\n"],
    "no terminator": [part(FILE, "body", BYTES)],
    "half a terminator": [part(FILE, "body", BYTES), END[:-4]],
    "ends in a header": [FRONTIER, b"\r\n", DISPOSITION],
    "ends behind the headers": [FRONTIER, b"\r\n", DISPOSITION, b"\r\n\r\n"],
    "something behind the boundary": [FRONTIER, b"x\r\n"],
    "bare line feeds": [FRONTIER, b"\n", DISPOSITION, b"\n\nx\n", END],
    "no disposition": [FRONTIER, b"\r\nContent-Type: image/png\r\n\r\nx\r\n", END],
    "another disposition": [FRONTIER, b"\r\nContent-Disposition: attachment\r\n\r\nx\r\n", END],
    "a header without a colon": [FRONTIER, b"\r\n", DISPOSITION, b"\r\nheader\r\n\r\nx\r\n", END],
    "many headers": [FRONTIER, b"\r\n", DISPOSITION, b"\r\nA: b" * 9, b"\r\n\r\nx\r\n", END],
    "a long header": [FRONTIER, b"\r\n", DISPOSITION, b"\r\nA: ", b"b" * 5000, b"\r\n\r\nx\r\n", END],
    "an endless header": [FRONTIER, b"\r\n", DISPOSITION, b"x" * 5000],
    "a part's wrong length": [part(b"longer", "body", BYTES, Content_Length="3"), END],
    "a part's negative length": [part(b"longer", "body", BYTES, Content_Length="-3"), END],
    "no parts": [END],
}
NOT_ONE_FILE = {
    "info alone": [part(INFO, "file", JSON), END],
    "sealed info alone": [part(INFO, "encrypted_body", JSON, "blob"), END],
    "a field alone": [part(INFO, "comment"), END],
    "info twice": [part(INFO, "file", JSON), part(INFO, "encrypted_body", JSON), END],
    "two files": [LONE["proposed"], part(FILE, "file", PNG, "b.png"), END],
    "three parts": [*PAIRS["proposed"], part(b"x", "comment"), END],
    "a hundred parts": [part(b"", "file")] * 100,
}


@pytest.mark.parametrize(
    "pieces", [*MALFORMED.values(), *NOT_ONE_FILE.values()], ids=[*MALFORMED, *NOT_ONE_FILE]
)
def test_what_is_no_form_of_one_file_is_refused(pieces: list[bytes]) -> None:
    with pytest.raises(MalformedRequest):
        read(*pieces)


@pytest.mark.parametrize("pieces", NOT_ONE_FILE.values(), ids=NOT_ONE_FILE)
def test_it_is_said_what_the_form_should_hold(pieces: list[bytes]) -> None:
    with pytest.raises(MalformedRequest, match="must have one file"):
        read(*pieces)


def test_a_second_file_is_refused_before_it_is_read() -> None:
    form = Form(CONTENT_TYPE, MOST)
    form.feed(LONE["proposed"])
    with pytest.raises(MalformedRequest, match="one file"):
        form.feed(part(b"", "file", PNG, "b.png"))
    form.discard()


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "x-unheard-of", "Base64 "])
def test_an_encoded_part_is_refused(encoding: str) -> None:
    """What would be uploaded is not what came."""
    with pytest.raises(UnsupportedEncoding):
        read(part(FILE, "body", BYTES, Content_Transfer_Encoding=encoding), END)


def test_a_compressed_part_is_refused() -> None:
    with pytest.raises(UnsupportedEncoding):
        read(part(FILE, "body", BYTES, Content_Encoding="gzip"), END)


@pytest.mark.parametrize("encoding", ["binary", "8bit", "7BIT"])
def test_a_part_may_say_that_it_is_not_encoded(encoding: str) -> None:
    form = [part(FILE, "body", BYTES, Content_Transfer_Encoding=encoding), END]
    assert read(*form) == (FILE, None)


# -- what is too large ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [MOST, MOST + 1])
def test_a_file_may_have_exactly_the_limit(size: int) -> None:
    pieces = part(bytes(size), "body", BYTES), END
    if size > MOST:
        with pytest.raises(MediaTooLarge, match=f"{MOST} bytes"):
            read(*pieces)
    else:
        assert read(*pieces) == (bytes(size), None)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("size", [MOST_INFO, MOST_INFO + 1])
def test_encryption_info_may_have_a_mebibyte(size: int, order: int) -> None:
    info = json.dumps({"padding": ""}).encode().ljust(size)
    pieces = [part(FILE, "body", BYTES), part(info, "file", JSON)][::order]
    if size > MOST_INFO:
        with pytest.raises(RequestTooLarge, match="1 MiB"):
            read(*pieces, END)
    else:
        assert read(*pieces, END) == (FILE, info)


def test_nothing_is_kept_beyond_the_limit() -> None:
    form = Form(CONTENT_TYPE, MOST)
    form.feed(part(bytes(MOST), "body", BYTES)[:-2])
    with pytest.raises(MediaTooLarge):
        form.feed(b"x" * 1000)
    form.discard()


# -- what takes long -----------------------------------------------------------------------------

PIECE = 128 * 1024
SLOW = {
    "almost boundaries": [part(b"", "body", BYTES)[:-2], *[f"\r\n--{BOUNDARY[:-1]}".encode() * 9000] * 4],
    "carriage returns": [part(b"", "body", BYTES)[:-2], *[b"\r" * PIECE] * 4],
    "a preamble": [b"\r\n" * (PIECE // 2)] * 4,
    "open quotes": [FRONTIER, b'\r\nContent-Disposition: form-data; name="', b'\\"' * 2000, b"\r\n\r\n"],
    "options": [FRONTIER, b"\r\nContent-Disposition: form-data", b"; a" * 1300, b"\r\n\r\n"],
    "spaces": [FRONTIER, b"\r\nContent-Disposition: form-data;", b" " * 4000, b"\r\n\r\n"],
    "spaces in a type": [FRONTIER, b"\r\nContent-Type: a;", b"; =" * 1300, b"\r\n", DISPOSITION, b"\r\n\r\n"],
}


@pytest.mark.parametrize("pieces", SLOW.values(), ids=SLOW)
def test_no_piece_holds_the_event_loop(pieces: list[bytes]) -> None:
    """In processor time; the best of some tries."""
    assert min(longest(pieces) for _ in range(3)) < 0.005


def longest(pieces: list[bytes]) -> float:
    form, worst = Form(CONTENT_TYPE, MOST), 0.0
    for piece in pieces:
        began = time.thread_time()
        try:
            form.feed(piece)
        except ClientError:
            break
        finally:
            worst = max(worst, time.thread_time() - began)
    form.discard()
    return worst


def test_a_boundary_byte_by_byte_is_parsed_as_fast_as_it_comes() -> None:
    form = Form(CONTENT_TYPE, MOST)
    began = time.thread_time()
    for byte in b"".join((part(b"\r\n--" * 2000, "body", BYTES), END)):
        form.feed(bytes([byte]))
    assert time.thread_time() - began < 1
    body, _ = form.complete()
    body.release()
