from __future__ import annotations

import asyncio
import fcntl
import gc
import hashlib
import os
import random
import resource
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.crypto.attachment import AttachmentKey
from scanner.errors import DecryptionError, InvalidMedia, Unavailable
from scanner.media import STEP, Body, BodyWriter, MediaRef, Progress, Sample, reopened
from tests.fakes import a_body, encrypted, encrypted_file, encrypted_file_of

SIZES = [0, 1, 15, 16, 17, STEP - 1, STEP, STEP + 1, 2 * STEP - 1, 2 * STEP, 3 * STEP + 7]
LARGE = 20 * 1024 * 1024


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def memory_files() -> int:
    """How many memory files this process holds, through descriptors or maps, which hold one each."""
    if _memory_files():
        gc.collect()  # what only garbage holds does not count; where none is held, nothing need be searched
    return len(_memory_files())


def _memory_files() -> set[int]:
    files = set()
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, not paths
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:media"):  # noqa: PTH115
                files.add(os.fstat(int(descriptor)).st_ino)
    return files


@pytest.fixture(autouse=True)
def no_memory_file_is_left() -> Iterator[None]:
    before = memory_files()
    yield
    assert memory_files() == before


@pytest.fixture
def bodies() -> Iterator[Callable[[bytes], Body]]:
    """A maker of bodies that are released when the test is over."""
    made = []

    def make(data: bytes) -> Body:
        made.append(a_body(data))
        return made[-1]

    yield make
    for body in made:
        body.release()


Bodies = Callable[[bytes], Body]


@dataclass
class RecordingRoom:
    """A Room that notes what it is told."""

    calls: list[str] = field(default_factory=list)

    def shrink(self, size: int) -> None:
        self.calls.append(f"shrink {size}")

    def close(self) -> None:
        self.calls.append("close")

    def lend(self, cut: Callable[[], None]) -> AbstractContextManager[Progress]:
        raise NotImplementedError


# -- MediaRef ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "example.org",
        "EXAMPLE.org",
        "localhost:8448",
        "1.2.3.4",
        "1.2.3.4:80",
        "[::1]",
        "[2001:db8::ff00:42:8329]:8448",
        "[::ffff:1.2.3.4]:1",
        "-",
        "a" * 255,
        "a" * 249 + ":65535",
    ],
)
def test_server_name_of_the_grammar_is_accepted(origin: str) -> None:
    assert str(MediaRef(origin, "id")) == f"mxc://{origin}/id"


@pytest.mark.parametrize(
    "origin",
    [
        "",
        ".",
        "..",
        ".example.org",
        "a" * 256,
        "a" * 250 + ":65535",
        "[" + "1" * 250 + "]",
        "example.org:",
        "example.org:123456",
        "example.org:80:80",
        "example.org:-1",
        "example.org:\uff18\uff10",
        "example.org:\u0663",
        "éxample.org",
        "\u0435xample.org",
        "example.org\n",
        "\nexample.org",
        "example.org\0",
        "example.org ",
        "exa mple.org",
        "example.org/..",
        "example.org\\..",
        "example%2eorg",
        "user@example.org",
        "example.org?x",
        "example.org#x",
        "[::1",
        "::1",
        "[]",
        "[::1]]",
        "[::1%25eth0]",
        "[g::1]",
        "[::1]\n",
        "[::1]:",
        "exa_mple.org",
    ],
)
def test_server_name_outside_the_grammar_is_refused(origin: str) -> None:
    with pytest.raises(InvalidMedia):
        MediaRef(origin, "id")


@pytest.mark.parametrize("media_id", ["a", "AZaz09_-", "-", "a" * 255])
def test_media_id_of_the_grammar_is_accepted(media_id: str) -> None:
    assert MediaRef("example.org", media_id).media_id == media_id


