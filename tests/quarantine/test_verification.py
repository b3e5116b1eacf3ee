"""What is wrong with a store, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner.crypto.envelope import Mode
from scanner.quarantine.reading import read_catalogue
from scanner.quarantine.verification import Problem, Sound, examine, unaccounted
from scanner.stores.local import Local
from tests.quarantine.people import NOBODY
from tests.quarantine.stock import OTHER, SOC, envelope, put_record, put_sample, sample_key


@pytest.fixture
def store(tmp_path: Path) -> Local:
    return Local(tmp_path)


async def found(store: Local, *keys: bytes) -> list[Problem | Sound]:
    contents = (await read_catalogue(store, NOBODY)).contents
    samples = [sample for content in contents for sample in content.samples]
    return [each async for each in examine(store, samples, keys)]


async def test_a_whole_sample_is_opened_with_its_key_and_looked_at_without(store: Local) -> None:
    name = await put_sample(store, b"sample")
    assert await found(store, SOC) == [Sound(name, is_open=True)]
    assert await found(store) == [Sound(name, is_open=False)]


async def test_a_sample_that_stays_closed_is_a_problem_only_where_keys_were_given(store: Local) -> None:
    name = await put_sample(store, b"sample", SOC, OTHER, mode=Mode.ALL)
    assert await found(store, SOC) == [Problem(name, "not opened: that takes 2 of other keys")]
    assert await found(store, SOC, OTHER) == [Sound(name, is_open=True)]
    assert await found(store) == [Sound(name, is_open=False)]


@pytest.mark.parametrize(
    ("sealed", "said", "unopened"),
    [
        (envelope(b"sample")[:-1], "should have 158 bytes, and has 157", True),
        (b"not sealed", "cut off", True),
        (bytes(200), "no envelope of version 1", True),
        (envelope(b"sample", OTHER), "sealed to others than its name says", True),
        (envelope(b"another"), "should have|not what its name says", False),
        (envelope(b"simple"), "not what its name says", False),
        (envelope(b"sample")[:-1] + b"\0", "damaged", False),
    ],
)
async def test_a_damaged_or_exchanged_sample_is_a_problem(
    store: Local, sealed: bytes, said: str, unopened: bool
) -> None:
    await store.put(sample_key(b"sample"), sealed)
    [problem] = await found(store, SOC)
    assert isinstance(problem, Problem)
    assert any(part in problem.problem for part in said.split("|"))
    [seen] = await found(store)
    assert isinstance(seen, Problem) is unopened


async def test_records_without_samples_and_samples_without_records_are_named(store: Local) -> None:
    alone = await put_sample(store, b"alone")
    await put_sample(store, b"both")
    for content in (b"both", b"gone"):
        await put_record(store, content)
    await put_record(store, b"hash", sample=None, missing="hash_only")
    problems = unaccounted((await read_catalogue(store, NOBODY)).contents)
    assert {(problem.key, problem.problem) for problem in problems} == {
        (alone, "no record names it"),
        (sample_key(b"gone"), "missing; records that name it: 1"),
    }
