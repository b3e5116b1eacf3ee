"""Whether everything in a store is there, whole, and what its name says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from scanner.crypto.envelope import public_key_of
from scanner.errors import EnvelopeError, StoreError
from scanner.ports import Store
from scanner.quarantine.catalogue import Content, SealedSample, State
from scanner.quarantine.samples import envelope_of, examined, fits, needed, opened


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with what has this name in the store."""

    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class Sound:
    """A sample that is what its name says; keys showed that if `is_open`, else its outside alone."""

    key: str
    is_open: bool


def unaccounted(contents: Sequence[Content]) -> Iterator[Problem]:
    """Records without the sample that they name, and samples without a record."""
    for content in contents:
        if content.state is State.MISSING:
            sample = next(each.record.sample for each in content.entries if each.record.missing is None)
            yield Problem(sample or content.sha256, f"missing; records that name it: {len(content.entries)}")
        elif content.samples and not content.entries:
            yield Problem(content.samples[0].key, "no record names it")


async def examine(
    store: Store, samples: Sequence[SealedSample], private_keys: Sequence[bytes]
) -> AsyncIterator[Problem | Sound]:
    """Each sample in turn. Without keys their outsides; with some, those that stay closed are problems."""
    for sample in samples:
        try:
            envelope = await envelope_of(store, sample)
            yield await asyncio.to_thread(_examined, sample, envelope, private_keys)
        except (EnvelopeError, StoreError) as problem:
            yield Problem(sample.key, problem.info.removeprefix(f"{sample.key}: "))


def _examined(sample: SealedSample, envelope: bytes, private_keys: Sequence[bytes]) -> Sound:
    header = examined(sample, envelope)
    if not private_keys:
        return Sound(sample.key, is_open=False)
    if not fits(header, map(public_key_of, private_keys)):
        raise EnvelopeError(f"not opened: that takes {needed(header)} of other keys")
    opened(header, envelope, private_keys, sample.sha256)
    return Sound(sample.key, is_open=True)
