"""The quarantine envelope: what is sealed, nobody but its recipients reads or changes."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.crypto.envelope import (
    HEAD,
    MOST_RECIPIENTS,
    Header,
    Mode,
    Opener,
    Sealer,
    header_size,
    public_key_of,
)
from scanner.errors import EnvelopeError

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests" / "vectors" / "envelopes.json").read_text())
ALICE, BOB, EVE = (bytes([number]) * 32 for number in (1, 2, 3))


def sealed(
    plaintext: bytes, private_keys: Sequence[bytes] = (ALICE,), mode: Mode = Mode.ANY, chunk: int = 8
) -> bytes:
    sealer = Sealer([public_key_of(key) for key in private_keys], len(plaintext), mode, chunk)
    pieces = [plaintext[i * chunk : (i + 1) * chunk] for i in range(sealer.header.chunks)]
    return sealer.header.to_bytes() + b"".join(sealer.seal(i, piece) for i, piece in enumerate(pieces))


def opened(envelope: bytes, *private_keys: bytes) -> bytes:
    """The plaintext of a whole envelope."""
    opener = Opener(Header.parse(envelope), private_keys)
    plaintext = b""
    for index in range(opener.header.chunks):
        offset, length = opener.place(index)
        plaintext += opener.open(index, envelope[offset : offset + length])
    assert len(envelope) == opener.header.stored_size
    return plaintext


@given(st.binary(max_size=64), st.integers(1, 20), st.sampled_from(Mode))
def test_recipients_read_what_was_sealed(plaintext: bytes, chunk: int, mode: Mode) -> None:
    envelope = sealed(plaintext, (ALICE, BOB), mode, chunk)
    assert opened(envelope, ALICE, BOB) == plaintext
    assert len(plaintext) < 16 or not any(plaintext) or plaintext not in envelope


def test_any_recipient_opens_alone_and_nobody_else() -> None:
    envelope = sealed(b"plaintext", (ALICE, BOB))
    assert opened(envelope, BOB) == opened(envelope, ALICE) == b"plaintext"
    with pytest.raises(EnvelopeError, match="another key"):
        opened(envelope, EVE)


@pytest.mark.parametrize("alone", [(ALICE,), (BOB,), (ALICE, EVE), (ALICE, ALICE)])
def test_what_needs_all_keys_opens_with_no_fewer(alone: tuple[bytes, ...]) -> None:
    with pytest.raises(EnvelopeError, match="more keys"):
        opened(sealed(b"plaintext", (ALICE, BOB), Mode.ALL), *alone)


def test_no_bit_of_an_envelope_can_be_changed() -> None:
    envelope = sealed(b"two chunks!!", (ALICE,))
    for position in range(len(envelope)):
        changed = bytearray(envelope)
        changed[position] ^= 1
        with pytest.raises((EnvelopeError, AssertionError)):
            opened(bytes(changed), ALICE)


def test_chunks_cannot_be_swapped_cut_off_or_taken_from_another_envelope() -> None:
    envelope, other = sealed(b"1234567812345678"), sealed(b"1234567812345678")
    start = header_size(envelope)
    one, two = envelope[start : start + 24], envelope[start + 24 :]
    for chunks in (two + one, one, one + other[start + 24 :]):
        with pytest.raises(EnvelopeError):
            opened(envelope[:start] + chunks, ALICE)


@given(st.binary(max_size=200))
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        Header.parse(data)


@pytest.mark.parametrize("cut", [0, HEAD - 1, HEAD, HEAD + 1])
def test_an_envelope_that_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(EnvelopeError, match="cut off"):
        Header.parse(sealed(b"plaintext")[:cut])


@pytest.mark.parametrize("number", [0, MOST_RECIPIENTS + 1])
def test_there_are_some_recipients_and_not_too_many(number: int) -> None:
    with pytest.raises(EnvelopeError):
        Sealer([public_key_of(ALICE)] * number, 1)


def test_a_public_key_that_agrees_with_everybody_is_refused() -> None:
    with pytest.raises(EnvelopeError, match="unusable"):
        Sealer([bytes(32)], 1)


def test_two_envelopes_of_the_same_have_nothing_in_common() -> None:
    one, other = sealed(bytes(64)), sealed(bytes(64))
    assert one[HEAD + 32 :] != other[HEAD + 32 :]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_envelopes_of_this_version_stay_readable(vector: dict[str, str | list[str]]) -> None:
    keys = [bytes.fromhex(key) for key in vector["private_keys"]]
    envelope, plaintext = (b64decode(str(vector[name])) for name in ("envelope", "plaintext"))
    assert opened(envelope, *keys) == plaintext


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_reader_in_the_docs_reads_them_and_needs_nothing_of_ours(
    vector: dict[str, str | list[str]], tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "envelope.md").read_text()
    reader = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert reader is not None
    assert reader[1].count("\n") <= 60
    names: dict[str, object] = {"__name__": "reader"}
    exec(compile(reader[1], "docs/envelope.md", "exec"), names)  # noqa: S102 - it is our own text
    keys = [bytes.fromhex(key) for key in vector["private_keys"]]
    envelope, plaintext = (b64decode(str(vector[name])) for name in ("envelope", "plaintext"))
    assert names["read"](envelope, keys) == plaintext  # type: ignore[operator]
    assert "import scanner" not in reader[1]
    assert "from scanner" not in reader[1]


def test_a_key_is_in_no_envelope_and_in_no_repr() -> None:
    sealer = Sealer([public_key_of(ALICE)], 4)
    opener = Opener(sealer.header, [ALICE])
    assert ALICE.hex() not in repr(opener) + repr(sealer) + repr(sealer.header)
