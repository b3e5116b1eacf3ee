"""Records of deliveries: what one replica says, sealed, and what a workstation makes of it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from scanner.crypto.envelope import Sealer, public_key_of
from scanner.errors import EnvelopeError
from scanner.quarantine.delivery_records import (
    MOST_DELIVERIES,
    Delivery,
    DeliveryRecord,
    opened,
    sealed,
)

SHA256 = "ab" * 32
ALICE, BOB = b"\1" * 32, b"\2" * 32
DELIVERY = Delivery("mxc://example.org/abc", "cd" * 16, 1_700_000_000.5, 1_700_000_060.0, 3)
RECORD = DeliveryRecord(
    SHA256, "replica", "2026-11-21T12:00:00+00:00", "2026-10-22T00:00:00+00:00", (DELIVERY,)
)


def test_each_analyst_reads_it_alone_and_nobody_else() -> None:
    envelope = sealed(RECORD, [public_key_of(ALICE), public_key_of(BOB)])
    assert opened(envelope, [ALICE], SHA256) == opened(envelope, [BOB], SHA256) == RECORD
    assert b"example.org" not in envelope
    with pytest.raises(EnvelopeError):
        opened(envelope, [os.urandom(32)], SHA256)


def test_a_record_of_many_deliveries_is_cut_and_says_so() -> None:
    many = replace(RECORD, deliveries=(DELIVERY,) * (MOST_DELIVERIES + 5))
    envelope = sealed(many, [public_key_of(ALICE)])
    read = opened(envelope, [ALICE], SHA256)
    assert (len(read.deliveries), read.omitted) == (MOST_DELIVERIES, 5)
    assert len(envelope) < 3 * 2**20


def test_an_envelope_of_more_chunks_than_can_be_counted_is_damaged() -> None:
    with pytest.raises(EnvelopeError):
        opened(Sealer([public_key_of(ALICE)], 2**40, chunk=1).header.to_bytes(), [ALICE], SHA256)


@pytest.mark.slow
@pytest.mark.alone
def test_writing_a_long_record_lets_other_threads_run() -> None:
    """`json.dumps` keeps the interpreter's lock to its end: so long the event loop stands still."""
    many = replace(RECORD, deliveries=(DELIVERY,) * MOST_DELIVERIES)
    content = asdict(many)
    began = time.perf_counter()
    json.dumps(content)
    at_once = time.perf_counter() - began
    assert min(_longest_pause(many) for _ in range(5)) < at_once / 2


def _longest_pause(record: DeliveryRecord) -> float:
    """Of another thread while the record is written, in seconds."""
    longest, writer = 0.0, threading.Thread(target=record.to_json)
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    writer.start()
    while writer.is_alive():
        began = time.perf_counter()
        time.sleep(0)
        longest = max(longest, time.perf_counter() - began)
    sys.setswitchinterval(before)
    return longest


def test_a_record_under_another_contents_name_is_refused() -> None:
    with pytest.raises(ValueError, match="another content"):
        opened(sealed(RECORD, [public_key_of(ALICE)]), [ALICE], "cd" * 32)


@pytest.mark.parametrize("bit", [0, 40, -1])
def test_a_changed_envelope_is_refused(bit: int) -> None:
    envelope = bytearray(sealed(RECORD, [public_key_of(ALICE)]))
    envelope[bit] ^= 1
    with pytest.raises(EnvelopeError):
        opened(bytes(envelope), [ALICE], SHA256)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"sha256": 1},
        {"replica": None},
        {"omitted": "1"},
        {"omitted": True},
        {"more": 1},
        {"deliveries": None},
        {"deliveries": [{"media": "a"}]},
        {"deliveries": [{"media": "a", "caller": "b", "first": "c", "last": 1, "count": 1}]},
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, object]) -> None:
    content = json.loads(RECORD.to_json()) | change
    with pytest.raises(ValueError, match=r"record"):
        DeliveryRecord.from_json(json.dumps(content).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the parser says
        DeliveryRecord.from_json(data)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b"-1e999"])
def test_a_time_that_no_json_has_is_refused(number: bytes) -> None:
    """`show --json` would print what other programs do not read."""
    data = RECORD.to_json().replace(b"1700000000.5", number)
    with pytest.raises(ValueError, match="no record"):
        DeliveryRecord.from_json(data)
