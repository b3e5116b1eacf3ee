"""Reads a store into a catalogue: a listing, and a request for each record and marker that may be meant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from scanner.ports import Store
from scanner.quarantine.actions import Rules
from scanner.quarantine.catalogue import Content, Entry, Query, SealedSample, day_of, fold
from scanner.quarantine.layout import DETECTIONS, MARKERS, OBJECTS, markers_prefix
from scanner.quarantine.markers import Marker, content_of

# How far a long reading is: so many of so many, where that is known.
Progress = Callable[[int, int | None], None]

_AT_ONCE = 32
# Records and markers are under 2 KB: what is much larger is none, and is not fetched.
_LARGEST = 16_384


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What there is, the last seen first; markers that do not count; names of what is nothing we know."""

    contents: tuple[Content, ...]
    ignored: tuple[Marker, ...]
    strange: tuple[str, ...]


def _unseen(_done: int, _all: int | None) -> None:
    """Nobody watches."""


async def read_catalogue(
    store: Store,
    rules: Rules,
    query: Query = Query(),  # noqa: B008 - it is immutable
    progress: Progress = _unseen,
) -> Catalogue:
    """All that `query` may mean, with markers that count by `rules`. Raises StoreError."""
    samples, strange = await read_samples(store)
    entries, unreadable = await _entries(store, query, progress)
    markers, nameless = await _markers(store, rules, f"{MARKERS}/")
    contents = tuple(query.select(fold(entries, samples, markers)))
    ignored = tuple(marker for marker in markers if not marker.counts)
    return Catalogue(contents, ignored, tuple(sorted(strange + unreadable + nameless)))


async def read_samples(store: Store, progress: Progress = _unseen) -> tuple[list[SealedSample], list[str]]:
    """Every one, by its name alone, and the names of what is none. Raises StoreError."""
    samples, strange = list[SealedSample](), list[str]()
    async for stored in store.listing(f"{OBJECTS}/"):
        if sample := SealedSample.of(stored):
            samples.append(sample)
        else:
            strange.append(stored.key)
        progress(len(samples), None)
    return samples, strange


async def markers_of(store: Store, rules: Rules, sha256: str) -> list[Marker]:
    """Of one content, those that do not count by `rules` among them. Raises StoreError."""
    return (await _markers(store, rules, markers_prefix(sha256)))[0]


async def _markers(store: Store, rules: Rules, prefix: str) -> tuple[list[Marker], list[str]]:
    """Markers, and the names of those that are none."""
    sizes = {stored.key: stored.size async for stored in store.listing(prefix)}
    keys = [key for key, size in sizes.items() if content_of(key) and size <= _LARGEST]
    markers, now = list[Marker](), time.time()
    async for batch in _read(store, keys):
        markers += [Marker.read(key, data, rules, now) for key, data in batch]
    return markers, sorted(sizes.keys() - set(keys))


async def _entries(store: Store, query: Query, progress: Progress) -> tuple[list[Entry], list[str]]:
    """Records, and the names of those that are none."""
    days = {
        stored.key: day_of(stored.key) if stored.size <= _LARGEST else None
        async for stored in store.listing(f"{DETECTIONS}/")
    }
    strange = [key for key, day in days.items() if day is None]
    keys = [key for key, day in days.items() if day is not None and query.admits_day(day)]
    entries, done = list[Entry](), 0
    async for batch in _read(store, keys):
        for key, data in batch:
            _take(key, data, entries, strange)
        done = min(done + _AT_ONCE, len(keys))
        progress(done, len(keys))
    return entries, strange


async def _read(store: Store, keys: Sequence[str]) -> AsyncIterator[list[tuple[str, bytes]]]:
    """So many at a time; what was purged a moment ago is left out."""
    for at in range(0, len(keys), _AT_ONCE):
        batch = keys[at : at + _AT_ONCE]
        contents = await asyncio.gather(*(store.get(key, _LARGEST) for key in batch))
        yield [(key, data) for key, data in zip(batch, contents, strict=True) if data is not None]


def _take(key: str, data: bytes, entries: list[Entry], strange: list[str]) -> None:
    try:
        entries.append(Entry.parse(key, data))
    except ValueError:
        strange.append(key)
