"""The outbox: durable, sealed, bounded, once a content."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scanner.crypto.envelope import Header, Mode, Opener, public_key_of
from scanner.errors import EnvelopeError
from scanner.events import Detected, Occasion, QuarantineFailed, Source
from scanner.media import MediaRef, Sample
from scanner.quarantine.delivery_records import DeliveryRecord, Witness
from scanner.quarantine.delivery_records import opened as deliveries_in
from scanner.quarantine.layout import fingerprint, object_key
from scanner.quarantine.outbox import Outbox
from scanner.quarantine.records import DetectionRecord
from scanner.verdict import Decision, Detection, Hashes, Outcome, Reason, Report, Verdict
from tests.contracts.recorder import Counts, Opens, RecorderContract
from tests.fakes import RecordingSink, a_body, encrypted

PRIVATE = b"\1" * 32
HASHES = Hashes("ab" * 32, "cd" * 20, "ef" * 16)
VERDICT = Verdict(
    (Report("clamav", Outcome.INFECTED, "1", Reason.MALWARE, (Detection("Win.Test.EICAR_HDB-1"),)),),
    hashes=HASHES,
)
DECISION = Decision(deliver=False, outcome=Outcome.INFECTED, reason=Reason.MALWARE)


@asynccontextmanager
async def outbox(directory: Path, sink: RecordingSink | None = None, **changes: Any) -> AsyncIterator[Outbox]:
    settings: dict[str, Any] = {"public_keys": [public_key_of(PRIVATE)], "size": 2**30, **changes}
    async with Outbox(directory, publish=sink or RecordingSink(), **settings) as box:
        yield box


def detected(media_id: str = "abc", kept: bool = True, is_encrypted: bool = False) -> Detected:
    occasion = Occasion(MediaRef("example.org", media_id), Source.DOWNLOAD, is_encrypted, "request")
    return Detected(occasion, replace(VERDICT, kept=kept), DECISION, 68, None, 0.1)


def opened(envelope: bytes) -> bytes:
    opener = Opener(Header.parse(envelope), [PRIVATE])
    places = [opener.place(index) for index in range(opener.header.chunks)]
    return b"".join(opener.open(i, envelope[o : o + n]) for i, (o, n) in enumerate(places))


def of_sha256(digit: str) -> Verdict:
    """The verdict on another content, whose hash consists of this digit."""
    return replace(VERDICT, hashes=Hashes(digit * 64, digit * 40, digit * 32))


def samples_of(box: Outbox) -> list[Path]:
    return box.waiting(999)[0]


def records_of(box: Outbox) -> list[DetectionRecord]:
    return [DetectionRecord.from_json(path.read_bytes()) for path in box.waiting(999)[1]]


async def kept(box: Outbox, content: bytes, verdict: Verdict = VERDICT) -> bool:
    body = a_body(content)
    try:
        return await box.keep(Sample(body), verdict)
    finally:
        body.release()


class TestOutbox(RecorderContract):
    @pytest.fixture
    def opens(self) -> Opens:
        return outbox

    @pytest.fixture
    def counts(self) -> Counts:
        return lambda directory: len(list(directory.glob("records/v1+detections+*")))

    @staticmethod
    def make_unwritable(directory: Path) -> None:
        (directory / "records").rmdir()


@pytest.mark.parametrize("size", [0, 68, 600_000])
async def test_a_sample_is_sealed_and_only_the_soc_reads_it(tmp_path: Path, size: int) -> None:
    content = b"PLAINTEXT" * (size // 9 + 1)
    async with outbox(tmp_path) as box:
        assert await kept(box, content)
        [path] = samples_of(box)
        assert box.key_of(path) == object_key(fingerprint([public_key_of(PRIVATE)]), HASHES.sha256)
    assert b"PLAINTEXT" not in path.read_bytes()
    assert opened(path.read_bytes()) == content
    assert path.stat().st_mode & 0o077 == 0
    assert (box.held, box.pending) == (-(-path.stat().st_size // 4096) * 4096, 1)


async def test_the_plaintext_of_an_encrypted_attachment_is_what_is_sealed(tmp_path: Path) -> None:
    ciphertext, key = encrypted(b"plaintext")
    body = a_body(ciphertext)
    sample = Sample(body, key)
    async with outbox(tmp_path) as box, sample.opened():
        assert await box.keep(sample, VERDICT)
    body.release()
    assert opened(samples_of(box)[0].read_bytes()) == b"plaintext"


async def test_a_record_names_who_notes_deliveries_where_it_is_written(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        await box.record(detected("abc"))
        box.witness = Witness("replica1", "2026-11-01T00:00:00+00:00")
        await box.record(detected("def"))
    by_media = {record.media: (record.replica, record.noted_since) for record in records_of(box)}
    assert by_media == {
        "mxc://example.org/abc": (None, None),
        "mxc://example.org/def": ("replica1", "2026-11-01T00:00:00+00:00"),
    }


async def test_where_only_hashes_are_kept_the_record_says_so(tmp_path: Path) -> None:
    async with outbox(tmp_path, keep_encrypted=False) as box:
        await box.record(detected(is_encrypted=True))
    [record] = records_of(box)
    assert (record.sample, record.missing) == (None, "hash_only")


async def test_a_content_is_held_once(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        await asyncio.gather(*(kept(box, b"same") for _ in range(8)))
        assert len(samples_of(box)) == 1
        assert (box.held, box.pending) == (4096, 1)


async def test_a_content_and_media_id_have_one_record_a_day(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        for media_id in ("abc", "abc", "def"):
            await box.record(detected(media_id))
    stored = sorted(records_of(box), key=lambda record: record.media or "")
    assert [record.media for record in stored] == ["mxc://example.org/abc", "mxc://example.org/def"]
    assert stored[0].signatures == ("Win.Test.EICAR_HDB-1",)
    assert stored[0].sample is not None
    assert stored[0].sample.endswith(f"/sha256/ab/ab/{HASHES.sha256}")


async def test_uploads_of_one_content_fill_nothing(tmp_path: Path) -> None:
    """They have no media ID yet."""
    async with outbox(tmp_path) as box:
        for number in range(50):
            occasion = Occasion(None, Source.UPLOAD, encrypted=False, request_id=str(number))
            await box.record(replace(detected(), occasion=occasion))
        assert len(records_of(box)) == 1


async def test_a_full_outbox_keeps_the_record_and_says_so(tmp_path: Path) -> None:
    sink = RecordingSink()
    async with outbox(tmp_path, sink, size=1000) as box:
        assert not await kept(box, bytes(1000))
        await box.record(detected(kept=False))
        assert not samples_of(box)
        assert box.pending == 1
    assert [record.missing for record in records_of(box)] == ["not written"]
    assert [(event.store, event.problem) for event in sink.of(QuarantineFailed)] == [
        ("outbox", "the outbox is full")
    ]


async def test_a_full_outbox_counts_blocks_and_has_room_again_when_something_is_shipped(
    tmp_path: Path,
) -> None:
    async with outbox(tmp_path, size=2 * 4096) as box:
        for digit in "abc":
            await kept(box, b"x", of_sha256(digit))
        assert box.held == 2 * 4096
        box.shipped(samples_of(box)[:1])
        assert await kept(box, b"x", of_sha256("d"))


async def test_a_sample_that_is_kept_after_all_has_a_record_that_names_it(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        for was_kept in (False, True, True):
            await box.record(detected(kept=was_kept))
    assert sorted(record.missing or "" for record in records_of(box)) == ["", "not written"]


async def test_the_same_detection_512_times_at_once_is_written_once(tmp_path: Path) -> None:
    sink = RecordingSink()
    async with outbox(tmp_path, sink) as box:
        (tmp_path / "drafts").rmdir()
        await asyncio.gather(*(box.record(detected()) for _ in range(512)))
        assert len(sink.of(QuarantineFailed)) == 1
        (tmp_path / "drafts").mkdir()
        await asyncio.gather(*(box.record(detected()) for _ in range(512)))
        assert box.pending == 1


async def test_drafts_are_removed_at_the_start_and_the_rest_still_waits(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        await kept(box, b"whole")
        await box.record(detected())
        (tmp_path / "drafts" / "00").write_bytes(b"torn")
        held = box.held
    async with outbox(tmp_path) as box:
        assert (len(samples_of(box)), len(records_of(box))) == (1, 1)
        assert (box.held, box.pending) == (held, 2)
    assert not [*(tmp_path / "drafts").iterdir()]


async def test_what_is_sealed_to_another_key_keeps_its_name_and_is_no_copy_for_the_new_one(
    tmp_path: Path,
) -> None:
    other = public_key_of(b"\2" * 32)
    async with outbox(tmp_path) as box:
        await kept(box, b"sample")
    async with outbox(tmp_path, public_keys=[other]) as box:
        assert await kept(box, b"sample")
        assert {box.key_of(path) for path in samples_of(box)} == {
            object_key(fingerprint([key]), HASHES.sha256) for key in (public_key_of(PRIVATE), other)
        }


async def test_a_key_that_nothing_can_be_sealed_to_is_found_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(EnvelopeError):
        async with outbox(tmp_path, public_keys=[bytes(32)]):
            pass


async def test_what_is_not_ours_is_let_alone(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        (tmp_path / "records" / ".directory").write_bytes(b"?")
        assert box.waiting(9) == ([], [])


@pytest.mark.slow
async def test_of_many_that_wait_some_are_told_at_once(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        for number in range(20_000):
            (tmp_path / "samples" / f"v1+objects+aa+sha256+00+00+{number}").touch()
        began = time.monotonic()
        first, _ = box.waiting(100)
        more, _ = box.waiting(100, but=set(first))
        assert time.monotonic() - began < 0.1
    assert len(set(first) | set(more)) == 200


async def test_a_cancelled_scan_leaves_the_sample_whole_or_not_at_all(tmp_path: Path) -> None:
    async with outbox(tmp_path) as box:
        for delay in (0, 0.001, 0.003, 0.01):
            task = asyncio.create_task(kept(box, bytes(4_000_000)))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    for path in samples_of(box):
        assert opened(path.read_bytes()) == bytes(4_000_000)


async def test_a_directory_that_is_gone_is_said_and_refuses_nothing(tmp_path: Path) -> None:
    sink = RecordingSink()
    async with outbox(tmp_path / "box", sink) as box:
        (tmp_path / "box" / "samples").rmdir()
        (tmp_path / "box" / "records").rmdir()
        assert not await kept(box, b"x")
        await box.record(detected())
    assert len(sink.of(QuarantineFailed)) == 2


async def test_a_record_stays_under_2_kb(tmp_path: Path) -> None:
    names = tuple(Detection("x" * 128) for _ in range(50))
    long = Verdict(
        (Report("clamav", Outcome.INFECTED, "v" * 5000, Reason.MALWARE, names),), hashes=HASHES, kept=True
    )
    occasion = Occasion(MediaRef("e" * 255, "m" * 255), Source.FEDERATION, True, "r" * 32)
    async with outbox(tmp_path) as box:
        box.witness = Witness("r" * 16, "2026-11-21T00:00:00+00:00")
        await box.record(Detected(occasion, long, DECISION, 2**40, "c" * 64, 1.0))
        _, [record] = box.waiting(9)
    assert record.stat().st_size < 2048


async def test_who_was_given_a_content_waits_sealed_to_each_analyst_alone(tmp_path: Path) -> None:
    record = DeliveryRecord(HASHES.sha256, "replica1", "2026-11-21T12:00:00+00:00", None, ())
    others = [public_key_of(key) for key in (PRIVATE, b"\2" * 32)]
    async with outbox(tmp_path, public_keys=others, mode=Mode.ALL) as box:
        woken = asyncio.Event()
        box.wake = woken.set
        await asyncio.to_thread(box.tell, record)
        await woken.wait()
        [path] = [*box.waiting(9)[0], *box.waiting(9)[1]]
        assert box.key_of(path) == f"v1/deliveries/{HASHES.sha256}/replica1"
    assert deliveries_in(path.read_bytes(), [PRIVATE], HASHES.sha256) == record
