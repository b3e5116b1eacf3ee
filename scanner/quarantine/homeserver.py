"""The homeserver learns of it: infected media are quarantined there, and released again.

What is wanted stands in a file before anybody is refused, so that no SIGKILL loses it, and is tried until the
homeserver agrees: at first within a second, later after up to 5 minutes, and at once when something new is
wanted. No request ever waits for the homeserver. What was done stays in the file, for the day on which its
content is released.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from scanner.errors import ScannerError
from scanner.events import Detected, HomeserverTold, Publish, Source
from scanner.media import MediaRef
from scanner.sqlite_file import SqliteFile
from scanner.verdict import Outcome

# Tells the homeserver; the result is a word for metrics and log. May raise any ScannerError.
Tell = Callable[[MediaRef], Awaitable[str]]

# Seconds that a refusal waits for the file, at most: more than any disk takes that is well.
_PATIENCE = 1.0
_FIRST_RETRY = 1.0
_LONGEST_RETRY = 300.0
# Seconds of failure after which readiness warns: a homeserver that restarts is none of anybody's business.
_LONG = 300.0
_POLL = 5.0
_MOST_REMEMBERED = 100_000
_MOST_WANTED = 50_000
_TOO_MANY = "too many wait for the disk: quarantine it by hand, or have it scanned again"
_MOST_DONE = 1_000_000
_AT_ONCE = 100
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS media (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL,
        quarantine INTEGER NOT NULL, done INTEGER NOT NULL, tried REAL NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS contents ON media (sha256)",
    "CREATE INDEX IF NOT EXISTS waiting ON media (tried) WHERE NOT done",
)
_QUARANTINE = """
INSERT INTO media (name, sha256, quarantine, done, tried) VALUES (?, ?, 1, 0, 0)
ON CONFLICT DO UPDATE SET quarantine = 1, done = 0, tried = 0, sha256 = excluded.sha256
WHERE NOT quarantine"""
_RELEASE = "UPDATE media SET quarantine = 0, done = 0, tried = 0 WHERE sha256 = ? AND quarantine"
_WAITING = "SELECT name, quarantine FROM media WHERE NOT done ORDER BY tried LIMIT ?"
# Unless something else was wanted meanwhile.
_DONE = "UPDATE media SET done = 1 WHERE name = ? AND quarantine = ?"
_TRIED = "UPDATE media SET tried = ? WHERE name = ?"
_PRUNE = "DELETE FROM media WHERE done AND id <= (SELECT max(id) FROM media) - ?"
T = TypeVar("T")


class _Wish(NamedTuple):
    """A media to quarantine, or all media of a content to release."""

    sha256: str
    media: str | None


class HomeserverQuarantine:
    """Use it as an async context manager, `record` each detection, and `run` it in the background.

    The list lies in `path`. `quarantine` and `release` tell the homeserver.
    """

    def __init__(self, path: Path, *, quarantine: Tell, release: Tell, publish: Publish) -> None:
        self.pending = 0
        self._file = SqliteFile(path, _SCHEMA)
        self._quarantine = quarantine
        self._release = release
        self._publish = publish
        self._wishes: dict[_Wish, None] = {}
        self._wished: OrderedDict[str, None] = OrderedDict()
        self._writing: asyncio.Task[None] | None = None
        self._unwritable = False
        self._woken = asyncio.Event()
        self._trying = self._problem = ""
        self._failing_since: float | None = None

    async def __aenter__(self) -> Self:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="homeserver-quarantine")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writing is not None:
            await self._writing
        if self._wishes:
            await self._write_all()
        await self._in_worker(self._file.close)
        self._worker.shutdown(wait=False)

    async def record(self, detection: Detected) -> None:
        """Write down that infected media are to be quarantined; does not raise.

        Unless the policy only observes, or they never came there.
        """
        decision, occasion, hashes = detection.decision, detection.occasion, detection.verdict.hashes
        if decision.outcome is not Outcome.INFECTED or decision.observed:
            return
        stored = occasion.source not in (Source.UPLOAD, Source.INSPECT)
        if stored and occasion.ref is not None and hashes is not None:
            await self.want(hashes.sha256, occasion.ref)

    async def want(self, sha256: str, ref: MediaRef) -> None:
        """Have a media quarantined whose content (plaintext) has this hash; returns when that is written.

        While the file cannot be written nobody waits for it: `run` tries again.
        """
        if str(ref) in self._wished:
            return
        if len(self._wishes) >= _MOST_WANTED:
            self._publish(HomeserverTold(str(ref), "failed", _TOO_MANY))
            return
        self._wish(_Wish(sha256, str(ref)))
        if self._unwritable:
            return
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await asyncio.wait({self._writing}, timeout=_PATIENCE)

    def release(self, sha256: str) -> None:
        """Have all media released that were quarantined here for this content (plaintext)."""
        self._wished.clear()
        self._wish(_Wish(sha256, None))

    @property
    def problem(self) -> str:
        """What has kept the homeserver from being told for minutes; "" if nothing has."""
        since = self._failing_since
        return self._problem if since is not None and time.monotonic() - since > _LONG else ""

    async def run(self) -> None:
        """Until cancelled."""
        retry = _FIRST_RETRY
        while True:
            self._woken.clear()
            if await self._attempt(self._work()):
                retry = _FIRST_RETRY
                await self._woken.wait()
            else:
                await asyncio.sleep(_FIRST_RETRY)
                await self._wait(retry - _FIRST_RETRY)
                retry = min(2 * retry, _LONGEST_RETRY)

    async def follow(self, released: Callable[[], frozenset[str]]) -> None:
        """Until cancelled, release what analysts released: the hashes of plaintexts."""
        before = frozenset[str]()
        while True:
            now = released()
            for sha256 in now - before:
                self.release(sha256)
            before = now
            await asyncio.sleep(_POLL)

    def _wish(self, wish: _Wish) -> None:
        self._wishes.pop(wish, None)
        self._wishes[wish] = None
        self._woken.set()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _attempt(self, work: Awaitable[None]) -> bool:
        """Whether it was done; one failure ends a round, since the next would most likely fail as well."""
        try:
            await work
        except ScannerError as problem:
            self._problem = problem.info
            self._failing_since = self._failing_since or time.monotonic()
            self._publish(HomeserverTold(self._trying, "failed", problem.info))
            return False
        self._failing_since = None
        return True

    async def _work(self) -> None:
        """Raises ScannerError where something remains."""
        self._trying = ""
        await self._write_down()
        while waiting := await self._in_worker(self._waiting):
            for media, quarantine in waiting:
                await self._tell(media, quarantine=quarantine)

    async def _write_all(self) -> None:
        """What is wanted by now, and meanwhile: who waits for this need not know who else writes."""
        try:
            await self._write_down()
            while self._wishes:
                await self._write_down()
        except ScannerError as problem:
            self._publish(HomeserverTold("", "failed", problem.info))

    async def _write_down(self) -> None:
        """One after another in the worker: when this is done, so are those before it. Raises StoreError."""
        wishes, self._wishes = self._wishes, {}
        try:
            await self._in_worker(self._list, list(wishes))
        except ScannerError:
            self._wishes, self._unwritable = wishes | self._wishes, True
            raise
        self._unwritable = False
        for wish in wishes:
            self._remember(wish)
        if any(wish.media is None for wish in self._wishes):
            self._wished.clear()

    def _remember(self, wish: _Wish) -> None:
        """What is in the file need not be written again, until something is released."""
        if wish.media is None:
            self._wished.clear()
        else:
            self._wished[wish.media] = None
        while len(self._wished) > _MOST_REMEMBERED:
            self._wished.popitem(last=False)

    async def _tell(self, media: str, *, quarantine: bool) -> None:
        """One that fails comes last the next time, so that it is in nobody's way."""
        tell = self._quarantine if quarantine else self._release
        self._trying = media
        try:
            result = await tell(MediaRef.from_mxc(media))
        except ScannerError:
            await self._in_worker(self._execute, _TRIED, time.time(), media)
            raise
        await self._in_worker(self._execute, _DONE, media, quarantine)
        self._publish(HomeserverTold(media, result))

    async def _in_worker(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)

    # -- in the thread; each raises StoreError ---------------------------------------------------

    def _list(self, wishes: Sequence[_Wish]) -> None:
        with self._file.transaction() as connection:
            for sha256, media in wishes:
                if media is None:
                    connection.execute(_RELEASE, (sha256,))
                else:
                    connection.execute(_QUARANTINE, (media, sha256))
            connection.execute(_PRUNE, (_MOST_DONE,))

    def _waiting(self) -> list[tuple[str, bool]]:
        with self._file.transaction() as connection:
            [(self.pending,)] = connection.execute("SELECT count(*) FROM media WHERE NOT done").fetchall()
            found = connection.execute(_WAITING, (_AT_ONCE,)).fetchall()
        return [(media, bool(quarantine)) for media, quarantine in found]

    def _execute(self, statement: str, *values: object) -> None:
        with self._file.transaction() as connection:
            connection.execute(statement, values)
