"""Does clamd see in a file all that everybody else sees? If not, what is inside is judged, file by file.

Three answers (facts/archives.md). *Plain*: clamd's verdict suffices. *Unpacked*: each member is judged by all
engines like a file of its own, and by this one, so that archives in archives are. *Unscannable*: encrypted,
damaged, over a limit, or two readers do not see the same.

The rules of this module: whatever cannot be read to its end is unscannable, and malware in what could be read
is found all the same; who asks an engine about a member passes on what that raises, so that nothing is clean
because something failed. Time counts while we unpack, not while we wait for an engine or for our turn.

Most files are no containers: they are searched on the event loop, in steps that do not hold it, since a
thread that runs Python gains nothing and makes the loop wait for the interpreter. Containers go to worker
threads of their own: few, because each makes the loop wait; as many again as may look into big ones, so that
a small one does not wait behind them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Self

from scanner.containers.embedded import search_for_container
from scanner.containers.inspection import Part, Unsure, require
from scanner.containers.opening import Opening, inspect
from scanner.containers.pdf_objects import search_for_objects
from scanner.containers.readers import Reader
from scanner.containers.recognise import by_ends, is_pdf
from scanner.errors import EngineError
from scanner.events import ArchiveJudged, Publish
from scanner.media import STEP, Body, Sample
from scanner.ports import Engine
from scanner.unpacking.allowance import FREELY, Allowance, Unreadable
from scanner.unpacking.library import library_digest
from scanner.unpacking.unpacker import Member, Unpacker
from scanner.verdict import Outcome, Reason, Report

# Raised with every change of the rules: old verdicts are then not found any more.
_RULES = "7"
_READ_ONCE = 64 * 1024
# For how many seconds the event loop may be held.
_AT_A_GO = 0.001
_MIB = 2**20

_NO_CONTAINER = Opening("none")
# What no reader of ours opens, plain or not.
_WITHOUT_MEMBERS = frozenset({"none", "pdf", "ole2", "other"})
# A policy may hand these over: whatever else is wrong must not hide behind them.
_ENCRYPTED = frozenset({Reason.ENCRYPTED_ARCHIVE, Reason.ENCRYPTED_DOCUMENT})

_Content = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """For one file with all archives in it: as `archives` of the configuration; bytes and seconds."""

    depth: int = 8
    members: int = 10_000
    unpacked: int = 300 * _MIB
    time: float = 10.0
    ratio: int = 200


class Archive:
    """Opens with `unpacker` what clamd does not see, and has each member judged by `clamav` and `others`.

    With `others` members of plain archives are judged, too, by these alone: clamd has seen them.
    """

    name = "archive"

    def __init__(
        self,
        unpacker: Unpacker,
        clamav: Engine,
        others: Sequence[Engine] = (),
        *,
        publish: Publish,
        limits: Limits | None = None,
        queue_wait: float = 10.0,
    ) -> None:
        self._unpacker = unpacker
        self._clamav = clamav
        self._publish = publish
        self._queue_wait = queue_wait
        self._alone = asyncio.Lock()
        self._workers = ThreadPoolExecutor(2 * (os.cpu_count() or 1), thread_name_prefix="archives")
        self._take(others, limits or Limits())

    def _take(self, others: Sequence[Engine], limits: Limits) -> None:
        self._others = tuple(others)
        self._limits = limits
        self._version = f"{_RULES}/{_digest([engine.name for engine in others], limits)}"
        self._clean = Report(self.name, Outcome.CLEAN, self._version)

    def with_settings(self, others: Sequence[Engine], limits: Limits) -> Self:
        """Another with these: they share everything else."""
        other = copy(self)
        other._take(others, limits)  # noqa: SLF001 - it is one of us
        return other

    def versions(self) -> frozenset[str]:
        """One: the rules, the settings and libarchive. What engines say of members is in `Report.asked`."""
        return frozenset({self._version})

    async def scan(self, sample: Sample) -> Report:
        """The worst of what is said about the members, CLEAN if there is nothing else to be seen.

        Raises EngineError, and what engines raise about a member.
        """
        file = _Examination(self._allowance(asyncio.get_running_loop().time() + self._limits.time))
        opening = await self._opening(file, sample)
        if opening == _NO_CONTAINER:
            return self._clean
        try:
            report = await self._judged(file, sample, opening)
        except _Cramped:
            async with self._turn_alone(file):
                file = _Examination(file.allowance, self._limits.unpacked, alone=True)
                report = await self._judged(file, sample, opening)
        self._tell(file, sample, opening, report)
        return replace(report, engine=self.name, version=self._version, asked=frozenset(file.asked))

    def _allowance(self, deadline: float) -> Allowance:
        limits = self._limits
        return Allowance(limits.members, limits.unpacked, limits.ratio, deadline)

    @asynccontextmanager
    async def _turn_alone(self, file: _Examination) -> AsyncIterator[None]:
        """While it lasts no other file has more than its share of members in memory."""
        try:
            with file.waiting():
                async with asyncio.timeout(self._queue_wait):
                    await self._alone.acquire()
        except TimeoutError:
            raise EngineError("too many large archives at once", "timeout") from None
        try:
            yield
        finally:
            self._alone.release()

    def _tell(self, file: _Examination, sample: Sample, opening: Opening | Reason, report: Report) -> None:
        kind, answer, reason = _kind_of(sample, opening), "plain", None
        if report.outcome is Outcome.UNSCANNABLE:
            answer, reason = "unscannable", report.reason
        elif isinstance(opening, Opening) and self._asked_about(opening)[0]:
            answer = "unpacked"
        self._publish(ArchiveJudged(kind, answer, reason, file.members, file.size))

    # -- how a file is built ---------------------------------------------------------------------

    async def _opening(self, file: _Examination, sample: Sample) -> Opening | Reason:
        part = _part_of(sample)
        try:
            if is_pdf(part) or by_ends(part) is not None or await _has_container_inside(file, part):
                return await self._in_worker(file, part)
        except Unsure as unsure:
            return unsure.reason
        return _NO_CONTAINER

    async def _in_worker(self, file: _Examination, part: Part) -> Opening | Reason:
        abandoned = threading.Event()
        loop = asyncio.get_running_loop()
        seconds = file.allowance.deadline - loop.time()

        def timed() -> tuple[Opening | Reason, float]:
            began = time.monotonic()
            return inspect(part, seconds, abandoned.is_set), time.monotonic() - began

        try:
            with file.waiting():
                answer, taken = await loop.run_in_executor(self._workers, timed)
            file.allowance.deadline -= taken
        finally:
            abandoned.set()
        return answer

    def _asked_about(self, opening: Opening) -> tuple[tuple[Reader, ...], tuple[Engine, ...]]:
        """What opens it, and which engines judge its members: neither, where clamd's verdict suffices."""
        if opening.readers:
            return opening.readers, (self._clamav, *self._others)
        if self._others and opening.kind not in _WITHOUT_MEMBERS and not opening.encryption:
            return (Reader.LIBARCHIVE,), self._others
        return (), ()

    # -- what is in it ---------------------------------------------------------------------------

    async def _judged(
        self, file: _Examination, sample: Sample, opening: Opening | Reason, depth: int = 0
    ) -> Report:
        """What is said about a container's members; each reader's view of them counts."""
        if isinstance(opening, Reason):
            return _unscannable(opening)
        if opening.encryption and not await self._needs_password(file, sample):
            return _unscannable(Reason.AMBIGUOUS)
        readers, engines = self._asked_about(opening)
        if readers and depth > self._limits.depth:
            return _unscannable(Reason.LIMIT)
        worst = _unscannable(*sorted(opening.encryption)) if opening.encryption else self._clean
        views = [_View(reader, engines, depth) for reader in readers]
        for view in views:
            if not depth:  # innocent contents are the same, and are not to cost twice
                file.allowance = self._allowance(file.allowance.deadline)
            worst = _worse(worst, await self._seen(file, sample, view))
            if worst.outcome is Outcome.INFECTED:
                return worst
        if any(view.contents != views[0].contents for view in views):
            worst = _worse(worst, _unscannable(Reason.READERS_DISAGREE))
        return worst

    async def _needs_password(self, file: _Examination, sample: Sample) -> bool:
        """A PDF that clamd opens everybody does, and reads what clamd did not see in it."""
        if not is_pdf(_part_of(sample)):
            return True
        return (await _asked(file, self._clamav, sample)).reason is Reason.ENCRYPTED_DOCUMENT

    async def _seen(self, file: _Examination, sample: Sample, view: _View) -> Report:
        """What is said about the members that one reader sees."""
        worst = self._clean
        try:
            with sample.as_file() as fd:
                found = self._unpacker.members(fd, view.reader, file.allowance, file.room)
                async with aclosing(found) as members:
                    async for member in members:
                        worst = _worse(worst, await self._judged_member(file, member, view))
                        if worst.outcome is Outcome.INFECTED:
                            break
        except Unreadable as problem:
            file.check_room(problem)
            worst = _worse(worst, _unscannable(problem.reason))
        return worst

    async def _judged_member(self, file: _Examination, member: Member, view: _View) -> Report:
        """What is said about one member, if its content is new."""
        body = await _body_of(member)
        try:
            content = body.sha256, body.size
            view.contents[content] += 1
            if not file.is_new(content):
                return self._clean
            with file.holding(body.size):
                report = await self._judged_content(file, Sample(body), view)
        finally:
            body.release()
        return replace(report, detections=tuple(found.inside(member.path) for found in report.detections))

    async def _judged_content(self, file: _Examination, sample: Sample, view: _View) -> Report:
        """By the engines, and by what is in it."""
        worst = self._clean
        for engine in view.engines:
            worst = _worse(worst, await _asked(file, engine, sample))
            if worst.outcome is Outcome.INFECTED:
                return worst
        opening = await self._opening(file, sample)
        return _worse(worst, await self._judged(file, sample, opening, view.depth + 1))


