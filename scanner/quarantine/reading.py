"""Reads a store into a catalogue: a listing, and a request for each record that may be meant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from scanner.ports import Store
from scanner.quarantine.catalogue import Content, Entry, Query, SealedSample, day_of, fold
from scanner.quarantine.layout import DETECTIONS, MARKERS, OBJECTS, markers_prefix
from scanner.quarantine.markers import Marker

# How far a long reading is: so many records of so many.
Progress = Callable[[int, int], None]

_AT_ONCE = 32
# Records are under 2 KB: what is much larger is none, and is not fetched.
_LARGEST = 16_384


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What there is, the last seen first, and the names of what is nothing that we know."""

    contents: tuple[Content, ...]
    strange: tuple[str, ...]


def _unseen(_done: int, _all: int) -> None:
    """Nobody watches."""


async def read_catalogue(store: Store, query: Query = Query(), progress: Progress = _unseen) -> Catalogue:  # noqa: B008 - it is immutable
    """All that `query` may mean. Raises StoreError."""
    samples, strange = await read_samples(store)
    entries, unreadable = await _entries(store, query, progress)
    contents = fold(entries, samples, await markers_of(store))
    return Catalogue(tuple(query.select(contents)), tuple(sorted(strange + unreadable)))


async def read_samples(store: Store) -> tuple[list[SealedSample], list[str]]:
    """Every one, by its name alone, and the names of what is none. Raises StoreError."""
    samples, strange = list[SealedSample](), list[str]()
    async for stored in store.listing(f"{OBJECTS}/"):
        if sample := SealedSample.of(stored):
            samples.append(sample)
        else:
            strange.append(stored.key)
    return samples, strange


async def markers_of(store: Store, sha256: str | None = None) -> list[Marker]:
    """Of one content, or of all. Raises StoreError."""
    prefix = markers_prefix(sha256) if sha256 else f"{MARKERS}/"
    found = [Marker.of(stored) async for stored in store.listing(prefix)]
    return [marker for marker in found if marker is not None]


async def _entries(store: Store, query: Query, progress: Progress) -> tuple[list[Entry], list[str]]:
    """Records, and the names of those that are none."""
    days = {
        stored.key: day_of(stored.key) if stored.size <= _LARGEST else None
        async for stored in store.listing(f"{DETECTIONS}/")
    }
    strange = [key for key, day in days.items() if day is None]
    keys = [key for key, day in days.items() if day is not None and query.admits_day(day)]
    entries: list[Entry] = []
    for at in range(0, len(keys), _AT_ONCE):
        batch = keys[at : at + _AT_ONCE]
        contents = await asyncio.gather(*map(store.get, batch))
        for key, data in zip(batch, contents, strict=True):
            _take(key, data, entries, strange)
        progress(min(at + _AT_ONCE, len(keys)), len(keys))
    return entries, strange


def _take(key: str, data: bytes | None, entries: list[Entry], strange: list[str]) -> None:
    if data is None:  # purged a moment ago
        return
    try:
        entries.append(Entry.parse(key, data))
    except ValueError:
        strange.append(key)
