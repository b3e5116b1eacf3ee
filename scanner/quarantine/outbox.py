"""Where a detection is safe before its refusal goes out: sealed, flushed to the disk, shipped later.

    samples/v1+objects+<recipients>+sha256+ab+cd+<sha256>    an envelope, a content once
    records/v1+detections+2026+11+21+<id>.json               a record, once a content, media ID and day
    records/v1+deliveries+<sha256>+<replica>                 who had been given a content, an envelope
    drafts/                                                  what is being written

Names are those in the store. A file appears whole or not at all; after a SIGKILL drafts are removed, the
rest is shipped. Nothing here is readable without the SOC's key but hashes, media IDs and signature names.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Self

from scanner import durable
from scanner.crypto.envelope import CHUNK, Mode, Sealer
from scanner.events import Detected, Publish, QuarantineFailed
from scanner.media import Sample
from scanner.quarantine.delivery_records import DeliveryRecord, Witness, sealed
from scanner.quarantine.layout import ROOT, deliveries_key, detection_key, fingerprint, identity, object_key
from scanner.quarantine.records import DetectionRecord
from scanner.single_flight import SingleFlight
from scanner.verdict import Hashes, Outcome, Verdict

HASH_ONLY = "hash_only"
_NOT_WRITTEN = "not written"
_MOST_REMEMBERED = 100_000
# fsync is what they wait for: together, they wait for the same write of the file system's journal.
_WRITERS = 4
_BLOCK = 4096
_LEAST_FOR_RECORDS = 64 * 2**20
_SLASH = "+"


class Outbox:
    """A Quarantine below `directory`; use it as an async context manager.

    Samples are sealed to `public_keys`, as `mode` says, and take `size` bytes of disk at most; records an
    eighth of that beside them. Where `keep_encrypted` is false nobody gives us encrypted ones to `keep`, and
    records say why there is none. `wake` is called when there is something to ship; `witness`, which notes
    deliveries here, stands in the records.
    """

    def __init__(
        self,
        directory: Path,
        *,
        public_keys: Sequence[bytes],
        mode: Mode = Mode.ANY,
        size: int,
        outcomes: frozenset[Outcome] = frozenset({Outcome.INFECTED}),
        keep_encrypted: bool = True,
        publish: Publish,
    ) -> None:
        self.outcomes = outcomes
        self.wake: Callable[[], None] = lambda: None
        self.witness: Witness | None = None
        self._samples = _Folder(directory / "samples", size)
        self._records = _Folder(directory / "records", max(size // 8, _LEAST_FOR_RECORDS))
        self._drafts = directory / "drafts"
        self._numbers = itertools.count()
        self._public_keys = tuple(public_keys)
        self._mode = mode
        self._recipients = fingerprint(public_keys)
        self._keep_encrypted = keep_encrypted
        self._publish = publish
        self._recorded: dict[str, None] = {}
        self._recording: SingleFlight[str, None] = SingleFlight()

    async def __aenter__(self) -> Self:
        """Raises OSError where the directory cannot be used, EnvelopeError where a public key cannot."""
        Sealer(self._public_keys, 0, self._mode)
        self._loop = asyncio.get_running_loop()
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="outbox")
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._writers.shutdown)

    @property
    def held(self) -> int:
        """Bytes of disk that waiting samples and records take; a gauge."""
        return self._samples.held + self._records.held

    @property
    def pending(self) -> int:
        """Samples and records that wait to be shipped; a gauge."""
        return self._samples.number + self._records.number

    def waiting(self, most: int, but: Container[Path] = ()) -> tuple[list[Path], list[Path]]:
        """Samples and records that are to be shipped, at most so many of each. Raises OSError."""
        return self._samples.some(most, but), self._records.some(most, but)

    def key_of(self, path: Path) -> str:
        """Its name in the store."""
        return path.name.replace(_SLASH, "/")

    def shipped(self, paths: Iterable[Path]) -> None:
        """The store has them: they wait no longer. Raises OSError."""
        for path in paths:
            folder = self._samples if path.parent == self._samples.path else self._records
            folder.remove(path)

    async def keep(self, sample: Sample, verdict: Verdict) -> bool:
        """Seal an opened sample and write it down durably; whether that is done."""
        hashes = verdict.hashes
        if hashes is None:
            return False
        path = self._samples.place(object_key(self._recipients, hashes.sha256))
        try:
            await asyncio.wrap_future(self._sealing(sample, path))
        except OSError as problem:
            self._publish(QuarantineFailed("outbox", hashes.sha256, _words(problem)))
            return False
        self.wake()
        return True

    async def record(self, detection: Detected) -> None:
        """Write a detection down durably, once a content, media ID (without one: source) and day.

        One that says that its sample could not be written does not stand for one that was.
        """
        now = datetime.now(UTC)
        record = self._record(detection, now)
        media = record.media or record.source
        if record.missing == _NOT_WRITTEN:
            media = f"{media} {_NOT_WRITTEN}"
        key = detection_key(now, identity(record.sha256, media))
        if key not in self._recorded:
            with self._recording.join(key, lambda: self._write_down(key, record)) as writing:
                await writing.value()

    async def _write_down(self, key: str, record: DetectionRecord) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writers, self._put, key, record.to_json())
        except OSError as problem:
            self._publish(QuarantineFailed("outbox", record.sha256, _words(problem)))
            return
        self._recorded[key] = None
        if len(self._recorded) > _MOST_REMEMBERED:
            del self._recorded[next(iter(self._recorded))]
        self.wake()

    def _record(self, detection: Detected, now: datetime) -> DetectionRecord:
        occasion, verdict = detection.occasion, detection.verdict
        hashes = verdict.hashes or Hashes("", "", "")
        missing = None
        if occasion.encrypted and not self._keep_encrypted:
            missing = HASH_ONLY
        elif not verdict.kept:
            missing = _NOT_WRITTEN
        return DetectionRecord(
            at=now.isoformat(timespec="milliseconds"),
            sha256=hashes.sha256,
            sha1=hashes.sha1,
            md5=hashes.md5,
            size=detection.size,
            mime_type=verdict.mime_type,
            verdict=verdict.outcome.name.lower(),
            signatures=tuple(dict.fromkeys(found.signature for found in verdict.detections)),
            engines=verdict.versions or {},
            media=str(occasion.ref) if occasion.ref is not None else None,
            source=occasion.source,
            encrypted=occasion.encrypted,
            ciphertext_sha256=detection.ciphertext_sha256,
            request_id=occasion.request_id,
            sample=object_key(self._recipients, hashes.sha256) if missing is None else None,
            missing=missing,
            replica=self.witness.replica if self.witness else None,
            noted_since=self.witness.since if self.witness else None,
        )

    # -- in threads ------------------------------------------------------------------------------

    def tell(self, record: DeliveryRecord) -> None:
        """Seal who was given a content, and write it down durably, in the caller's thread. Raises OSError."""
        key = deliveries_key(record.sha256, record.replica)
        self._put(key, sealed(record, self._public_keys))
        self._loop.call_soon_threadsafe(self.wake)

    def _open(self) -> None:
        for directory in (self._samples.path, self._records.path, self._drafts):
            durable.make_directory(directory)
        for draft in self._drafts.iterdir():
            draft.unlink()
        self._samples.count()
        self._records.count()

    def _sealing(self, sample: Sample, path: Path) -> Future[None]:
        """The sample stays open for the thread, whoever still waits for it."""
        own = sample.own_file()
        future = self._writers.submit(self._seal, own, sample.size, path)
        future.add_done_callback(lambda _: os.close(own))
        return future

    def _seal(self, fd: int, size: int, path: Path) -> None:
        if path.exists():
            durable.flush(path.parent)  # whoever writes it may not have come so far
            return
        sealer = Sealer(self._public_keys, size, self._mode)
        self._write(self._samples, path, _envelope(sealer, fd), sealer.header.stored_size)

    def _put(self, key: str, content: bytes) -> None:
        self._write(self._records, self._records.place(key), iter([content]), len(content))

    def _write(self, folder: _Folder, path: Path, pieces: Iterator[bytes], size: int) -> None:
        if not folder.take(size):
            raise OSError("the outbox is full")
        new = False
        try:
            new = durable.write(path, pieces, self._drafts / str(next(self._numbers)))
        finally:
            if not new:
                folder.give(size)


