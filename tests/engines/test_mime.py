from __future__ import annotations

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

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(64)
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + bytes(16)


@pytest.fixture
def sample() -> Iterator[Callable[[bytes], Sample]]:
    bodies = []

    def sample(data: bytes) -> Sample:
        writer = BodyWriter()
        writer.write(data)
        bodies.append(writer.seal())
        return Sample(bodies[-1])

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


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
async def test_type_is_what_the_reference_would_say(
    plain: Mime, sample: Callable[[bytes], Sample], data: bytes
) -> None:
    """matrix-content-scanner gives libmagic the whole file as a buffer.

    We differ from it, as `file` does, in the few rules that count from the end of a file: libmagic leaves
    them out for a buffer.
    """
    assert await plain.identify(sample(data)) == magic.from_buffer(data, mime=True)


async def test_type_of_an_empty_file_can_be_listed(sample: Callable[[bytes], Sample]) -> None:
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
    sample: Callable[[bytes], Sample], allowed: set[str] | None, blocked: set[str] | None, outcome: Outcome
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
    sample: Callable[[bytes], Sample],
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


async def test_slow_libmagic_is_an_error_until_it_is_done(sample: Callable[[bytes], Sample]) -> None:
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


async def test_closing_leaves_no_thread(sample: Callable[[bytes], Sample]) -> None:
    before = set(threading.enumerate())
    async with Mime() as mime:
        await mime.identify(sample(PNG))
        (worker,) = set(threading.enumerate()) - before
    worker.join(5)
    assert not worker.is_alive()
