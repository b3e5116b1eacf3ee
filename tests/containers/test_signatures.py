"""Every signature is found, wherever it begins; nothing else is, and nothing takes long."""

from __future__ import annotations

import random
import re
import struct
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.containers.inspection import STEP
from scanner.containers.signatures import LONGEST, signatures

# With the pattern that a plain search would look for, one byte after the other.
SIGNATURES = {
    b"PK\3\4": rb"PK\x03\x04",
    b"7z\xbc\xaf\x27\x1c": rb"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07": rb"Rar!\x1a\x07",
    b"\xfd7zXZ\0": rb"\xfd7zXZ\0",
    b"\x1f\x8b\x08": rb"\x1f\x8b\x08",
    b"BZh91AY&SY": rb"BZh[1-9]1AY&SY",
    b"\x28\xb5\x2f\xfd": rb"\x28\xb5\x2f\xfd",
    b"ustar\0": rb"ustar\0",
    b"ustar ": rb"ustar ",
    b"ustar0": rb"ustar0",
    b"07070100c0ffee": rb"07070[127][0-9A-Fa-f]{8}",
    b"xar!\0\x1c\0\1": rb"xar!\0\x1c\0\x01",
    b"MSWIM\0\0\0": rb"MSWIM\0\0\0",
    b"hsqs": rb"hsqs",
    b"MSCF\0\0\0\0": rb"MSCF\0\0\0\0",
    b"CD001\1\0": rb"CD001\x01\0",
    b"BEA01\1\0": rb"BEA01\x01\0",
}
HEADER = (0o70707, 0, 1, 0o100644, 0, 0, 1, 0, 0, 0, 2, 0, 5)
OLD_CPIO = [struct.pack(order + "13H", *HEADER) for order in "<>"]
PLAIN = re.compile(b"(?=%b)" % b"|".join(SIGNATURES.values()))
_WINDOW = 24 * 1024


def found_in(step: bytes) -> list[int]:
    return sorted(match.start() for window in signatures(step, STEP) for match in window)


@pytest.mark.parametrize("signature", [*SIGNATURES, *OLD_CPIO])
@pytest.mark.parametrize("place", [0, 1, 5000, *(_WINDOW - early for early in (0, 1, 3, 9, 26, 40))])
def test_a_signature_is_found_wherever_it_begins(signature: bytes, place: int) -> None:
    step = b"\xff" * place + signature + b"\xff" * (2 * _WINDOW)
    assert set(found_in(step)) == {place}
    assert not found_in(step.replace(signature[:2], signature[:1] + b"\xff"))


@given(
    st.lists(
        st.sampled_from([*SIGNATURES, b"\xff", b"\xfd", b"7z", b"\x28\xb5\x2f", b"\xc7\x71\xc7", bytes(40)])
    ),
    st.integers(0, 60),
)
def test_what_a_plain_search_finds_is_found(pieces: list[bytes], before: int) -> None:
    """But for one cpio in another, in digits: the outer one is enough."""
    step = b"\xff" * (_WINDOW - before) + b"".join(pieces)
    step = re.sub(rb"070701(?=00c0ffee07)", b"\xff" * 6, step)
    found = {at for at in found_in(step) if step[at : at + 2] not in (b"\xc7\x71", b"\x71\xc7")}
    assert found == {match.start() for match in PLAIN.finditer(step)}


@pytest.mark.parametrize("header", OLD_CPIO)
@pytest.mark.parametrize("magics", [0, 10, 1000, 40_000])
def test_old_cpio_is_found_among_many_of_its_magics(header: bytes, magics: int) -> None:
    step = b"\xff\xc7\x71\xff" * magics + b"\xff" * 16 + header + b"\xc7\x71\xc7" * magics
    assert found_in(step[: STEP + LONGEST]) == [4 * magics + 16]


def test_signatures_without_zeros_are_found_in_text() -> None:
    """A tar may be text, and so may be what comes before the zero in a cpio or an LHA."""
    text = b"PK\3\4, hsqs and Rar!\x1a\x07\n" * 99
    assert found_in(text) == []
    for signature in (b"BZh91AY&SY", b"ustar ", b"ustar0", b"07070100c0ffee", b"-lh5-"):
        assert len(text) in found_in(text + signature + text)
    assert len(found_in(text + b"\0")) == 3 * 99


@pytest.mark.alone
@pytest.mark.usefixtures("freshly_started")
@pytest.mark.parametrize(
    "content", [b"\xc7\x71", b"\x1f\x8b\x08", b"hsqs", b"07", b"PK\3", b"\x1f\x8b\xc7\x71"]
)
def test_no_window_takes_long(content: bytes) -> None:
    step = content * (STEP // len(content))
    assert min(_longest(step) for _ in range(5)) < 0.01


def _longest(step: bytes) -> float:
    """Seconds of processor time between two windows."""
    times = [time.thread_time(), *(time.thread_time() for _ in signatures(step, STEP))]
    return max(later - earlier for earlier, later in pairwise(times))


@pytest.mark.slow
def test_noise_costs_next_to_nothing() -> None:
    """A byte of a picture: less than a nanosecond. A pattern alone takes twenty times as long."""
    step = random.Random(1).randbytes(STEP)
    began = time.thread_time()
    for _ in range(40):
        found_in(step)
    assert time.thread_time() - began < 40 * STEP * 2e-9