@pytest.mark.parametrize(
    "media_id",
    [
        "",
        ".",
        "..",
        "a.b",
        "a" * 256,
        "a/b",
        "a\\b",
        "a\n",
        "\na",
        "a\0",
        "a b",
        "%61",
        "é",
        "\u0663",
        "a?b",
        "a#b",
        "a;",
    ],
)
def test_media_id_outside_the_grammar_is_refused(media_id: str) -> None:
    with pytest.raises(InvalidMedia):
        MediaRef("example.org", media_id)


@settings(deadline=None)
@given(st.text(), st.text())
def test_nothing_that_a_path_could_resolve_is_ever_a_media_ref(origin: str, media_id: str) -> None:
    try:
        ref = MediaRef(origin, media_id)
    except InvalidMedia:
        pass
    else:
        assert not {*"/\\%?#@ \n\0"} & {*ref.origin, *ref.media_id}
        assert not ref.origin.startswith(".")
        assert f"{ref.origin}{ref.media_id}".isascii()


@pytest.mark.parametrize(
    "uri",
    [
        *("", "mxc:", "mxc://", "mxc://a", "mxc://a/", "mxc:///b", "mxc://a/b/c", "mxc://a/b?c", "MXC://a/b"),
        *("http://a/b", "a/b", " mxc://a/b", "mxc://a/b\n", "mxc://mxc://a/b", "mxc://../b", "mxc://a/.."),
    ],
)
def test_what_is_no_mxc_uri_is_refused(uri: str) -> None:
    with pytest.raises(InvalidMedia):
        MediaRef.from_mxc(uri)


def test_mxc_uri_is_read_into_its_parts() -> None:
    assert MediaRef.from_mxc("mxc://[::1]:80/a_-b") == MediaRef("[::1]:80", "a_-b")


# -- Body ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_body_is_its_pieces_in_order_whatever_they_are(pieces: list[bytes]) -> None:
    writer = BodyWriter()
    for piece in pieces:
        writer.write(memoryview(piece))
    body = writer.seal("image/png", "inline")
    data = b"".join(pieces)
    assert (body.size, body.sha256) == (len(data), hashlib.sha256(data).digest())
    assert (body.content_type, body.disposition) == ("image/png", "inline")
    assert body.read(0, body.size) == data
    body.release()


def assert_sealed(fd: int) -> None:
    """Nobody can change the file, not even through a descriptor opened for writing."""
    descriptor = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    size = os.fstat(fd).st_size
    try:
        for attempt in (
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: os.ftruncate(descriptor, size - 1 if size else 1),
            lambda: os.ftruncate(descriptor, size + 1),
            lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0),
        ):
            with pytest.raises(PermissionError):
                attempt()
    finally:
        os.close(descriptor)