class _Cramped(Exception):
    """The members of a file need more memory than each file may take."""


@dataclass(slots=True)
class _Examination:
    """One file being looked into with all that is in it. Of members, `room` bytes more may be in memory."""

    allowance: Allowance
    room: int = FREELY
    alone: bool = False
    asked: set[tuple[str, str | None]] = field(default_factory=set)
    _contents: set[_Content] = field(default_factory=set)

    @property
    def members(self) -> int:
        """How many there were of different content."""
        return len(self._contents)

    @property
    def size(self) -> int:
        """What these come to."""
        return sum(size for _, size in self._contents)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time that does not count. Uvloop's own clock stands still between its turns."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.allowance.deadline += time.monotonic() - began

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        self.room -= size
        try:
            yield
        finally:
            self.room += size

    def is_new(self, content: _Content) -> bool:
        """Each content is judged once, however often it is there."""
        before = len(self._contents)
        self._contents.add(content)
        return len(self._contents) > before

    def check_room(self, problem: Unreadable) -> None:
        """Raises _Cramped where the limit may be the memory's and not the configuration's."""
        if problem.reason is Reason.LIMIT and not self.alone and 0 <= self.room < self.allowance.size:
            raise _Cramped


@dataclass(slots=True)
class _View:
    """What one reader sees in a container, who judges it, and how deep it lies."""

    reader: Reader
    engines: tuple[Engine, ...]
    depth: int
    contents: Counter[_Content] = field(default_factory=Counter)