class _Folder:
    """Files below `path` that wait to be shipped, and the room that they take; used by several threads."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.held = 0
        self.number = 0
        self._size = size
        self._lock = threading.Lock()

    def place(self, key: str) -> Path:
        """Where what is `key` in the store waits."""
        return self.path / key.replace("/", _SLASH)

    def some(self, most: int, but: Container[Path]) -> list[Path]:
        """Any: to sort them all would take the longer the more there are."""
        with os.scandir(self.path) as entries:
            ours = (Path(entry.path) for entry in entries if entry.name.startswith(f"{ROOT}{_SLASH}"))
            return list(islice((path for path in ours if path not in but), most))

    def count(self) -> None:
        """What is there at the start."""
        with os.scandir(self.path) as entries:
            sizes = [_on_disk(entry.stat().st_size) for entry in entries]
        self.held, self.number = sum(sizes), len(sizes)

    def take(self, size: int) -> bool:
        """Room for one more file, if there is."""
        with self._lock:
            if self.held + _on_disk(size) > self._size:
                return False
            self.held += _on_disk(size)
            self.number += 1
            return True

    def give(self, size: int) -> None:
        """Room of a file that is not there."""
        with self._lock:
            self.held -= _on_disk(size)
            self.number -= 1

    def remove(self, path: Path) -> None:
        """Raises OSError."""
        size = path.stat().st_size
        path.unlink()
        self.give(size)


def _on_disk(size: int) -> int:
    """Whole blocks: a million small files fill a disk as well."""
    return -(-size // _BLOCK) * _BLOCK


def _envelope(sealer: Sealer, fd: int) -> Iterator[bytes]:
    """The header with the first chunk: each piece is a system call."""
    begin = sealer.header.to_bytes()
    for index in range(sealer.header.chunks):
        yield begin + sealer.seal(index, os.pread(fd, CHUNK, index * CHUNK))
        begin = b""


def _words(problem: OSError) -> str:
    return problem.strerror or str(problem)