def test_complete_body_cannot_be_changed_by_anybody(bodies: Bodies) -> None:
    with reopened(bodies(b"data").fileno()) as fd:
        assert_sealed(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")


def test_every_reader_has_an_offset_of_its_own(bodies: Bodies) -> None:
    body = bodies(b"0123456789")
    with reopened(body.fileno()) as one, reopened(body.fileno()) as other:
        assert os.read(one, 4) == b"0123"
        assert os.read(other, 4) == b"0123"
        assert os.read(one, 4) == b"4567"


def test_a_file_of_its_own_outlives_the_sample() -> None:
    body = a_body(b"data")
    fd = Sample(body).own_file()
    body.release()
    assert os.read(fd, 10) == b"data"
    os.close(fd)


def test_body_is_closed_with_its_last_holder_and_its_room_once() -> None:
    room = RecordingRoom()
    body = a_body(b"data", room)
    assert body.retain() is body
    body.release()
    assert body.read(0, body.size) == b"data"
    body.release()
    assert room.calls == ["shrink 4", "close"]


def test_closed_body_cannot_be_retained_or_read() -> None:
    body = a_body(b"data")
    body.release()
    with pytest.raises(RuntimeError):
        body.retain()
    with pytest.raises(OSError, match="Bad file descriptor"):
        body.read(0, 1)


def test_discarded_writer_gives_its_room_back() -> None:
    room = RecordingRoom()
    writer = BodyWriter(room)
    writer.write(b"data")
    writer.discard()
    assert room.calls == ["close"]


def test_writer_that_is_used_up_has_nothing_to_discard() -> None:
    """Its number is the body's, and in the end somebody else's."""
    room = RecordingRoom()
    writer = BodyWriter(room)
    body = writer.seal()
    writer.discard()
    assert body.read(0, 1) == b""
    body.release()
    somebody_elses = os.open("/dev/null", os.O_RDONLY)
    writer.discard()
    os.close(somebody_elses)
    assert room.calls == ["shrink 0", "close"]


def test_body_that_is_released_too_often_stays_closed() -> None:
    body = a_body(b"data")
    body.release()
    body.release()
    with pytest.raises(RuntimeError):
        body.retain()


async def test_room_comes_back_while_all_threads_wait_for_a_disk() -> None:
    answers = threading.Event()
    waiting = [asyncio.create_task(asyncio.to_thread(answers.wait)) for _ in range(64)]
    await asyncio.sleep(0.1)
    room = RecordingRoom()
    large = a_body(bytes(STEP + 1), room)
    try:
        large.release()
        async with asyncio.timeout(5):
            while "close" not in room.calls:  # noqa: ASYNC110  # another thread's event
                await asyncio.sleep(0.01)
    finally:
        answers.set()
        await asyncio.gather(*waiting)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_where_no_file_can_be_opened_the_room_comes_back() -> None:
    """Else the budget would shrink with every such moment until nothing fits any more."""
    room = RecordingRoom()
    with no_descriptor_left(), pytest.raises(Unavailable) as refused:
        BodyWriter(room)
    assert refused.value.cause == "overload"
    assert room.calls == ["close"]


async def test_where_no_file_can_be_opened_a_sample_cannot_be_opened(bodies: Bodies) -> None:
    ciphertext, key = encrypted(b"secret")
    sample = Sample(bodies(ciphertext), key)
    with no_descriptor_left(), pytest.raises(Unavailable):
        async with sample.opened():
            raise AssertionError


# -- Sample --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
async def test_sample_shows_the_plaintext_whole_at_every_size(bodies: Bodies, size: int) -> None:
    plaintext = noise(size)
    ciphertext, key = encrypted(plaintext)
    sample = Sample(bodies(ciphertext), key)
    assert (sample.size, sample.encrypted) == (size, True)
    assert await sample.digest() == hashlib.sha256(plaintext).digest()
    assert await sample.digest() == hashlib.sha256(plaintext).digest()
    async with sample.opened():
        assert sample.head(size + 1) == plaintext
        assert sample.head(3) == plaintext[:3]
        assert sample.read(size // 2, size) == plaintext[size // 2 :]
        with sample.as_file() as fd:
            assert os.fstat(fd).st_size == size
            assert_sealed(fd)


@pytest.mark.parametrize("size", [0, 1, STEP + 1])
async def test_sample_without_a_key_is_the_body_itself(bodies: Bodies, size: int) -> None:
    data = noise(size)
    sample = Sample(bodies(data))
    assert not sample.encrypted
    assert await sample.digest() == hashlib.sha256(data).digest()
    async with sample.opened():
        assert sample.head(size) == data
        with sample.as_file() as fd:
            assert_sealed(fd)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=100), st.data())
