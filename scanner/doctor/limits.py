"""Whether clamd looks as far into files as we rely on, and says so where it does not.

Found by probes, never by reading a file: what counts is how the clamd that runs behaves (facts/security.md,
section 2, has what it answers under which settings).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from scanner.containers.inspection import MAX_DEPTH, MAX_INFLATED
from scanner.doctor import probes
from scanner.doctor.finding import Notes
from scanner.doctor.prober import Answer, Prober
from scanner.doctor.words import size
from scanner.verdict import Outcome

_MIB = 2**20
_MEMBERS = 1000
# A file inside an archive beyond what we ourselves still follow: seconds of work for clamd.
_LARGE_FILE = MAX_INFLATED // _MIB + 1
_LARGE_FILE_TIMEOUT = 12.0
# Between MaxFileSize and half of MaxScanSize as Debian has them, and as upstream has them.
_TELLING_SIZES = (40, 160)
_FILLING = 20

_FORMATS: tuple[tuple[str, str, Callable[[], bytes]], ...] = (
    ("ZIP", "ScanArchive yes", probes.archive),
    ("PDF", "ScanPDF yes", probes.pdf),
    ("mail", "ScanMail yes", probes.mail),
)
_LOG = "look at clamd's log; is there room in its TemporaryDirectory?"


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do about a setting: of clamd.conf where it is the operator's, else of ours."""

    embedded: bool
    media_size: int

    def set(self, *settings: str) -> str:
        """Have these lines in clamd.conf."""
        if self.embedded:
            return "lower limits.media_size, or name a clamd of your own in clamav.addresses"
        return f"set {', '.join(settings)} in clamd.conf and restart clamd"

    @property
    def sizes(self) -> str:
        """The two limits, far above any media, and equal: else clamd skips in silence."""
        most = max(400, -(-4 * self.media_size // _MIB))
        return self.set(f"MaxFileSize {most}M", f"MaxScanSize {most}M")


async def examine(notes: Notes, prober: Prober, remedy: Remedy) -> None:
    """Every limit that a probe can show."""
    if not await _formats(notes, prober, remedy):
        notes.skipped("limits", "they show in archives, which it does not look into")
        return
    await _media_size(notes, prober, remedy)
    await _counted(notes, prober, remedy)
    alerts = await _alert_exceeds_max(notes, prober, remedy)
    await _max_file_size(notes, prober, remedy, alerts=alerts)
    await _alert_encrypted(notes, prober, remedy)


async def _formats(notes: Notes, prober: Prober, remedy: Remedy) -> bool:
    """Whether it looks into archives, at least."""
    asked = {name: await prober.ask(make()) for name, _, make in _FORMATS}
    missed = [name for name, answer in asked.items() if answer.outcome is not Outcome.INFECTED]
    if missed:
        settings = [setting for name, setting, _ in _FORMATS if name in missed]
        notes.failed("formats", f"does not look into {', '.join(missed)}", remedy.set(*settings))
    else:
        notes.ok("formats", f"looks into {', '.join(asked)}")
    return "ZIP" not in missed


async def _media_size(notes: Notes, prober: Prober, remedy: Remedy) -> None:
    largest = await asyncio.to_thread(probes.large_archive, remedy.media_size)
    what = f"a file of {size(remedy.media_size)} (limits.media_size)"
    answer = await prober.ask(largest)
    _note_coverage(notes, "media size", answer, what, remedy.sizes, limited=notes.failed)
    await _stream_length(notes, prober, remedy, largest, unstreamed=answer)


async def _stream_length(
    notes: Notes, prober: Prober, remedy: Remedy, largest: bytes, unstreamed: Answer
) -> None:
    answer = await prober.ask(largest, streamed=True) if prober.descriptors else unstreamed
    advice = remedy.set(f"StreamMaxLength {-(-remedy.media_size * 5 // 4 // _MIB)}M")
    if answer.result == "limit":
        found = f"a stream of {size(remedy.media_size)} (limits.media_size) is cut off"
        if prober.descriptors:
            notes.warning("StreamMaxLength", f"{found}; matters only without descriptors", advice)
        else:
            notes.failed("StreamMaxLength", found, advice)
    elif answer.outcome is Outcome.FAILED:
        notes.failed("StreamMaxLength", answer.info, _LOG)
    else:
        notes.ok("StreamMaxLength", f"takes a stream of {size(remedy.media_size)}")


async def _counted(notes: Notes, prober: Prober, remedy: Remedy) -> None:
    nested = await prober.ask(probes.nested_archive(MAX_DEPTH))
    what = f"{MAX_DEPTH} archives in each other"
    _note_coverage(notes, "MaxRecursion", nested, what, remedy.set("MaxRecursion 17"), limited=notes.warning)
    many = await prober.ask(probes.archive(*[1] * _MEMBERS))
    what = f"{_MEMBERS} files in an archive"
    _note_coverage(notes, "MaxFiles", many, what, remedy.set("MaxFiles 10000"), limited=notes.warning)


def _note_coverage(
    notes: Notes, name: str, answer: Answer, what: str, advice: str, limited: Callable[[str, str, str], None]
) -> None:
    if answer.outcome is Outcome.INFECTED:
        notes.ok(name, f"looks into {what}")
    elif answer.outcome is Outcome.UNSCANNABLE:
        limited(name, f"withholds {what}: {answer.info}", advice)
    elif answer.outcome is Outcome.CLEAN:
        notes.failed(name, f"calls {what} clean without a look", advice)
    elif answer.result == "limit":
        notes.skipped(name, "cannot be seen before StreamMaxLength is enough")
    else:
        notes.failed(name, answer.info, _LOG)


async def _alert_exceeds_max(notes: Notes, prober: Prober, remedy: Remedy) -> bool:
    answer = await prober.ask(probes.too_deep_archive())
    if answer.outcome is Outcome.FAILED:
        notes.failed("AlertExceedsMax", answer.info, _LOG)
    elif answer.outcome is Outcome.CLEAN:
        found = "calls clean what is beyond its limits"
        notes.failed("AlertExceedsMax", found, remedy.set("AlertExceedsMax yes"))
        return False
    else:
        notes.ok("AlertExceedsMax", "says what is beyond its limits")
    return True


async def _max_file_size(notes: Notes, prober: Prober, remedy: Remedy, *, alerts: bool) -> None:
    """A file in a ZIP above MaxFileSize is skipped without a word while MaxScanSize is larger."""
    silent = await (_skips_at(prober) if not alerts else _skips_large_file(prober))
    name = "MaxFileSize"
    if isinstance(silent, Answer):
        found = "cannot be told without AlertExceedsMax" if silent.cause is None else silent.info
        notes.skipped(name, found, "then run doctor again" if silent.cause is None else _LOG)
    elif silent:
        found = f"a {silent} MiB file in an archive is skipped in silence: MaxScanSize is larger"
        notes.failed(name, found, remedy.sizes)
    else:
        notes.ok(name, "no file in an archive is skipped in silence")


async def _skips_large_file(prober: Prober) -> int | Answer:
    """MiB of a file that is skipped, 0 for none; the answer, if there was no usable one."""
    probe = await asyncio.to_thread(probes.archive_of_large_file, _LARGE_FILE)
    answer = await prober.ask(probe, within=_LARGE_FILE_TIMEOUT)
    if answer.outcome is Outcome.FAILED:
        return answer
    return _LARGE_FILE if answer.outcome is Outcome.CLEAN else 0


async def _skips_at(prober: Prober) -> int | Answer:
    """As above, of a clamd that never says that a limit was reached.

    What is not seen may be beyond either limit. So look for a file that is not seen, though MaxScanSize
    allows twice as much in smaller ones.
    """
    answer = Answer(Outcome.CLEAN)
    for large in _TELLING_SIZES:
        small_ones = [_FILLING * _MIB] * (2 * large // _FILLING)
        answer = await prober.ask(await asyncio.to_thread(probes.archive, *small_ones))
        if answer.outcome is not Outcome.INFECTED:
            break
        answer = await prober.ask(await asyncio.to_thread(probes.archive_of_large_file, large))
        if answer.outcome is not Outcome.INFECTED:
            return large if answer.outcome is Outcome.CLEAN else answer
    return answer


async def _alert_encrypted(notes: Notes, prober: Prober, remedy: Remedy) -> None:
    answer = await prober.ask(probes.encrypted_archive())
    if answer.outcome is Outcome.CLEAN:
        found = "calls an archive with a password clean"
        notes.failed("AlertEncrypted", found, remedy.set("AlertEncrypted yes"))
    elif answer.outcome is Outcome.FAILED:
        notes.failed("AlertEncrypted", answer.info, _LOG)
    else:
        notes.ok("AlertEncrypted", "says what has a password")