def _part_of(sample: Sample) -> Part:
    """A small one is read once."""
    if sample.size <= _READ_ONCE:
        return Part.of(sample.head(sample.size))
    return Part(sample.read, 0, sample.size)


def _kind_of(sample: Sample, opening: Opening | Reason) -> str:
    if isinstance(opening, Opening):
        return opening.kind
    part = _part_of(sample)
    found = by_ends(part)
    return found.kind if found is not None else "pdf" if is_pdf(part) else "other"


async def _has_container_inside(file: _Examination, part: Part) -> bool:
    """Raises Unsure where time is over first, and for what is in the part."""
    now, began = asyncio.get_running_loop().time, time.monotonic()
    for found in chain(search_for_container(part), search_for_objects(part)):
        if found:
            return True
        if time.monotonic() - began > _AT_A_GO:
            with file.waiting():
                await asyncio.sleep(0)
            require(now() < file.allowance.deadline, Reason.TIME_LIMIT)
            began = time.monotonic()
    return False


async def _body_of(member: Member) -> Body:
    """Hashed in steps that do not hold the event loop."""
    sha256 = hashlib.sha256()
    try:
        for offset in range(0, member.size, STEP):
            if offset:
                await asyncio.sleep(0)
            sha256.update(os.pread(member.fd, STEP, offset))
    except BaseException:
        os.close(member.fd)
        raise
    return Body(member.fd, member.size, sha256.digest(), None)


async def _asked(file: _Examination, engine: Engine, sample: Sample) -> Report:
    with file.waiting():
        report = await engine.scan(sample)
    if report.outcome is Outcome.FAILED:
        raise EngineError(f"{engine.name} could not judge what is inside: {report.reason}", "unavailable")
    file.asked.add((engine.name, report.version))
    return report


def _unscannable(reason: Reason, *also: Reason) -> Report:
    return Report(Archive.name, Outcome.UNSCANNABLE, reason=reason, also=frozenset(also))


def _worse(one: Report, other: Report) -> Report:
    """The first of two that weigh the same; the reasons of both, where that is all that is wrong."""
    worst = max(one, other, key=lambda report: (report.outcome, report.reason not in _ENCRYPTED))
    if worst.outcome is not Outcome.UNSCANNABLE:
        return worst
    reasons = {reason for each in (one, other) for reason in (each.reason, *each.also) if reason is not None}
    return replace(worst, also=frozenset(reasons - {worst.reason}))


def _digest(names: Sequence[str], limits: Limits) -> str:
    """Of all that a verdict depends on, beside the rules."""
    return hashlib.sha256(repr((sorted(names), limits, library_digest())).encode()).hexdigest()[:16]
