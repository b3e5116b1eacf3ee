"""Verdicts and aliases in this process: bounded, the least recently used go first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

from scanner.verdict import Alias, ContentId, Verdict, VerdictKey

Key = TypeVar("Key")
Value = TypeVar("Value")


class Memory:
    """A VerdictCache of at most `capacity` verdicts and as many aliases.

    `clock` is in seconds and never jumps, whatever happens to the time of day.
    """

    name = "memory"

    def __init__(self, capacity: int = 100_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._verdicts = _Recent[VerdictKey, Verdict](capacity, clock)
        self._contents = _Recent[Alias, ContentId](capacity, clock)

    async def verdict(self, key: VerdictKey) -> Verdict | None:
        """What `remember` was told, unless its lifetime is over or others came after it."""
        return self._verdicts.get(key)

    async def remember(self, key: VerdictKey, verdict: Verdict, lifetime: float) -> None:
        """Keep `verdict` for `lifetime` seconds."""
        self._verdicts.put(key, verdict, lifetime)

    async def content(self, alias: Alias) -> ContentId | None:
        """What `link` was told."""
        return self._contents.get(alias)

    async def link(self, alias: Alias, content: ContentId) -> None:
        """Keep where `alias` leads to; this never becomes untrue, so it has no lifetime."""
        self._contents.put(alias, content, inf)

    def entries(self) -> int:
        """How many verdicts and aliases are held, those included that expired unasked."""
        return len(self._verdicts) + len(self._contents)


class _Recent(Generic[Key, Value]):
    """A mapping of the `capacity` most recently used keys, each with the time of its end."""

    __slots__ = ("_capacity", "_clock", "_entries")

    def __init__(self, capacity: int, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._clock = clock
        self._entries: OrderedDict[Key, tuple[Value, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, end = entry
        if end <= self._clock():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: Key, value: Value, lifetime: float) -> None:
        self._entries[key] = (value, self._clock() + lifetime)
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
