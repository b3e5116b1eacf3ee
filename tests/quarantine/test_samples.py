"""Sealed samples, opened and packed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import pyzipper

from scanner.crypto.envelope import CHUNK, Header, Mode, public_key_of
from scanner.errors import EnvelopeError, StoreError
from scanner.ports import Stored
from scanner.quarantine.catalogue import SealedSample
from scanner.quarantine.samples import PASSWORD, envelope_of, examined, fits, needed, opened, zipped
from scanner.stores.local import Local
from tests.quarantine.stock import OTHER, SOC, digest, envelope, put_sample, sample_key

CONTENT = b"x" * (CHUNK + 1)
SOCS, OTHERS = public_key_of(SOC), public_key_of(OTHER)


def stored(content: bytes, size: int, *keys: bytes) -> SealedSample:
    sample = SealedSample.of(Stored(sample_key(content, *keys), size, 0.0))
    assert sample is not None
    return sample


@pytest.mark.parametrize("content", [b"", b"sample", CONTENT])
def test_what_was_sealed_is_opened(content: bytes) -> None:
    sealed = envelope(content)
    header = examined(stored(content, len(sealed)), sealed)
    assert opened(header, sealed, [SOC], digest(content)) == content


def test_what_is_not_what_its_name_says_is_not_handed_out() -> None:
    sealed = envelope(b"another")
    with pytest.raises(EnvelopeError, match="not what its name says"):
        opened(Header.parse(sealed), sealed, [SOC], digest(b"sample"))


def test_an_envelope_is_compared_with_its_name_and_size_without_any_key() -> None:
    sealed = envelope(b"sample")
    with pytest.raises(EnvelopeError, match="should have 158 bytes, and has 157"):
        examined(stored(b"sample", 157), sealed[:-1])
    with pytest.raises(EnvelopeError, match="should have"):
        examined(stored(b"sample", 9), sealed)
    with pytest.raises(EnvelopeError, match="sealed to others"):
        examined(stored(b"sample", 158, OTHER), sealed)
    with pytest.raises(EnvelopeError, match="no envelope"):
        examined(stored(b"sample", 158), bytes(158))


@pytest.mark.parametrize(
    ("mode", "ours", "enough"),
    [
        (Mode.ANY, [SOCS], True),
        (Mode.ANY, [OTHERS], True),
        (Mode.ANY, [b"\3" * 32], False),
        (Mode.ALL, [SOCS], False),
        (Mode.ALL, [SOCS, SOCS], False),
        (Mode.ALL, [SOCS, OTHERS], True),
    ],
)
def test_it_takes_as_many_keys_as_the_mode_asks_for(mode: Mode, ours: list[bytes], enough: bool) -> None:
    header = Header.parse(envelope(b"sample", SOC, OTHER, mode=mode))
    assert fits(header, ours) is enough
    assert needed(header) == (2 if mode is Mode.ALL else 1)


def test_the_archive_opens_with_the_usual_password_alone_and_shows_nothing() -> None:
    packed = zipped(b"plaintext" * 9, digest(b"a"))
    assert b"plaintext" not in packed
    with pyzipper.AESZipFile(io.BytesIO(packed)) as archive:
        [info] = archive.infolist()
        assert info.filename == digest(b"a")
        assert info.wz_aes_strength == 3  # 256 bits
        with pytest.raises(RuntimeError):
            archive.read(info)
        assert archive.read(info, pwd=PASSWORD) == b"plaintext" * 9


async def test_what_was_deleted_meanwhile_is_a_store_error(tmp_path: Path) -> None:
    store = Local(tmp_path)
    sample = stored(b"sample", 158)
    with pytest.raises(StoreError, match="is gone"):
        await envelope_of(store, sample)
    await put_sample(store, b"sample")
    assert len(await envelope_of(store, sample)) == 158
