"""A store, read into a catalogue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from scanner.ports import Stored
from scanner.quarantine.actions import Kind, Signed
from scanner.quarantine.catalogue import Query, State
from scanner.quarantine.markers import new_marker
from scanner.quarantine.reading import markers_of, read_catalogue, read_samples
from scanner.stores.local import Local
from tests.quarantine.people import NOBODY, TWO_EYES, signed, statement
from tests.quarantine.stock import NOW, digest, put_record, put_sample


@pytest.fixture
def store(tmp_path: Path) -> Local:
    return Local(tmp_path)


async def test_everything_is_read_and_counted_on_the_way(store: Local) -> None:
    name = await put_sample(store, b"sample")
    for number in range(70):
        await put_record(store, media=f"mxc://a.org/{number}")
    heard: list[tuple[int, int]] = []
    catalogue = await read_catalogue(store, NOBODY, progress=lambda *counts: heard.append(counts))
    [content] = catalogue.contents
    assert (content.state, len(content.entries), content.samples[0].key) == (State.KEPT, 70, name)
    assert heard == [(32, 70), (64, 70), (70, 70)]
    assert catalogue.strange == ()


async def test_an_empty_store_is_an_empty_catalogue(store: Local) -> None:
    assert (await read_catalogue(store, NOBODY)).contents == ()


async def test_what_is_nothing_of_ours_is_named_and_hides_nothing(store: Local) -> None:
    await put_record(store)
    bad = "v1/detections/2026/11/21/" + "0" * 32 + ".json"
    for key in (bad, "v1/detections/notes.txt", "v1/objects/notes.txt"):
        await store.put(key, b"{}")
    catalogue = await read_catalogue(store, NOBODY)
    assert len(catalogue.contents) == 1
    assert set(catalogue.strange) == {bad, "v1/detections/notes.txt", "v1/objects/notes.txt"}


async def test_what_is_not_meant_is_not_read(store: Local) -> None:
    await put_record(store, at=NOW - timedelta(days=30))
    await put_record(store, media="mxc://a.org/new")
    heard: list[tuple[int, int]] = []
    query = Query(since=NOW - timedelta(hours=1))
    catalogue = await read_catalogue(store, NOBODY, query, lambda *counts: heard.append(counts))
    assert heard == [(1, 1)]
    assert len(catalogue.contents[0].entries) == 1


class Swollen(Local):
    """What is there has another size than it says."""

    async def listing(self, prefix: str) -> AsyncIterator[Stored]:
        async for stored in super().listing(prefix):
            yield replace(stored, size=100)


async def test_what_is_larger_than_the_store_says_is_not_read(tmp_path: Path) -> None:
    store = Swollen(tmp_path)
    await put_record(store)
    await store.put("v1/detections/2026/11/21/" + "0" * 32 + ".json", b" " * 20_000)
    key, _ = new_marker(signed(Kind.HOLD))
    await store.put(key, b" " * 20_000)
    got = list[tuple[str, int | None]]()

    async def get(key: str, largest: int | None = None) -> bytes | None:
        got.append((key, largest))
        return await Local.get(store, key, largest)

    store.get = get  # type: ignore[method-assign]
    catalogue = await read_catalogue(store, NOBODY)
    assert len(got) == 3
    assert {largest for _, largest in got} == {16_384}
    assert [name.rsplit("/", 1)[1] for name in catalogue.strange] == ["0" * 32 + ".json"]


async def test_samples_are_known_by_their_names_alone(store: Local) -> None:
    await put_sample(store, b"sample")
    samples, strange = await read_samples(store)
    assert [sample.sha256 for sample in samples] == [digest(b"sample")]
    assert strange == []


async def test_markers_that_do_not_count_and_what_is_none_are_named(store: Local) -> None:
    sha256 = digest(b"sample")
    await put_sample(store, b"sample")
    said = statement(Kind.HOLD, sha256=sha256)
    genuine, forged = new_marker(signed(Kind.HOLD, sha256=sha256)), new_marker(Signed(said, ""))
    elsewhere = new_marker(signed(Kind.HOLD, sha256="ff" * 32))
    for each in (genuine, forged, elsewhere):
        await store.put(*each)
    for name in ("readme", f"{sha256}/huge.json"):
        await store.put(f"v1/markers/{name}", b" " * 20_000)
    markers = await markers_of(store, TWO_EYES, sha256)
    assert {(marker.key, marker.counts) for marker in markers} == {(genuine[0], True), (forged[0], False)}
    catalogue = await read_catalogue(store, TWO_EYES)
    assert [marker.key for marker in catalogue.ignored] == [forged[0]]
    assert len(catalogue.strange) == 2
    assert (await read_catalogue(store, NOBODY)).ignored == ()


async def test_what_is_too_large_for_a_record_is_not_fetched(
    store: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await put_record(store)
    huge = kept.replace("/21/", "/22/")
    await store.put(huge, b" " * 20_000)
    fetched = []

    async def get(key: str, largest: int | None = None) -> bytes | None:
        fetched.append(key)
        return await Local.get(store, key, largest)

    monkeypatch.setattr(store, "get", get)
    catalogue = await read_catalogue(store, NOBODY)
    assert fetched == [kept]
    assert catalogue.strange == (huge,)
