"""That every way to change a chain shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scanner.crypto.signing import Signer
from scanner.quarantine.audit import (
    NOTHING,
    Head,
    Problem,
    Record,
    digest,
    name_of_scanner,
    now_text,
    problems,
)
from tests.quarantine.people import ANALYSTS, MALLORY, SIGNERS

SCANNER = Signer(b"s" * 32)
NAME = name_of_scanner(SCANNER.public_key)
KEYS = {**{name: analyst.public_key for name, analyst in ANALYSTS.items()}, NAME: SCANNER.public_key}
Records = dict[int, bytes]


def record(
    number: int, previous: str, author: str = "alice", signer: Signer | None = None, action: str = "release"
) -> bytes:
    return Record.new(
        signer or SIGNERS[author],
        number=number,
        previous=previous,
        at=now_text(),
        author=author,
        action=action,
        subject=f"content {number}",
    ).to_json()


def chain(length: int = 5) -> Records:
    records: Records = {}
    for number in range(1, length + 1):
        previous = digest(records[number - 1]) if records else NOTHING
        records[number] = record(number, previous, "alice" if number % 2 else "bob")
    return records


def head(records: Records, signer: Signer = SCANNER) -> Head:
    last = max(records)
    return Head.new(signer, last, digest(records[last]), NAME)


def found(records: Records, *heads: Head, known: Head | None = None) -> list[int]:
    return [problem.number for problem in problems(records, heads, KEYS, known)]


def edited(data: bytes, **changes: Any) -> bytes:
    content = {**json.loads(data), **changes}
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def test_chain_as_it_was_written_has_no_problem() -> None:
    records = chain()
    assert found(records, head(records), head(chain(1) | {1: records[1]})) == []
    assert found({}) == []


def test_record_and_head_survive_json() -> None:
    data = chain(1)[1]
    assert Record.from_json(data).to_json() == data
    one = head(chain())
    assert Head.from_json(one.to_json()) == one
    assert len(data) < 2_048


def test_edit_is_found_by_its_signature_and_by_the_next_record() -> None:
    records = chain()
    records[2] = edited(records[2], subject="another content")
    assert found(records) == [2, 3]


def test_edit_by_one_of_the_analysts_is_found_by_the_next_record() -> None:
    """He may sign what he likes in his own name, but not in the past."""
    records = chain()
    records[2] = record(2, digest(records[1]), "bob", action="deny")
    assert found(records) == [3]


def test_edit_of_the_last_record_is_found_by_a_head() -> None:
    records = chain()
    before = head(records)
    records[5] = record(5, digest(records[4]), action="deny")
    assert found(records) == []
    assert found(records, before) == [5]
    assert found(records, known=replace(before, signature="")) == [5]


def test_record_that_is_missing_is_found() -> None:
    records = chain()
    del records[2], records[3]
    assert problems(records, [], KEYS) == [Problem(2, "is missing, and so are all up to 3")]
    del records[1]
    assert found(records) == [1]


def test_cut_is_found_by_a_head_alone() -> None:
    records = chain()
    before = head(records)
    del records[4], records[5]
    assert found(records) == []
    assert found(records, before) == [5]
    assert problems({}, [before], KEYS)[0].what == f"was there at {before.at}, and is missing"


def test_swapped_records_are_found() -> None:
    records = chain()
    records[2], records[4] = records[4], records[2]
    assert {2, 3, 4, 5} <= set(found(records))


@pytest.mark.parametrize(
    "rearranged", [lambda r: [r[2], r[1], *r[2:]], lambda r: [*r[:2], *r[3:]], lambda r: r[::-1]]
)
def test_another_order_is_found(rearranged: Callable[[list[bytes]], list[bytes]]) -> None:
    assert found(dict(enumerate(rearranged([*chain().values()]), 1))) != []


def test_record_put_between_by_somebody_else_is_found() -> None:
    records = chain()
    stranger = record(6, digest(records[5]), "mallory", MALLORY)
    assert found({**records, 6: stranger}) == [6]
    assert found({**records, 6: record(6, digest(records[5]), "alice", MALLORY)}) == [6]


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", edited(chain(1)[1], number="1"), edited(chain(1)[1], x=1)]
)
def test_what_is_no_record_is_found(data: bytes) -> None:
    assert problems({1: data}, [], KEYS) == [Problem(1, "is no audit record")]


def test_record_in_another_spelling_is_none() -> None:
    with pytest.raises(ValueError, match="spelled"):
        Record.from_json(chain(1)[1] + b" ")


def test_forged_head_is_found_and_is_not_believed() -> None:
    records = chain()
    assert [problem.what for problem in problems(records, [head(records, MALLORY)], KEYS)] == [
        f"has a head that is not signed by {NAME}, or its key is not listed"
    ]


def test_head_is_no_record_and_a_record_no_head() -> None:
    with pytest.raises(ValueError, match="members"):
        Head.from_json(chain(1)[1])
    with pytest.raises(ValueError, match="members"):
        Record.from_json(head(chain()).to_json())
