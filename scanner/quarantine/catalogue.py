"""What is in a quarantine, content by content: the fold of records, sealed samples and markers. Pure.

Whoever can write to the store is not trusted here: what is no record is named as such, and nothing of a
record but its types is believed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Self, TypeVar

from scanner.ports import Stored
from scanner.quarantine.actions import Kind
from scanner.quarantine.layout import DETECTIONS, OBJECTS
from scanner.quarantine.markers import Marker, counting, is_held
from scanner.quarantine.records import DetectionRecord

_SHA256 = re.compile(r"[0-9a-f]{64}")
_OBJECT = re.compile(
    rf"{OBJECTS}/(?P<recipients>[0-9a-f]{{16}})/sha256/"
    r"(?P<a>[0-9a-f]{2})/(?P<b>[0-9a-f]{2})/(?P<sha256>(?P=a)(?P=b)[0-9a-f]{60})"
)
# Of this millennium: the days beside one must be in the calendar, too.
_DETECTION = re.compile(rf"{DETECTIONS}/(?P<day>2[0-9]{{3}}/[0-9]{{2}}/[0-9]{{2}})/[0-9a-f]{{32}}\.json")
_MXC = "mxc://"
_Item = TypeVar("_Item")


class State(StrEnum):
    """What became of a content's sample."""

    KEPT = "kept"
    HELD = "held"
    DELETED = "deleted"
    HASH_ONLY = "hash_only"
    NOT_KEPT = "not_kept"
    MISSING = "missing"
    UNRECORDED = "unrecorded"


@dataclass(frozen=True, slots=True)
class Entry:
    """A detection record and its place; `id` is its name, without the day. `at` is in UTC."""

    key: str
    at: datetime
    record: DetectionRecord

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return PurePosixPath(self.key).stem

    @classmethod
    def parse(cls, key: str, data: bytes) -> Self:
        """Raises ValueError on what is no record, or says of no content when it was seen."""
        record = DetectionRecord.from_json(data)
        at = datetime.fromisoformat(record.at)
        if at.tzinfo != UTC or not (record.sha256 == "" or _SHA256.fullmatch(record.sha256)):
            raise ValueError("no detection record")
        return cls(key, at, record)


@dataclass(frozen=True, slots=True)
class SealedSample:
    """An envelope in the store. `size` is its own, in bytes; `stored` Unix time."""

    key: str
    recipients: str
    sha256: str
    size: int
    stored: float

    @classmethod
    def of(cls, stored: Stored) -> Self | None:
        """None where this is the name of no sample."""
        found = _OBJECT.fullmatch(stored.key)
        if found is None:
            return None
        return cls(stored.key, found["recipients"], found["sha256"], stored.size, stored.modified)


@dataclass(frozen=True, slots=True)
class Content:
    """All that is known of one content; `entries` the newest first. A record without a hash stands alone.

    Not all `markers` count.
    """

    sha256: str
    entries: tuple[Entry, ...]
    samples: tuple[SealedSample, ...]
    markers: tuple[Marker, ...]

    @property
    def last(self) -> DetectionRecord | None:
        """The newest record."""
        return self.entries[0].record if self.entries else None

    @property
    def seen(self) -> datetime:
        """When it was last detected; of a sample without a record, when it was stored."""
        if self.entries:
            return self.entries[0].at
        return datetime.fromtimestamp(max((each.stored for each in self.samples), default=0.0), UTC)

    @property
    def signatures(self) -> tuple[str, ...]:
        """Of all records, each once."""
        return tuple(dict.fromkeys(name for entry in self.entries for name in entry.record.signatures))

    @property
    def held(self) -> bool:
        """Whether somebody wants it kept."""
        return is_held(self.markers)

    @property
    def state(self) -> State:
        """What became of its sample."""
        if self.samples:
            if self.held:
                return State.HELD
            return State.KEPT if self.entries else State.UNRECORDED
        if counting(self.markers, Kind.DELETE):
            return State.DELETED
        missing = {entry.record.missing for entry in self.entries}
        if None in missing:
            return State.MISSING
        return State.HASH_ONLY if missing == {"hash_only"} else State.NOT_KEPT


