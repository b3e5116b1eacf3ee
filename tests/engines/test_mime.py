from __future__ import annotations

import asyncio
import io
import json
import random
import threading
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import docx
import magic
import pytest

from scanner.engines.mime import Mime
from scanner.errors import EngineError
from scanner.media import BodyWriter, Sample
from scanner.verdict import Outcome, Reason
from tests.unpacking.scene import descriptors

MakeSample = Callable[..., Sample]
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(64)
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + bytes(16)


@pytest.fixture
def sample() -> Iterator[MakeSample]:
    bodies = []

    def sample(data: bytes, *, keyless: bool = False) -> Sample:
        writer = BodyWriter()
        writer.write(data)
        bodies.append(writer.seal())
        return Sample(bodies[-1], keyless=keyless)

    yield sample
    for body in bodies:
        body.release()


@pytest.fixture
async def plain() -> AsyncIterator[Mime]:
    async with Mime() as mime:
        yield mime


def word_document() -> bytes:
    file = io.BytesIO()
    docx.Document().save(file)
    return file.getvalue()


def zip_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    return file.getvalue()


FILES = {
    "jpeg": JPEG,
    "png": PNG,
    "empty": b"",
    "text": b"hello\n",
    "long json": json.dumps([{"number": number} for number in range(100_000)]).encode(),
    "docx": word_document(),
    "zip": zip_archive(),
    "random": random.Random(1).randbytes(8 << 20),
    "html": b"<!DOCTYPE html><html></html>",
}
NOISE = random.Random(3).randbytes(100_000)
# Random bytes that libmagic takes for something: from the first two of them.
GUESSED = {
    "application/x-dosexec": b"\xe9\x21\x43",
    "application/zlib": b"\x78\x9c",
    "audio/mpeg": b"\xff\xfb\x90\x64",
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
async def test_type_is_what_the_reference_would_say(plain: Mime, sample: MakeSample, data: bytes) -> None:
    """matrix-content-scanner gives libmagic the whole file as a buffer.

    We differ from it, as `file` does, in the few rules that count from the end of a file: libmagic leaves
    them out for a buffer.
    """
    assert await plain.identify(sample(data)) == magic.from_buffer(data, mime=True)


async def test_type_of_an_empty_file_can_be_listed(sample: MakeSample) -> None:
    async with Mime(allowed=frozenset({"application/x-empty"})) as mime:
        assert (await mime.scan(sample(b""))).outcome is Outcome.CLEAN


@pytest.mark.parametrize(
    ("allowed", "blocked", "outcome"),
    [
        (None, None, Outcome.CLEAN),
        ({"image/jpeg"}, None, Outcome.CLEAN),
        ({"image/*"}, None, Outcome.CLEAN),
        ({"image/png", "text/*"}, None, Outcome.FORBIDDEN),
        (set(), None, Outcome.FORBIDDEN),
        (None, {"image/jpeg"}, Outcome.FORBIDDEN),
        (None, {"image/*"}, Outcome.FORBIDDEN),
        (None, {"image/png", "image", "*", "*/*"}, Outcome.CLEAN),
        (None, set(), Outcome.CLEAN),
        ({"image/*"}, {"image/jpeg"}, Outcome.FORBIDDEN),
    ],
)
async def test_lists_decide(
    sample: MakeSample, allowed: set[str] | None, blocked: set[str] | None, outcome: Outcome
) -> None:
    allow = None if allowed is None else frozenset(allowed)
    block = None if blocked is None else frozenset(blocked)
    async with Mime(allow, block) as mime:
        report = await mime.scan(sample(JPEG))
        assert report.outcome is outcome
        assert report.reason is (Reason.FORBIDDEN_TYPE if outcome is Outcome.FORBIDDEN else None)
        assert report.version in mime.versions()


def test_version_changes_with_the_lists_and_with_nothing_else() -> None:
    png = frozenset({"image/png", "image/gif"})
    lists = [(None, None), (png, None), (None, png), (frozenset[str](), None), (png, png)]
    versions = [Mime(*pair).versions() for pair in lists]
    assert len(set(versions)) == len(lists)
    assert versions == [Mime(*pair).versions() for pair in lists]


async def test_other_lists_are_another_engine_and_leave_the_first_as_it_is(
    sample: MakeSample,
) -> None:
    async with Mime(allowed=frozenset({"image/png"})) as mime:
        version, other = mime.versions(), mime.with_lists(None, frozenset({"image/png"}))
        assert other.versions() == Mime(None, frozenset({"image/png"})).versions()
        assert (await other.scan(sample(PNG))).outcome is Outcome.FORBIDDEN
        assert (await mime.scan(sample(PNG))).outcome is Outcome.CLEAN
        assert mime.versions() == version


async def test_without_lists_libmagic_is_not_asked(plain: Mime) -> None:
    """A closed body would be an error for whoever reads it."""
    writer = BodyWriter()
    writer.write(JPEG)
    body = writer.seal()
    sample = Sample(body)
    body.release()
    assert (await plain.scan(sample)).outcome is Outcome.CLEAN
    with pytest.raises(EngineError):
        await plain.identify(sample)


async def test_slow_libmagic_is_an_error_until_it_is_done(sample: MakeSample) -> None:
    lines, picture = sample(b"\n" * (7 << 20)), sample(PNG)
    async with Mime(blocked=frozenset({"image/png"}), timeout=0.02) as mime:
        for slow in (lines, picture):
            with pytest.raises(EngineError) as raised:
                await mime.scan(slow)
            assert raised.value.result == "timeout"
        report = None
        while report is None:
            with suppress(EngineError):
                report = await mime.scan(picture)
        assert report.outcome is Outcome.FORBIDDEN


async def test_scans_that_are_given_up_leave_nothing_open(sample: MakeSample) -> None:
    """One that libmagic is at, and one that waits for it: each file is closed when the thread is done."""
    lines, waiting, picture = sample(b"\n" * (7 << 20)), sample(b"text"), sample(PNG)
    before = descriptors()
    async with Mime() as mime:
        given_up = [asyncio.create_task(mime.identify(each)) for each in (lines, waiting)]
        await asyncio.sleep(0.02)
        for scan in given_up:
            scan.cancel()
        assert await mime.identify(picture) == "image/png"
        await asyncio.sleep(0.05)
        assert descriptors() == before


async def test_closing_leaves_no_thread(sample: MakeSample) -> None:
    before = set(threading.enumerate())
    async with Mime() as mime:
        await mime.identify(sample(PNG))
        (worker,) = set(threading.enumerate()) - before
    worker.join(5)
    assert not worker.is_alive()


# -- what may be ciphertext ----------------------------------------------------------------------

DATA = "application/octet-stream"


@pytest.mark.parametrize(
    "data", [b"\1", NOISE[:99], NOISE, bytes(1000)], ids=["byte", "few", "many", "zeros"]
)
async def test_keyless_data_is_opaque(plain: Mime, sample: MakeSample, data: bytes) -> None:
    report = await plain.scan(sample(data, keyless=True))
    assert (report.outcome, report.reason) == (Outcome.OPAQUE, Reason.OPAQUE)
    assert (await plain.scan(sample(data))).outcome is Outcome.CLEAN


@pytest.mark.parametrize("kind", ["jpeg", "png", "empty", "text", "docx", "zip", "html"])
async def test_keyless_files_of_a_known_type_are_not(plain: Mime, sample: MakeSample, kind: str) -> None:
    assert (await plain.scan(sample(FILES[kind], keyless=True))).outcome is Outcome.CLEAN


@pytest.mark.parametrize("guess", GUESSED)
async def test_a_type_that_libmagic_guesses_from_two_bytes_of_noise_is_none(
    plain: Mime, sample: MakeSample, guess: str
) -> None:
    noise, file = (sample(GUESSED[guess] + rest, keyless=True) for rest in (NOISE, 50 * NOISE[:999]))
    assert [await plain.identify(each) for each in (noise, file)] == [guess, guess]
    assert (await plain.scan(noise)).outcome is Outcome.OPAQUE
    assert (await plain.scan(file)).outcome is Outcome.CLEAN


async def test_a_program_is_no_ciphertext_however_it_goes_on(sample: MakeSample) -> None:
    async with Mime(blocked=frozenset({"application/x-dosexec"})) as mime:
        assert (await mime.scan(sample(b"MZ\0\0\1\0" + NOISE, keyless=True))).outcome is Outcome.FORBIDDEN
        assert (await mime.scan(sample(NOISE, keyless=True))).outcome is Outcome.OPAQUE


async def test_noise_is_opaque_nearly_always(plain: Mime, sample: MakeSample) -> None:
    """Without a look at how even the bytes are, 14 of these 1,000 were something else."""
    chance = random.Random(4)
    noise = [sample(chance.randbytes(2000), keyless=True) for _ in range(1000)]
    outcomes = [(await plain.scan(each)).outcome for each in noise]
    assert outcomes == [Outcome.OPAQUE] * len(noise)


@pytest.mark.parametrize("start", [b"", *GUESSED.values()])
@pytest.mark.parametrize(
    ("allowed", "blocked", "outcome"),
    [
        ({"image/*"}, None, Outcome.OPAQUE),
        (set(), None, Outcome.OPAQUE),
        (None, {"image/*"}, Outcome.OPAQUE),
        (None, {DATA}, Outcome.FORBIDDEN),
        (None, {"application/*"}, Outcome.FORBIDDEN),
        ({DATA}, {DATA}, Outcome.FORBIDDEN),
    ],
)
async def test_only_a_list_that_blocks_data_forbids_ciphertext(
    sample: MakeSample, start: bytes, allowed: set[str] | None, blocked: set[str] | None, outcome: Outcome
) -> None:
    allow = None if allowed is None else frozenset(allowed)
    block = None if blocked is None else frozenset(blocked)
    async with Mime(allow, block) as mime:
        assert (await mime.scan(sample(start + NOISE, keyless=True))).outcome is outcome


async def test_lists_hold_for_keyless_files_of_a_known_type(sample: MakeSample) -> None:
    async with Mime(allowed=frozenset({"image/png"})) as mime:
        assert (await mime.scan(sample(JPEG, keyless=True))).outcome is Outcome.FORBIDDEN
        assert (await mime.scan(sample(PNG, keyless=True))).outcome is Outcome.CLEAN
