from __future__ import annotations

import gzip
import struct

from scanner.verdict import Reason
from tests.archives import SOUND, TEXT, delivered, judged

PAYLOAD = gzip.compress(TEXT)


def header(content: bytes) -> bytes:
    return struct.pack(">4s4xLL", b"\x8e\xad\xe8\x01", 1, len(content)) + bytes(16) + content


def rpm(payload: bytes, between: bytes = bytes(3)) -> bytes:
    return b"\xed\xab\xee\xdb" + bytes(92) + header(b"12345") + between + header(b"tags") + payload


def test_the_payload_is_what_is_in_it() -> None:
    assert judged(rpm(PAYLOAD)) == SOUND
    assert delivered(rpm(PAYLOAD), *SOUND) == [[PAYLOAD]]


def test_headers_that_do_not_follow_each_other_are_damage() -> None:
    assert judged(rpm(PAYLOAD, bytes(11))) is Reason.DAMAGED
    assert judged(rpm(b"")) is Reason.DAMAGED
    assert judged(rpm(PAYLOAD)[:120]) is Reason.DAMAGED


def test_padding_with_something_in_it_and_a_third_header_are_ambiguous() -> None:
    assert judged(rpm(PAYLOAD, b"abc")) is Reason.AMBIGUOUS
    assert judged(rpm(header(b"more") + PAYLOAD)) is Reason.AMBIGUOUS
