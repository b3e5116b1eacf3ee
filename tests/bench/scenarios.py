"""What is asked of the targets. About 2 % of the files of every stream of new media are infected."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch

from tests.bench.corpus import INFECTED, SIZES, Corpus
from tests.bench.requests import Request, Verb

_EVERY, _INFECTED_AT = 48, 7
_ENDLESS = 10**9

_unique = itertools.count()
_run = f"{os.getpid():x}{time.time_ns() & 0xFFFFFF:x}"


def _variant() -> str:
    """Never the same again, in another run neither."""
    return f"{_run}{next(_unique):x}"


@dataclass(frozen=True)
class Stream:
    """Requests without end: for new media each, or for `media` clean ones again and again."""

    verb: Verb
    size: str
    encrypted: bool = False
    kinds: tuple[str, ...] = ("jpeg", "mp4")
    media: int | None = None

    def bases(self) -> list[str]:
        """Names of the base files that it needs."""
        infected = () if self.media else INFECTED[self.size]
        return [*(f"{kind}-{self.size}" for kind in self.kinds), *infected]

    def requests(self, corpus: Corpus) -> Iterator[Request]:
        return self._known(corpus, self.media) if self.media else self._new(corpus)

    def _new(self, corpus: Corpus) -> Iterator[Request]:
        clean = itertools.cycle(f"{kind}-{self.size}" for kind in self.kinds)
        infected = itertools.cycle(INFECTED[self.size])
        for number in itertools.count():
            name = next(infected if number % _EVERY == _INFECTED_AT else clean)
            yield Request(self.verb, corpus.base(name), _variant(), self.encrypted)

    def _known(self, corpus: Corpus, media: int) -> Iterator[Request]:
        kinds = itertools.cycle(self.kinds)
        bases = (corpus.base(f"{next(kinds)}-{self.size}") for _ in range(media))
        return itertools.cycle([Request(self.verb, base, _variant(), self.encrypted) for base in bases])


@dataclass(frozen=True)
class Scenario:
    """Callers that ask one after the other: for `seconds`, but from `least` to `most` requests in all."""

    name: str
    title: str
    stream: Stream
    callers: int
    seconds: float = 1.0
    least: int = 4
    most: int = _ENDLESS
    warm_up: int = 0  # requests before measuring
    fresh: bool = False  # every target is started anew
    background: Stream | None = None
    background_callers: int = 0
    rounds: int = 99  # at most so many
    floor: bool = True  # the floor can do it too

    def lasting(self, factor: float) -> Scenario:
        """The same, longer or shorter."""
        return replace(self, seconds=self.seconds * factor)

    def bases(self) -> list[str]:
        return self.stream.bases() + (self.background.bases() if self.background else [])


_THUMBNAIL = Stream("thumbnail", "10k", kinds=("jpeg",))
_MIXED = ("jpeg", "mp4", "pdf", "docx")


def _burst(callers: int, kinds: tuple[str, ...]) -> Scenario:
    stream = Stream("download", "20m", encrypted=True, kinds=kinds)
    title = f"burst of {callers} encrypted downloads of 20 MB"
    name = f"burst-{callers}x20m"
    return Scenario(name, title, stream, callers, 0, callers, callers, fresh=True, rounds=1)


def _herd(callers: int) -> Scenario:
    """All want the same file at the same moment."""
    stream = Stream("download", "20m", encrypted=True, kinds=("jpeg",), media=1)
    title = f"{callers} at once for one encrypted file of 20 MB"
    name = f"herd-{callers}x20m"
    return Scenario(name, title, stream, callers, 0, callers, callers, fresh=True, rounds=1, floor=False)


def _warm(name: str, title: str, stream: Stream, callers: int) -> Scenario:
    return Scenario(name, title, stream, callers, 0.6, 8, warm_up=stream.media or 0, floor=False)


COMPARISON = [
    Scenario("thumb-10k-c32", "thumbnails of 10 KB, 32 at once", _THUMBNAIL, 32),
    Scenario(
        "scan-enc-100k-c8",
        "scan encrypted 100 KB, 8 at once",
        Stream("scan", "100k", encrypted=True),
        8,
    ),
    Scenario(
        "dl-enc-1m-c8",
        "download encrypted 1 MB, 8 at once",
        Stream("download", "1m", encrypted=True),
        8,
        least=8,
    ),
    _warm(
        "dl-warm-1m-c8",
        "the same known to be clean",
        Stream("download", "1m", encrypted=True, kinds=_MIXED, media=6),
        8,
    ),
    _warm(
        "dl-warm-10k-c32",
        "10 KB known to be clean, 32 at once",
        Stream("download", "10k", kinds=("jpeg", "pdf", "text"), media=24),
        32,
    ),
    Scenario(
        "hol-small-behind-20m",
        "thumbnails of 10 KB while three files of 20 MB are scanned",
        _THUMBNAIL,
        2,
        1.4,
        background=Stream("scan", "20m", encrypted=True, kinds=("mp4",)),
        background_callers=3,
        floor=False,
    ),
    _herd(24),
    _burst(8, ("jpeg",)),
]

# What the plots show.
BY_SIZE = [
    Scenario(
        f"size-{size}",
        f"scan encrypted {size}, 8 at once",
        Stream("scan", size, encrypted=True, kinds=_MIXED if size != "10k" else ("jpeg", "mp4", "pdf")),
        8,
        seconds=1.5,
        least=8,
        fresh=True,
    )
    for size in SIZES
]
UNDER_LOAD = [
    Scenario(
        f"load-{callers}",
        f"scan encrypted 100 KB, {callers} at once",
        Stream("scan", "100k", encrypted=True),
        callers,
        seconds=1.5,
        least=callers,
        fresh=callers == 1,
        floor=False,
    )
    for callers in (1, 2, 4, 8, 16, 32)
]

# Minutes each: only when they are asked for.
LONG = [_burst(100, ("jpeg", "mp4")), _herd(200)]


def chosen(patterns: str) -> list[Scenario]:
    """By names with wildcards, separated by commas; "" is all but the long ones."""
    if not patterns:
        return [*COMPARISON, *BY_SIZE, *UNDER_LOAD]
    return [
        scenario
        for scenario in (*COMPARISON, *BY_SIZE, *UNDER_LOAD, *LONG)
        if any(fnmatch(scenario.name, pattern) for pattern in patterns.split(","))
    ]


def bases_of(scenarios: Iterable[Scenario]) -> list[str]:
    return sorted({name for scenario in scenarios for name in scenario.bases()})