@dataclass(frozen=True, slots=True)
class Query:
    """Which detections are meant; None means any. Times have a zone; `signature` and `media` are globs.

    `hash` is the beginning of any of a content's.
    """

    since: datetime | None = None
    until: datetime | None = None
    signature: str | None = None
    hash: str | None = None
    media: str | None = None
    source: str | None = None

    def admits(self, entry: Entry) -> bool:
        """Whether this detection is one of them."""
        record = entry.record
        return (
            (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at < self.until)
            and (self.signature is None or _any_like(record.signatures, self.signature))
            and (self.hash is None or self._is_hash_of(record))
            and (self.media is None or _is_media(record.media, self.media))
            and (self.source is None or record.source == self.source)
        )

    def admits_day(self, day: datetime) -> bool:
        """Whether a record of this day may be meant: it was written a little after the detection."""
        begins, ends = day - timedelta(days=1), day + timedelta(days=1)
        return (self.since is None or ends > self.since) and (self.until is None or begins < self.until)

    def select(self, contents: Iterable[Content]) -> Iterator[Content]:
        """Contents with the detections that are meant; of samples without a record only hashes are known."""
        no_record_needed = replace(self, hash=None) == Query()
        for content in contents:
            entries = tuple(filter(self.admits, content.entries))
            if entries or (not content.entries and no_record_needed and self._begins(content.sha256)):
                yield replace(content, entries=entries)

    def _is_hash_of(self, record: DetectionRecord) -> bool:
        hashes = (record.sha256, record.sha1, record.md5, record.ciphertext_sha256 or "")
        return any(map(self._begins, hashes))

    def _begins(self, digest: str) -> bool:
        return self.hash is None or digest.startswith(self.hash.lower())


def day_of(key: str) -> datetime | None:
    """Midnight, in UTC, of the day in the name of a detection record; None where it is no such name."""
    found = _DETECTION.fullmatch(key)
    try:
        return datetime.strptime(found["day"], "%Y/%m/%d").replace(tzinfo=UTC) if found else None
    except ValueError:
        return None


def fold(
    entries: Iterable[Entry], samples: Iterable[SealedSample], markers: Iterable[Marker]
) -> list[Content]:
    """Contents, the last seen first. Markers alone make none: what they speak of is long gone."""
    recorded = _grouped(entries, lambda entry: entry.record.sha256 or entry.id)
    sealed = _grouped(samples, lambda sample: sample.sha256)
    marked = _grouped(markers, lambda marker: marker.sha256)
    names = recorded.keys() | sealed.keys()
    contents = [_content(name, recorded[name], sealed[name], marked[name]) for name in names]
    return sorted(contents, key=lambda content: (content.seen, content.sha256), reverse=True)


def _content(
    name: str, entries: Sequence[Entry], samples: Sequence[SealedSample], markers: Sequence[Marker]
) -> Content:
    newest_first = sorted(entries, key=lambda entry: (entry.at, entry.key), reverse=True)
    sha256 = name if _SHA256.fullmatch(name) else ""
    return Content(sha256, tuple(newest_first), tuple(samples), tuple(markers))


def _grouped(items: Iterable[_Item], name: Callable[[_Item], str]) -> defaultdict[str, list[_Item]]:
    groups: defaultdict[str, list[_Item]] = defaultdict(list)
    for item in items:
        groups[name(item)].append(item)
    return groups


def _any_like(names: Iterable[str], pattern: str) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for name in names)


def _is_media(media: str | None, pattern: str) -> bool:
    """As an mxc URI, or without its scheme."""
    return media is not None and fnmatchcase(media.removeprefix(_MXC), pattern.removeprefix(_MXC))
