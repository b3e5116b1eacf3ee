"""Objects of PDFs: what programs write is read, and nothing else is passed over."""

from __future__ import annotations

import re
import time

import pytest

from scanner.containers.inspection import Part, Unsure
from scanner.containers.pdf_objects import (
    BIT,
    bits,
    dictionary,
    few,
    headers,
    last_header,
    matches,
    name_pattern,
    reference,
)


def found_headers(content: bytes) -> list[tuple[int, int]]:
    return [(header.number, header.generation) for header in headers(Part.of(content), lambda: None)]


def test_names_and_values_of_a_dictionary_are_those_of_its_top_level() -> None:
    text = b"<< /A /B /C 5 0 R /D << /A [/A /A] >> /E [/F] /G (>>) /H <00> /I true >> /J"
    expected = {b"/A": b"/B", b"/C": b"5 0 R", b"/D": b"<< /A [/A /A] >>", b"/E": b"[/F]", b"/G": b"(>>)"}
    found = dictionary(text)
    assert found is not None
    assert found.values == expected | {b"/H": b"<00>", b"/I": b"true"}
    assert text[found.size :] == b" /J"


def test_strings_may_lie_in_each_other() -> None:
    found = dictionary(b"<< /A (a (b (c) \\) ) >>) /B 1 >>")
    assert found is not None
    assert found.values == {b"/A": b"(a (b (c) \\) ) >>)", b"/B": b"1"}


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"<< /A 1", b"<< /A 1 /A 2 >>", b"<< % \n >>", b"<< /A (( >>", b" << >>", b"<< ) >>"]
)
def test_what_is_no_sound_dictionary_has_no_names(text: bytes) -> None:
    assert dictionary(text) is None


def test_matches_are_found_once_wherever_bits_meet() -> None:
    for before in (BIT - 4, BIT - 1, BIT, BIT + 1):
        found = matches(Part.of(b"x" * before + b"/Encrypt"), re.compile(b"/Encrypt"))
        assert [offset for offset, _ in found] == [before]


def test_bits_are_all_there_is() -> None:
    content = bytes(range(256)) * 1000
    assert b"".join(bit[:BIT] for _, bit in bits(Part.of(content), 10)) == content


def test_few_are_one_more_than_anybody_has() -> None:
    assert len(few(matches(Part.of(b"x" * 500), re.compile(b"x")))) == 201


@pytest.mark.parametrize("name", [b"/EF", b"/E#46", b"/#45F", b"/#45#46"])
def test_a_name_is_known_however_it_is_written(name: bytes) -> None:
    assert re.match(name_pattern(b"EF"), name + b"<<")


@pytest.mark.parametrize("name", [b"/EFF", b"/E", b"/EF#20", b"/EF.", b"(EF)"])
def test_another_name_is_another(name: bytes) -> None:
    assert not re.match(name_pattern(b"EF"), name + b" <<")


@pytest.mark.parametrize(
    "text", [b" 13 0 R", b"\n013\r00000 R>>", b"%x\n13%" + b"y" * 2000 + b"\n0 %\rR ", b" +13 +0 R"]
)
def test_a_reference_is_read_however_it_is_written(text: bytes) -> None:
    assert reference(Part.of(b"/F" + text), 2) == 13


@pytest.mark.parametrize("text", [b" 4", b"(x)", b" <</F 13 0 R>>", b" 13 0 obj", b" 13 0 Rx", b""])
def test_what_is_none_is_no_reference(text: bytes) -> None:
    assert reference(Part.of(b"/F" + text), 2) is None


@pytest.mark.parametrize("gap", [b" " * 5000, b"%" + b"z" * 5000 + b"\r", b"%\n" * 3000])
@pytest.mark.parametrize("before", [b"", b" 13", b" 13 0"])
def test_a_reference_that_never_comes_to_its_end_is_unsure(gap: bytes, before: bytes) -> None:
    with pytest.raises(Unsure):
        reference(Part.of(b"/F" + before + gap + b"13 0 R"), 2)


def test_objects_begin_with_their_numbers() -> None:
    assert found_headers(b"1 0 obj<<>>endobj\n12\t3\r\nobj [] endobj +7 0 obj 8 0objx") == [
        *((1, 0), (12, 3)),
        (7, 0),
    ]


@pytest.mark.parametrize(
    "text",
    [b"\n4%x\n0 obj <<", b"\n4 0%\robj<<", b"\n4 %\n 0 obj %\n<<", b"4 0" + b" " * 400 + b"obj <<"],
)
def test_a_beginning_with_something_in_it_is_unsure(text: bytes) -> None:
    with pytest.raises(Unsure):
        found_headers(b"%PDF-1.7 1 0 obj << >> endobj" + text)


def test_the_last_object_before_a_place_is_told() -> None:
    content = b"1 0 obj << >> endobj 2 5 obj << /First 3"
    header = last_header(Part.of(content), content.index(b"/First"))
    assert header is not None
    assert header[:2] == (2, 5)
    assert content[header.end :] == b" << /First 3"
    assert last_header(Part.of(content), content.index(b" 2 5")) is None
    assert last_header(Part.of(b"<< /First 3"), 3) is None


@pytest.mark.parametrize(
    "text", [b"(" * 16_000, b"(a" * 8000, b"\\" * 16_000, b"<" * 16_000, b"%\n" * 8000, b"/A(((" * 3000]
)
def test_hostile_text_costs_no_more_than_its_size(text: bytes) -> None:
    began = time.thread_time()
    for _ in range(20):
        dictionary(b"<< /A " + text)
        reference(Part.of(b"/F" + text[:4000]), 2)
    assert time.thread_time() - began < 1
