"""A pickle that libolm 3.2.16 (PyPI python-olm) has made, and what must not pass for one."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from secrets import token_hex

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers

from scanner.crypto.olm_pickle import unpickle_secret
from scanner.crypto.pk import ServerKeys

PICKLE_KEY = "some_random_secret"
PICKLE = (
    b"2yBwquuwcCjGcWPYSDgOrf3hNVyTODII7BhUcrme55z3kcF6zx/UGUwMcGgxOEbM"
    b"X9cfAcPh4D1skvj9hOpAHoBsrgxKDzjnbpeQZVUZTtr6fwWkw5Gz8w"
)
PUBLIC_KEY = "seLaFQdjQyejnN4vqUQKgUzMG5SOctl4DBtNx+7gsjA"


@pytest.mark.parametrize("text", [PICKLE, PICKLE + b"\n", b"  " + PICKLE + b"==\r\n"])
def test_the_secret_has_the_public_key_that_libolm_told(text: bytes) -> None:
    assert ServerKeys(unpickle_secret(text, PICKLE_KEY)).public_key == PUBLIC_KEY


def test_another_pickle_key_is_told_without_showing_it(
    everything_said_by: Callable[[BaseException], str],
) -> None:
    other_key = token_hex()
    with pytest.raises(ValueError, match="made with another pickle key") as refused:
        unpickle_secret(PICKLE, other_key)
    said = everything_said_by(refused.value)
    assert other_key not in said
    assert PICKLE.decode() not in said


@given(integers(0, 87), integers(1, 255))
def test_every_damaged_byte_is_noticed(place: int, flipped: int) -> None:
    sealed = bytearray(b64decode(PICKLE + b"=="))
    sealed[place] ^= flipped
    with pytest.raises(ValueError, match="damaged"):
        unpickle_secret(b64encode(sealed), PICKLE_KEY)


@given(binary())
def test_whatever_else_is_no_pickle(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a pickled PkDecryption|damaged"):
        unpickle_secret(text, PICKLE_KEY)
