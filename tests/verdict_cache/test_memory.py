from __future__ import annotations

import pytest

from scanner.ports import VerdictCache
from scanner.verdict import Alias, ContentId, VerdictKey
from scanner.verdict_cache.memory import Memory
from tests.contracts.verdict_cache import ALIAS, CLEAN, KEY, VerdictCacheContract

OTHER, THIRD = VerdictKey(b"o" * 32), VerdictKey(b"t" * 32)


@pytest.fixture
def cache() -> VerdictCache:
    return Memory()


class TestMemory(VerdictCacheContract):
    """The contract."""


class Clock:
    """A clock that moves when it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_least_recently_used_verdict_goes_first() -> None:
    memory = Memory(capacity=2)
    await memory.remember(KEY, CLEAN, 60)
    await memory.remember(OTHER, CLEAN, 60)
    await memory.verdict(KEY)
    await memory.remember(THIRD, CLEAN, 60)
    assert [await memory.verdict(key) for key in (KEY, OTHER, THIRD)] == [CLEAN, None, CLEAN]


async def test_aliases_are_bounded_and_leave_verdicts_alone() -> None:
    memory = Memory(capacity=2)
    await memory.remember(KEY, CLEAN, 60)
    for number in range(9):
        await memory.link(Alias(bytes([number])), ContentId(b"c"))
    assert memory.entries() == 3
    assert await memory.verdict(KEY) == CLEAN


async def test_lifetime_is_measured_to_the_second_it_ends() -> None:
    clock = Clock()
    memory = Memory(clock=clock)
    await memory.remember(KEY, CLEAN, 60)
    clock.now += 59.9
    assert await memory.verdict(KEY) == CLEAN
    clock.now += 0.1
    assert await memory.verdict(KEY) is None
    assert memory.entries() == 0


async def test_alias_never_expires() -> None:
    clock = Clock()
    memory = Memory(clock=clock)
    await memory.link(ALIAS, ContentId(b"c"))
    clock.now += 1e9
    assert await memory.content(ALIAS) == b"c"