def test_tampered_ciphertext_never_becomes_a_sample(plaintext: bytes, data: st.DataObject) -> None:
    ciphertext, key = encrypted(plaintext)
    bit = data.draw(st.integers(0, 8 * len(ciphertext) - 1))
    tampered = bytearray(ciphertext)
    tampered[bit // 8] ^= 1 << bit % 8
    for wrong in (bytes(tampered), ciphertext[:-1], ciphertext + b"\0", b""):
        body = a_body(wrong)
        with pytest.raises(DecryptionError) as refused:
            Sample(body, key)
        assert refused.value.cause == "hash"
        body.release()


def test_ciphertext_that_clients_would_decrypt_differently_never_becomes_a_sample(bodies: Bodies) -> None:
    ciphertext, file = encrypted_file(bytes(32), iv=bytes(8) + b"\xff" * 8)
    with pytest.raises(DecryptionError) as refused:
        Sample(bodies(ciphertext), AttachmentKey.parse(file))
    assert refused.value.cause == "key"


async def test_plaintext_exists_only_while_the_sample_is_opened(bodies: Bodies) -> None:
    ciphertext, key = encrypted(b"secret")
    sample = Sample(bodies(ciphertext), key)
    before = memory_files()
    for _ in range(2):
        assert_unreadable(sample)
        async with sample.opened():
            assert sample.head(6) == b"secret"
            assert memory_files() == before + 1
        assert memory_files() == before
    assert_unreadable(sample)


def assert_unreadable(sample: Sample) -> None:
    for read in (sample.as_file, lambda: nullcontext(sample.head(1))):
        with pytest.raises(RuntimeError), read():
            pass


async def test_plaintext_is_gone_after_whatever_happened_to_the_reader(bodies: Bodies) -> None:
    ciphertext, key = encrypted(noise(3 * STEP))
    sample = Sample(bodies(ciphertext), key)
    before = memory_files()

    async def fail() -> None:
        async with sample.opened():
            with sample.as_file():
                raise ValueError(sample.head(4))

    with pytest.raises(ValueError, match="b'"):
        await fail()
    assert memory_files() == before


@pytest.mark.parametrize("steps", range(6))
async def test_cancellation_while_decrypting_leaves_nothing(bodies: Bodies, steps: int) -> None:
    plaintext = noise(4 * STEP)
    ciphertext, key = encrypted(plaintext)
    sample = Sample(bodies(ciphertext), key)
    before = memory_files()

    async def use() -> None:
        await sample.digest()
        async with sample.opened():
            await asyncio.sleep(60)

    task = asyncio.create_task(use())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    del task
    await asyncio.sleep(0)  # what the loop itself still holds of the task
    assert memory_files() == before
    assert await sample.digest() == hashlib.sha256(plaintext).digest()


async def test_one_ciphertext_under_two_keys_is_two_samples(bodies: Bodies) -> None:
    body = bodies(noise(1000))
    keys = [AttachmentKey.parse(encrypted_file_of(noise(1000), bytes([i]) * 32, bytes(16))) for i in range(2)]
    one, other = Sample(body, keys[0]), Sample(body, keys[1])
    assert await one.digest() != await other.digest()
    async with one.opened(), other.opened():
        assert one.head(1000) != other.head(1000)


async def test_readers_of_one_sample_do_not_move_each_other(bodies: Bodies) -> None:
    ciphertext, key = encrypted(b"0123456789")
    sample = Sample(bodies(ciphertext), key)
    async with sample.opened():
        with sample.as_file() as one, sample.as_file() as other:
            assert os.read(one, 10) == os.read(other, 10) == b"0123456789"


@pytest.mark.slow
@pytest.mark.alone
async def test_twenty_megabytes_do_not_hold_the_event_loop(bodies: Bodies) -> None:
    """In processor time, so that a busy machine makes no difference; the best of some tries: 4 ms here."""
    ciphertext, key = encrypted(noise(LARGE))
    body = bodies(ciphertext)
    worst = []
    for _ in range(7):
        sample = Sample(body, key)
        worst.append(await longest_hold(use(sample)))
    assert min(worst) < 0.010, f"held for {worst}"


async def use(sample: Sample) -> None:
    await sample.digest()
    async with sample.opened():
        pass


async def longest_hold(work: Coroutine[Any, Any, None]) -> float:
    task = asyncio.create_task(work)
    longest, last = 0.0, time.thread_time()
    while not task.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    await task
    return longest
