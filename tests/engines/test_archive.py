"""The corpus that must stay plain, the one that must not, and mutants in front of a real clamd."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import lzma
import random
import shutil
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docx
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanner.engines.archive import Archive
from scanner.media import BodyWriter, Sample
from scanner.verdict import Outcome, Reason, Report
from tests.archive_mutants import mutant
from tests.archives import (
    TEXT,
    dubious,
    encrypted,
    extracted,
    innocent,
    judged,
    sevenzip_of,
    streamed_zip_of,
    tar_of,
    zip64_of,
    zip_of,
)
from tests.real_clamd import EICAR, Clamd

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
MUTANTS, LONG_MUTANTS = 4000, 60_000
SEED = 20261121


@contextmanager
def sample(data: bytes) -> Iterator[Sample]:
    writer = BodyWriter()
    writer.write(data)
    body = writer.seal()
    try:
        yield Sample(body)
    finally:
        body.release()


async def scanned(data: bytes, seconds: float = 20.0) -> Report:
    with sample(data) as opened:
        return await Archive(seconds).scan(opened)


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


@pytest.fixture(scope="module")
def strict_clamd() -> Iterator[Clamd]:
    """A clamd that finds EICAR only where a file begins with it: what it does not unpack, it misses."""
    with tempfile.TemporaryDirectory(prefix="clamd-") as name:
        database = Path(name) / "database"
        database.mkdir()
        (database / "strict.ndb").write_text(f"Eicar-Start:0:0:{EICAR.hex()}\n")
        clamd = Clamd(Path(name), database=database)
        clamd.start()
        yield clamd
        clamd.stop()


async def test_a_plain_file_is_clean_under_the_version_of_the_rules() -> None:
    report = await scanned(b"hello")
    assert report == Report("archive", Outcome.CLEAN, next(iter(Archive().versions())))


async def test_a_dubious_file_is_unscannable_with_the_reason() -> None:
    report = await scanned(zip_of({"a": TEXT}, zipfile.ZIP_LZMA))
    assert (report.outcome, report.reason) == (Outcome.UNSCANNABLE, Reason.AMBIGUOUS)


async def test_running_out_of_time_is_unscannable() -> None:
    report = await scanned(zip_of({"a": TEXT}), seconds=-1.0)
    assert (report.outcome, report.reason) == (Outcome.UNSCANNABLE, Reason.TIME_LIMIT)


async def test_a_large_file_leaves_the_loop_to_others() -> None:
    """A container of 20 MB is judged in a worker thread; meanwhile the loop turns."""
    archive = zip_of({str(i): random.Random(i).randbytes(1 << 20) for i in range(19)}, zipfile.ZIP_STORED)
    turns, scan = 0, asyncio.create_task(scanned(archive))
    while not scan.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert (await scan).outcome is Outcome.CLEAN
    assert turns > 1


async def test_a_scan_that_nobody_waits_for_ends() -> None:
    """Else few clients that hang up at once could keep every worker busy."""
    slow = zip_of({str(i): b"\xff" + b"\x1f\x8b\x08" * 70_000 for i in range(300)})
    archive = Archive(timeout=60.0)
    with sample(slow) as hostile, sample(zip_of({"a": TEXT})) as innocent_one:
        scans = [asyncio.create_task(archive.scan(hostile)) for _ in range(40)]
        await asyncio.sleep(0.1)
        for scan in scans:
            scan.cancel()
        await asyncio.wait(scans)
        async with asyncio.timeout(10):
            assert (await archive.scan(innocent_one)).outcome is Outcome.CLEAN


async def test_a_file_full_of_signatures_leaves_the_loop_to_others() -> None:
    """Thousands of hits by chance are looked at in bits, whatever the size of the file."""
    turns, scan = 0, asyncio.create_task(scanned(b"\xff" + b"\x1f\x8b\x08" * 40_000))
    while not scan.done():
        turns += 1
        await asyncio.sleep(0)
    assert (await scan).outcome is Outcome.CLEAN
    assert turns > 100


@pytest.mark.slow
def test_what_programs_ordinarily_write_is_plain() -> None:
    assert {kind: judged(archive) for kind, archive in innocent(b"first").items() if judged(archive)} == {}


def test_office_files_are_plain() -> None:
    assert {kind: judged(data) for kind, data in office_files().items() if judged(data)} == {}


@pytest.mark.slow
def test_dubious_archives_are_not_plain() -> None:
    assert [kind for kind, archive in dubious(EICAR).items() if judged(archive) is None] == []


@pytest.mark.slow
def test_archives_behind_a_password_are_encrypted() -> None:
    archives = encrypted(EICAR)
    assert {kind: judged(archive) for kind, archive in archives.items()} == dict.fromkeys(
        archives, Reason.ENCRYPTED_ARCHIVE
    )


@pytest.mark.real
def test_clamd_finds_eicar_in_every_kind_that_is_called_plain(strict_clamd: Clamd) -> None:
    archives = innocent(EICAR)
    assert len(archives) > 12
    assert [kind for kind, archive in archives.items() if not _finds(strict_clamd, archive)] == []


@pytest.mark.real
@pytest.mark.timeout(120)
def test_no_reader_gets_eicar_out_of_a_plain_mutant_unless_clamd_finds_it(strict_clamd: Clamd) -> None:
    _hold_mutants(strict_clamd, SEED, MUTANTS)


@pytest.mark.real
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
def test_no_reader_gets_eicar_out_of_very_many_plain_mutants(strict_clamd: Clamd, seed: int) -> None:
    _hold_mutants(strict_clamd, seed, LONG_MUTANTS // 2)


def _hold_mutants(clamd: Clamd, seed: int, count: int) -> None:
    chance = random.Random(seed)
    small = [data for data in (innocent(EICAR) | dubious(EICAR)).values() if len(data) < 100_000]
    assert shutil.which("unzip")
    leaks = []
    for number in range(count):
        data = mutant(chance, small)
        if judged(data) is None and not _finds(clamd, data) and (reader := extracted(data, EICAR)):
            leaks.append((number, reader))
    assert leaks == []


def _finds(clamd: Clamd, data: bytes) -> bool:
    return clamd.scan(data).endswith("FOUND")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_hostile_input_is_judged_in_bounded_time(data: st.DataObject) -> None:
    base = data.draw(st.sampled_from(SMALL))
    mutated = bytearray(base)
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(mutated)))
        mutated[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    begun = time.monotonic()
    assert judged(bytes(mutated)) in (None, *Reason)
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
        assert judged(start + content) in (None, *Reason)
