"""What is in an archive is judged like a file of its own, and what cannot be is unscannable."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import tarfile
import time
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path

import docx
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanner.clamd.backend import Clamd as ClamdAt
from scanner.clamd.protocol import ClamdAddress
from scanner.containers.readers import Reader
from scanner.engines.archive import Archive, Limits
from scanner.engines.clamav import ClamAV
from scanner.errors import EngineError
from scanner.events import ArchiveJudged
from scanner.media import Sample
from scanner.ports import Engine
from scanner.unpacking.allowance import Allowance
from scanner.unpacking.unpacker import Member, Unpacker
from scanner.verdict import Detection, Outcome, Reason, Report, Verdict, located
from tests.archives import (
    TEXT,
    dubious,
    encrypted,
    innocent,
    judged,
    sevenzip_of,
    streamed_zip_of,
    tar_of,
    zip64_of,
    zip_of,
)
from tests.fakes import RecordingSink, StubEngine, a_body
from tests.judging import judging_bytes
from tests.real_clamd import EICAR, Clamd

MIB = 2**20
# Small archives that need no program to be made.
SMALL = (
    zip_of({"a": TEXT}),
    streamed_zip_of({"a": TEXT, "b": b"b"}, zipfile.ZIP_STORED),
    zip64_of({"a": TEXT}),
    zip_of({"inner.zip": zip_of({"a": TEXT})}),
    tar_of({"a": TEXT}, tarfile.PAX_FORMAT),
    gzip.compress(tar_of({"a": TEXT})),
    bz2.compress(TEXT),
    lzma.compress(TEXT),
    lzma.compress(TEXT, lzma.FORMAT_ALONE),
    sevenzip_of({"a": TEXT}),
)


class Finder(StubEngine):
    """An Engine that finds EICAR at the beginning of a file; it may take `seconds`."""

    def __init__(self, name: str = "finder", seconds: float = 0.0) -> None:
        super().__init__(name)
        self._seconds = seconds

    async def scan(self, sample: Sample) -> Report:
        await asyncio.sleep(self._seconds)
        report = await super().scan(sample)
        if not sample.head(len(EICAR)).startswith(EICAR):
            return report
        found = Detection(f"Found.By-{self.name}")
        return Report(self.name, Outcome.INFECTED, report.version, Reason.MALWARE, (found,))


class Listed:
    """An Engine that knows files by their SHA-256, as a list of hashes does."""

    name = "listed"

    def __init__(self, *contents: bytes) -> None:
        self._digests = {hashlib.sha256(content).digest() for content in contents}

    def versions(self) -> frozenset[str]:
        return frozenset({"1"})

    async def scan(self, sample: Sample) -> Report:
        if await sample.digest() not in self._digests:
            return Report(self.name, Outcome.CLEAN, "1")
        return Report(self.name, Outcome.INFECTED, "1", Reason.MALWARE, (Detection("Listed"),))


class Bench:
    """The engine, with one that stands for clamd and others, and what it publishes."""

    def __init__(
        self,
        unpacker: Unpacker,
        sink: RecordingSink,
        clamav: Engine,
        others: Sequence[Engine],
        limits: Limits,
        queue_wait: float = 10.0,
    ) -> None:
        self.archive = Archive(unpacker, clamav, others, publish=sink, limits=limits, queue_wait=queue_wait)
        self._sink = sink

    async def scan(self, data: bytes) -> Report:
        with sample(data) as opened:
            return await self.archive.scan(opened)

    @property
    def told(self) -> list[ArchiveJudged]:
        return self._sink.of(ArchiveJudged)


@contextmanager
def sample(data: bytes) -> Iterator[Sample]:
    body = a_body(data)
    try:
        yield Sample(body)
    finally:
        body.release()


@asynccontextmanager
async def bench(
    clamav: Engine | None = None,
    *others: Engine,
    limits: Limits | None = None,
    queue_wait: float = 10.0,
) -> AsyncIterator[Bench]:
    sink = RecordingSink()
    async with Unpacker(sink, 4) as unpacker:
        yield Bench(unpacker, sink, clamav or Finder(), others, limits or Limits(), queue_wait)


def closed(limits: Limits | None = None) -> Bench:
    """One that opens nothing."""
    sink = RecordingSink()
    return Bench(Unpacker(sink, 4), sink, Finder(), (), limits or Limits())


def ar_of(files: dict[str, bytes]) -> bytes:
    """As `ar` and dpkg-deb write it."""
    archive = b"!<arch>\n"
    for name, content in files.items():
        archive += f"{name + '/':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        archive += content + b"\n" * (len(content) % 2)
    return archive


def crooked(archive: bytes) -> bytes:
    """A ZIP with bytes of nobody between its files and its directory, as some programs leave them."""
    end = archive.rfind(b"PK\5\6")
    start = int.from_bytes(archive[end + 16 : end + 20], "little")
    moved = (start + 16).to_bytes(4, "little")
    return archive[:start] + bytes(16) + archive[start : end + 16] + moved + archive[end + 20 :]


def large(end: bytes) -> bytes:
    """An archive whose one member is larger than what each file may have in memory."""
    return crooked(zip_of({"large": bytes(33 * MIB) + end}))


def opaque(files: dict[str, bytes]) -> bytes:
    """An archive into which clamd does not see."""
    return zip_of(files, zipfile.ZIP_LZMA)


def office_files() -> dict[str, bytes]:
    """As their libraries write them; one holds a stored workbook, as a presentation with a chart does."""
    document, workbook = io.BytesIO(), io.BytesIO()
    text = docx.Document()
    text.add_paragraph("Lorem ipsum " * 100)
    text.save(document)
    sheet = openpyxl.Workbook()
    sheet.save(workbook)
    presentation = io.BytesIO()
    with zipfile.ZipFile(presentation, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("ppt/embeddings/Sheet1.xlsx", workbook.getvalue(), zipfile.ZIP_STORED)
        archive.writestr("ppt/presentation.xml", TEXT)
    text_document = io.BytesIO()
    with zipfile.ZipFile(text_document, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text", zipfile.ZIP_STORED)
        archive.writestr("content.xml", TEXT)
        archive.writestr("META-INF/manifest.xml", "<manifest:manifest/>")
    files = {"docx": document, "xlsx": workbook, "pptx": presentation, "odt": text_document}
    return {kind: buffer.getvalue() for kind, buffer in files.items()}


# -- plain ---------------------------------------------------------------------------------------


async def test_a_plain_file_is_clean_under_the_version_of_the_rules_and_settings() -> None:
    for content in (b"hello", zip_of({"a": TEXT})):
        report = await closed().scan(content)
        assert report == Report("archive", Outcome.CLEAN, next(iter(closed().archive.versions())))


async def test_what_is_no_container_is_not_counted() -> None:
    plain = closed()
    await plain.scan(b"hello")
    await plain.scan(zip_of({"a": TEXT}))
    assert plain.told == [ArchiveJudged("zip", "plain")]


async def test_other_limits_and_other_judges_are_other_versions() -> None:
    archive = closed().archive
    others = [
        archive.with_settings((), Limits(depth=3)),
        archive.with_settings((), Limits(ratio=100)),
        archive.with_settings((Finder("other"),), Limits()),
    ]
    versions = [next(iter(each.versions())) for each in (archive, *others)]
    assert len(set(versions)) == len(versions)
    assert archive.with_settings((), Limits()).versions() == archive.versions()


async def test_running_out_of_time_is_unscannable() -> None:
    late = closed(Limits(time=-1.0))
    report = await late.scan(zip_of({"a": TEXT}))
    assert (report.outcome, report.reason) == (Outcome.UNSCANNABLE, Reason.TIME_LIMIT)
    assert [(told.answer, told.reason) for told in late.told] == [("unscannable", Reason.TIME_LIMIT)]


async def test_a_large_file_leaves_the_loop_to_others() -> None:
    """A container of 20 MB is judged in a worker thread; meanwhile the loop turns."""
    archive = zip_of({str(i): random.Random(i).randbytes(1 << 20) for i in range(19)}, zipfile.ZIP_STORED)
    turns, scan = 0, asyncio.create_task(closed().scan(archive))
    while not scan.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert (await scan).outcome is Outcome.CLEAN
    assert turns > 1


async def test_a_scan_that_nobody_waits_for_ends() -> None:
    """Else few clients that hang up at once could keep every worker busy."""
    slow = zip_of({str(i): b"\xff" + b"\xc7\x71" * 100_000 for i in range(300)})
    archive = closed(Limits(time=60.0)).archive
    with sample(slow) as hostile, sample(zip_of({"a": TEXT})) as innocent_one:
        scans = [asyncio.create_task(archive.scan(hostile)) for _ in range(40)]
        await asyncio.sleep(0.1)
        for scan in scans:
            scan.cancel()
        await asyncio.wait(scans)
        async with asyncio.timeout(10):
            assert (await archive.scan(innocent_one)).outcome is Outcome.CLEAN


@pytest.mark.alone
@pytest.mark.usefixtures("freshly_started")
async def test_a_file_full_of_signatures_leaves_the_loop_to_others() -> None:
    """Thousands of hits by chance are looked at in bits, whatever the size of the file."""
    with sample(b"\xff" + b"\xc7\x71" * 400_000 + b"PK\3\4" * 8000) as full:
        assert await longest_turn(closed().archive, full) < 0.01


@pytest.mark.alone
@pytest.mark.usefixtures("freshly_started")
async def test_an_archive_of_thousands_of_files_leaves_the_loop_to_others() -> None:
    header = b"070701" + b"%08x" * 13 % (0, 0o100644, 0, 0, 1, 0, 8, 0, 0, 0, 0, 6, 0) + b"%05d\0%08d"
    end = b"070701" + b"%08x" * 13 % (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0) + b"TRAILER!!!\0"
    archive = b"".join(header % (number, number) for number in range(3000)) + end + bytes(3)
    with sample(archive) as cpio:
        async with bench() as bare:
            assert (await bare.archive.scan(cpio)).outcome is Outcome.CLEAN
            assert bare.told[0].members == 3000
            assert await longest_turn(bare.archive, cpio) < 0.01


async def longest_turn(archive: Archive, judged: Sample) -> float:
    """The most seconds of processor time between two turns of the loop while it judges a clean file."""
    turns, scan = [time.thread_time()], asyncio.create_task(archive.scan(judged))
    while not scan.done():
        await asyncio.sleep(0)
        turns.append(time.thread_time())
    assert (await scan).outcome is Outcome.CLEAN
    return max(later - earlier for earlier, later in pairwise(turns))


@pytest.mark.slow
async def test_the_search_for_containers_counts_as_time() -> None:
    """But not what others do meanwhile."""
    content = b"\xff" + b"\xc7\x71" * 1_000_000
    assert (await closed(Limits(time=0.005)).scan(content)).reason is Reason.TIME_LIMIT
    scan = asyncio.create_task(closed(Limits(time=0.6)).scan(content))
    while not scan.done():
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251 - the loop is busy with something else
    assert (await scan).outcome is Outcome.CLEAN


async def test_an_update_of_libarchive_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = closed().archive.versions()
    monkeypatch.setattr("scanner.engines.archive.library_digest", lambda: "another")
    assert closed().archive.versions().isdisjoint(before)


@pytest.mark.slow
def test_what_programs_ordinarily_write_is_plain() -> None:
    assert {kind: judged(archive) for kind, archive in innocent(b"first").items() if judged(archive)} == {}


def test_what_is_packed_so_tightly_that_the_last_piece_needs_no_more_input_is_plain() -> None:
    archives = [zip_of({"a": bytes(2 * MIB) + bytes([number])}) for number in range(8)]
    archives += [zip_of({"a": bytes(2 * MIB + number)}) for number in range(8)]
    assert [judged(archive) for archive in archives] == [None] * len(archives)


def test_office_files_are_plain() -> None:
    assert {kind: judged(data) for kind, data in office_files().items() if judged(data)} == {}


@pytest.mark.slow
def test_dubious_archives_are_not_plain() -> None:
    assert [kind for kind, archive in dubious(EICAR).items() if judged(archive) is None] == []


@pytest.mark.real
def test_clamd_finds_eicar_in_every_kind_that_is_called_plain(strict_clamd: Clamd) -> None:
    archives = innocent(EICAR)
    assert len(archives) > 12
    missed = [kind for kind, archive in archives.items() if not strict_clamd.scan(archive).endswith("FOUND")]
    assert missed == []


# -- unpacked ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, bytes]]:
    """What clamd does not see into, by kind: with EICAR, and without."""
    return {"infected": dubious(EICAR), "clean": dubious(TEXT)}


KINDS = (
    *(
        "zst",
        "tar.zst",
        "lz4",
        "tar.lz4",
        "lzma",
        "lz",
        "tar.lz",
        "Z",
        "tar.Z",
        "deb",
        "deb-zstd",
        "newc",
        "ar-by-ar",
    ),
    *(
        "zip64-from-pipe",
        "zip-lzma",
        "zip-ppmd",
        "zip-xz",
        "7z-bzip2",
        "7z-deflate",
        "7z-ppmd",
    ),
    *("tar-in-7z", "zst-in-zip", "zip-in-zst", "deb-in-zip"),
)


@pytest.mark.real
@pytest.mark.timeout(120)
async def test_malware_is_found_where_clamd_does_not_see_it(
    strict_clamd: Clamd, made: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """And what is clean is clean."""
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        for kind in KINDS:
            assert (kind, (await judge(made["infected"][kind])).outcome) == (kind, Outcome.INFECTED)
            assert (kind, (await judge(made["clean"][kind])).outcome) == (kind, Outcome.CLEAN)


def packed(content: bytes) -> dict[str, bytes]:
    """By the place that is told: what clamd opens itself is the end of the way."""
    tar = tar_of({"folder/evil": content})
    return {
        "folder/evil": opaque({"folder/evil": content}),
        "a.zip/b.tar": opaque({"a.zip": opaque({"b.tar": tar})}),
        "data.tar": ar_of({"debian-binary": b"2.0\n", "data.tar": tar}),
        "z/inner/evil": opaque({"z": zip64_of({"inner": opaque({"evil": content})})}),
        "evil": crooked(zip_of({"evil": content})),
    }


@pytest.mark.real
async def test_a_detection_names_the_path_inside(strict_clamd: Clamd, tmp_path: Path) -> None:
    async with judging_bytes(strict_clamd, tmp_path) as judge:
        for path, data in packed(EICAR).items():
            verdict = await judge(data)
            assert located(verdict.detections) == (Detection("Eicar-Start.UNOFFICIAL", path),)
        assert {(await judge(data)).outcome for data in packed(TEXT).values()} == {Outcome.CLEAN}


@pytest.mark.real
async def test_names_in_an_archive_cannot_forge_a_line_or_lead_anywhere() -> None:
    names = ["../../evil", "/etc/evil", "a\x1b[2J\nb: clean", "caf\udce9"]
    async with bench(Finder("clamav"), Finder("other")) as bare:
        found = []
        for name in names:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
                info = tarfile.TarInfo(name)
                info.size = len(EICAR)
                tar.addfile(info, io.BytesIO(EICAR))
            report = await bare.scan(opaque({"t": buffer.getvalue()}))
            found += [each.path for each in report.detections]
    assert found == [
        "t/\\x2e\\x2e/\\x2e\\x2e/evil",
        "t/\\x2fetc/evil",
        "t/a\\x1b[2J\\x0ab: clean",
        "t/caf\\xe9",
    ]


@pytest.mark.real
async def test_every_engine_sees_what_is_inside_even_of_plain_archives() -> None:
    for pack in (opaque, zip_of, tar_of):
        async with bench(Finder(), Listed(b"a leaked plan")) as bare:
            report = await bare.scan(pack({"x": b"x", "plan.txt": b"a leaked plan"}))
            assert report.detections == (Detection("Listed", "plan.txt"),)
            assert ("listed", "1") in report.asked
            assert (await bare.scan(pack({"x": b"x"}))).outcome is Outcome.CLEAN


@pytest.mark.real
async def test_what_clamd_sees_of_a_plain_archive_is_not_asked_of_it_again() -> None:
    clamav, other = Finder(), Finder("other")
    async with bench(clamav, other) as bare:
        await bare.scan(zip_of({"a": TEXT}))
        await bare.scan(office_files()["docx"])
    assert not clamav.seen
    assert TEXT in other.seen


@pytest.mark.real
async def test_each_content_is_judged_once_and_counted() -> None:
    clamav = Finder()
    async with bench(clamav) as bare:
        await bare.scan(crooked(zip_of({"a": TEXT, "b": TEXT, "empty": b"", "c": b"c"})))
    assert sorted(clamav.seen) == sorted([TEXT, b"c"])
    assert bare.told == [ArchiveJudged("zip", "unpacked", None, 2, len(TEXT) + 1)]


@pytest.mark.real
async def test_types_hold_for_what_is_inside_where_the_policy_says_so(clamd: Clamd, tmp_path: Path) -> None:
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0\x90wS\xde"
    for where, expected in ((True, Outcome.FORBIDDEN), (False, Outcome.CLEAN)):
        policy = {"blocked_types": ["image/*"], "types_in_archives": where}
        async with judging_bytes(clamd, tmp_path, settings={"policy": policy}) as judge:
            for archive in (
                zip_of({"a.txt": png}),
                opaque({"a.txt": png}),
                opaque({"b": zip_of({"a": png})}),
            ):
                assert (await judge(archive)).outcome is expected
            assert (await judge(zip_of({"a": TEXT}))).outcome is Outcome.CLEAN


# -- unscannable ---------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize(
    ("limits", "data"),
    [
        (Limits(depth=1), opaque({"a": opaque({"b": opaque({"c": TEXT})})})),
        (Limits(members=3), opaque({str(number): bytes([number]) for number in range(4)})),
        (Limits(unpacked=10_000), opaque({"a": bytes(6_000), "b": bytes(6_001)})),
        (Limits(unpacked=10_000), opaque({"a": opaque({"b": bytes(9_990)})})),
        (Limits(ratio=20), crooked(zip_of({"a": bytes(51 * MIB)}))),
    ],
    ids=["depth", "members", "size", "size of all levels", "ratio"],
)
async def test_what_is_over_a_limit_is_unscannable(limits: Limits, data: bytes) -> None:
    async with bench(limits=limits) as bare:
        report = await bare.scan(data)
        assert (report.outcome, report.reason) == (Outcome.UNSCANNABLE, Reason.LIMIT)
        (told,) = bare.told
        assert (told.answer, told.reason) == ("unscannable", Reason.LIMIT)


@pytest.mark.real
@pytest.mark.parametrize(
    ("limits", "data"),
    [
        (Limits(depth=2), opaque({"a": opaque({"b": opaque({"c": TEXT})})})),
        (Limits(members=4), opaque({str(number): bytes([number]) for number in range(4)})),
        (Limits(unpacked=12_001), opaque({"a": bytes(6_000), "b": bytes(6_001)})),
        (
            Limits(members=4, unpacked=10_000),
            crooked(zip_of({str(number): bytes(2_000) for number in range(4)})),
        ),
    ],
    ids=["depth", "members", "size", "two readers"],
)
async def test_what_is_within_all_limits_is_judged(limits: Limits, data: bytes) -> None:
    async with bench(limits=limits) as bare:
        assert (await bare.scan(data)).outcome is Outcome.CLEAN


@pytest.mark.real
async def test_malware_is_found_in_what_cannot_be_read_to_its_end() -> None:
    whole = opaque({"evil": EICAR, "rest": random.Random(1).randbytes(9_000)})
    async with bench(limits=Limits(members=1)) as bare:
        assert (await bare.scan(whole)).outcome is Outcome.INFECTED


@pytest.mark.real
async def test_archives_behind_a_password_are_encrypted() -> None:
    archives = encrypted(EICAR)
    async with bench() as bare:
        found = {kind: (await bare.scan(data)).reason for kind, data in archives.items()}
    assert found == dict.fromkeys(archives, Reason.ENCRYPTED_ARCHIVE)


@pytest.mark.real
async def test_whatever_else_is_wrong_does_not_hide_behind_a_password() -> None:
    """A policy may deliver archives with a password, and nothing else that cannot be inspected."""
    locked = encrypted(TEXT)["zip-password"]
    both = opaque({"locked.zip": locked, "damaged.gz": gzip.compress(TEXT)[:-9]})
    async with bench() as bare:
        assert (await bare.scan(opaque({"locked.zip": locked}))).reason is Reason.ENCRYPTED_ARCHIVE
        assert (await bare.scan(both)).reason is Reason.DAMAGED


class Forgetful(Unpacker):
    """One of its readers overlooks the first member."""

    forgetful: Reader

    async def members(
        self, fd: int, reader: Reader, allowance: Allowance, largest: int
    ) -> AsyncGenerator[Member]:
        async with aclosing(super().members(fd, reader, allowance, largest)) as members:
            if reader is self.forgetful:
                os.close((await anext(members)).fd)
            async for member in members:
                yield member


@pytest.mark.real
@pytest.mark.parametrize("forgetful", [Reader.LIBARCHIVE, Reader.ZIPFILE])
async def test_what_two_readers_see_differently_is_unscannable_unless_one_of_them_sees_malware(
    forgetful: Reader,
) -> None:
    sink = RecordingSink()
    async with Forgetful(sink, 4) as unpacker:
        unpacker.forgetful = forgetful
        bare = Bench(unpacker, sink, Finder(), (), Limits())
        for hidden, expected in ((TEXT, Reason.READERS_DISAGREE), (EICAR, Reason.MALWARE)):
            assert (await bare.scan(crooked(zip_of({"a": hidden, "b": b"b"})))).reason is expected


# -- engines that fail, and others' time -----------------------------------------------------------


@pytest.mark.real
async def test_an_engine_that_fails_over_a_member_leaves_no_verdict() -> None:
    failing, refusing = StubEngine("failing"), StubEngine("refusing", Outcome.FAILED)
    failing.failure = EngineError("gone", "eof")
    for engine in (failing, refusing):
        async with bench(engine) as bare:
            with pytest.raises(EngineError):
                await bare.scan(opaque({"a": TEXT}))
            assert not bare.told


class Killer(StubEngine):
    """Ends clamd when it is asked."""

    def __init__(self, clamd: Clamd) -> None:
        super().__init__("killer")
        self._clamd = clamd

    async def scan(self, sample: Sample) -> Report:
        self._clamd.stop()
        return await super().scan(sample)


@pytest.mark.real
async def test_a_clamd_that_is_killed_between_two_members_leaves_no_verdict(private_clamd: Clamd) -> None:
    address = ClamdAt(ClamdAddress.parse(f"unix:{private_clamd.socket}"))
    async with (
        ClamAV([address], publish=RecordingSink()) as clamav,
        bench(clamav, Killer(private_clamd)) as bare,
    ):
        with pytest.raises(EngineError):
            await bare.scan(opaque({"a": TEXT, "b": b"b"}))


@pytest.mark.real
async def test_a_verdict_under_two_versions_of_an_engine_is_not_remembered() -> None:
    class Updated(StubEngine):
        async def scan(self, sample: Sample) -> Report:
            report = await super().scan(sample)
            self.version = "2"
            return report

    engine = Updated("clamav")
    async with bench(engine) as bare:
        report = await bare.scan(opaque({"a": TEXT, "b": b"b"}))
    assert report.asked == {("clamav", "1"), ("clamav", "2")}
    for version in ("1", "2"):
        assert Verdict((Report("clamav", Outcome.CLEAN, version), report)).versions is None


@pytest.mark.real
async def test_what_an_engine_takes_is_not_the_archives_time() -> None:
    contents = {str(number): bytes([number]) for number in range(6)}
    async with bench(Finder(seconds=0.3), limits=Limits(time=1.0)) as bare:
        assert (await bare.scan(opaque(contents))).outcome is Outcome.CLEAN


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.real
async def test_large_members_are_judged_in_one_file_at_a_time() -> None:
    at_once, most = 0, 0

    class Watching(StubEngine):
        async def scan(self, sample: Sample) -> Report:
            nonlocal at_once, most
            at_once += sample.size > 32 * MIB
            most = max(most, at_once)
            await asyncio.sleep(0.1)
            at_once -= sample.size > 32 * MIB
            return Report(self.name, Outcome.CLEAN, "1")

    files = [large(bytes([number])) for number in range(3)]
    async with bench(Watching()) as bare:
        reports = await asyncio.gather(*(bare.scan(data) for data in files))
    assert {report.outcome for report in reports} == {Outcome.CLEAN}
    assert most == 1


@pytest.mark.real
async def test_who_waits_too_long_for_its_turn_has_no_verdict() -> None:
    slow = Finder()
    slow.gate.clear()
    async with bench(slow, queue_wait=0.5) as bare:
        first = asyncio.create_task(bare.scan(large(b"one")))
        while not slow.running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(EngineError) as refused:
            await bare.scan(large(b"other"))
        assert refused.value.result == "timeout"
        slow.gate.set()
        assert (await first).outcome is Outcome.CLEAN


# -- anything ----------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_hostile_input_is_judged_in_bounded_time(data: st.DataObject) -> None:
    base = data.draw(st.sampled_from(SMALL))
    mutated = bytearray(base)
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(mutated)))
        mutated[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    begun = time.monotonic()
    answer = judged(bytes(mutated))
    assert answer is None or isinstance(answer, tuple | Reason)
    assert time.monotonic() - begun < 5


@given(st.binary(max_size=400))
def test_any_bytes_behind_any_signature_are_judged(content: bytes) -> None:
    for start in (
        b"PK\3\4",
        b"7z\xbc\xaf\x27\x1c",
        b"Rar!\x1a\x07\1\0",
        b"%PDF-1.4 /Encrypt ",
        b"\xfd7zXZ\0",
        b"]\0\0\x80\0",
    ):
        answer = judged(start + content)
        assert answer is None or isinstance(answer, tuple | Reason)
