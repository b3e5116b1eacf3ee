from __future__ import annotations

import copy
import hashlib
import json
import mmap
import pickle
from base64 import b64decode, b64encode
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given
from hypothesis import strategies as st

from scanner.crypto.attachment import AttachmentKey
from scanner.errors import ClientError, DecryptionError, MalformedRequest

VECTORS = Path(__file__).parent.parent / "vectors"
ATTACHMENTS = json.loads((VECTORS / "attachments.json").read_text())
VALID = ATTACHMENTS["valid"]
VARIANTS = ATTACHMENTS["variants"]
BASE = VARIANTS[0]["file"]
# Joined at run time: not even the byte code is a detection.
EICAR = b"".join((b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$", b"EICAR", b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"))

Json = Any
Said = Callable[[BaseException], str]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def by_name(vectors: list[Json]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


def ciphertext_of(vector: Json) -> bytes:
    if "ciphertext_file" in vector:
        return Path(VECTORS, vector["ciphertext_file"]).read_bytes()
    return b64decode(vector["ciphertext_b64"])


def plaintext_by_rule(size: int) -> bytes:
    return bytes((31 * i + 7) & 255 for i in range(256)) * (size // 256 + 1)


def open_attachment(file: Json, ciphertext: bytes) -> bytes:
    key = AttachmentKey.parse(file)
    key.check(len(ciphertext), hashlib.sha256(ciphertext).digest())
    plaintext = bytearray(len(ciphertext))
    key.decryptor().decrypt_into(ciphertext, plaintext)
    return bytes(plaintext)


def key_with(*, iv: bytes, ciphertext: bytes = b"") -> AttachmentKey:
    sha256 = b64encode(hashlib.sha256(ciphertext).digest()).decode()
    return AttachmentKey.parse({**BASE, "iv": b64encode(iv).decode(), "hashes": {"sha256": sha256}})


def altered(path: tuple[str, ...], value: Json) -> Json:
    file = copy.deepcopy(BASE)
    parent = file
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    return file


@pytest.mark.parametrize("vector", by_name(VALID))
def test_attachments_made_by_real_clients_decrypt(vector: Json) -> None:
    ciphertext = ciphertext_of(vector)
    assert hashlib.sha256(ciphertext).hexdigest() == vector["ciphertext_sha256_hex"]
    expected = EICAR if vector["name"] == "eicar" else plaintext_by_rule(vector["size"])[: vector["size"]]
    assert open_attachment(vector["file"], ciphertext) == expected


@pytest.mark.parametrize("vector", by_name([v for v in VARIANTS if v["ours"].startswith("200")]))
def test_what_clients_decrypt_to_one_plaintext_is_accepted(vector: Json) -> None:
    plaintext = open_attachment(vector["file"], ciphertext_of(vector))
    garbage = vector["observed"]["matrix-encrypt-attachment/node"] == "ok-but-wrong-plaintext"
    assert (plaintext != plaintext_by_rule(64)[:64]) == garbage


MALFORMED = [v for v in VARIANTS if v["ours"] == "400 MCS_MALFORMED_JSON"]
UNDECRYPTABLE = [v for v in VARIANTS if v["ours"] == "400 MCS_MEDIA_FAILED_TO_DECRYPT"]


def test_every_variant_is_put_to_the_test() -> None:
    accepted = [v for v in VARIANTS if v["ours"].startswith("200")]
    assert len(accepted) + len(MALFORMED) + len(UNDECRYPTABLE) == len(VARIANTS)


@pytest.mark.parametrize("vector", by_name(MALFORMED))
def test_a_file_of_another_shape_is_malformed(vector: Json) -> None:
    with pytest.raises(MalformedRequest):
        AttachmentKey.parse(vector["file"])


@pytest.mark.parametrize("vector", by_name(UNDECRYPTABLE))
def test_unusable_key_material_is_a_decryption_error_with_its_cause(vector: Json) -> None:
    with pytest.raises(DecryptionError) as refusal:
        open_attachment(vector["file"], ciphertext_of(vector))
    expected = "key" if vector["name"].startswith(("key-", "iv-")) else "hash"
    assert refusal.value.cause == expected


@pytest.mark.parametrize("file", [None, [], "file", 1, True])
def test_a_file_that_is_no_object_is_malformed(file: Json) -> None:
    with pytest.raises(MalformedRequest):
        AttachmentKey.parse(file)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("key", "ext"), 1),
        (("key", "k"), ["k"]),
        (("key", "key_ops"), [{}, "encrypt", "decrypt"]),
        (("key", "key_ops"), ["encrypt", "decrypt", 3]),
        (("hashes",), []),
        (("hashes", "sha256"), None),
    ],
)
def test_a_member_of_the_wrong_type_is_malformed(path: tuple[str, ...], value: Json) -> None:
    with pytest.raises(MalformedRequest, match=path[-1]):
        AttachmentKey.parse(altered(path, value))


@pytest.mark.parametrize("path", [("key", "k"), ("iv",), ("hashes", "sha256")])
@pytest.mark.parametrize(
    "value", ["=", "é" * 43, "\ud800", "\0" * 22, " " + "A" * 42, "A" * 21 + "\n", "A" * 45]
)
def test_what_is_no_base64_is_a_decryption_error(path: tuple[str, ...], value: str) -> None:
    with pytest.raises(DecryptionError, match=path[-1]):
        AttachmentKey.parse(altered(path, value))


@pytest.mark.parametrize(("path", "text"), [(("key", "k"), "A" * 43), (("iv",), "A" * 22)])
@pytest.mark.parametrize("stray", ["\n", " ", "*", "é"])
def test_a_stray_character_in_base64_is_not_skipped(path: tuple[str, ...], text: str, stray: str) -> None:
    padding = "=" * (-len(text) % 4)
    AttachmentKey.parse(altered(path, text + padding))
    for spoilt in (stray + text + padding, text[:4] + stray + text[4:] + padding, text + padding + stray):
        with pytest.raises(DecryptionError, match=path[-1]):
            AttachmentKey.parse(altered(path, spoilt))


@given(
    path=st.sampled_from(
        [("v",), ("key",), ("iv",), ("hashes",), ("hashes", "sha256")]
        + [("key", name) for name in ("kty", "alg", "k", "ext", "key_ops")]
    ),
    value=json_values,
)
def test_nothing_but_a_client_error_comes_of_arbitrary_json(path: tuple[str, ...], value: Json) -> None:
    try:
        AttachmentKey.parse(altered(path, value))
    except ClientError:
        return
    assert path == ("key", "ext")
    assert value is True


@given(bit=st.integers(0, 64 * 8 - 1))
def test_a_tampered_ciphertext_is_refused(bit: int) -> None:
    tampered = bytearray(ciphertext_of(VARIANTS[0]))
    tampered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecryptionError) as refusal:
        open_attachment(BASE, bytes(tampered))
    assert refusal.value.cause == "hash"


def keystream(iv: bytes, blocks: int, counter_bits: int) -> bytes:
    """AES-CTR made of single blocks: the counter is the low `counter_bits`, the rest of the IV is fixed."""
    first = int.from_bytes(iv, "big")
    mask = 2**counter_bits - 1
    counters = [first & ~mask | (first + i) & mask for i in range(blocks)]
    encryptor = Cipher(AES(b64decode(BASE["key"]["k"] + "=", altchars=b"-_")), ECB()).encryptor()
    return encryptor.update(b"".join((c % 2**128).to_bytes(16, "big") for c in counters))


@given(nonce=st.binary(min_size=8, max_size=8), before_wrap=st.integers(1, 6), size=st.integers(0, 80))
def test_counter_is_refused_exactly_where_clients_would_disagree(
    nonce: bytes, before_wrap: int, size: int
) -> None:
    """Web counts in 64 bits, everybody else in 128: refused if and only if the two keystreams differ."""
    ciphertext = bytes(size)
    iv = nonce + (2**64 - before_wrap).to_bytes(8, "big")
    key = key_with(iv=iv, ciphertext=ciphertext)
    blocks = -(-size // 16)
    agree = keystream(iv, blocks, 64) == keystream(iv, blocks, 128)
    try:
        key.check(size, hashlib.sha256(ciphertext).digest())
    except DecryptionError as refusal:
        assert refusal.cause == "key"  # noqa: PT017 - either outcome is right, each with its own claim
        assert not agree
    else:
        plaintext = bytearray(size)
        key.decryptor().decrypt_into(ciphertext, plaintext)
        assert agree
        assert plaintext == keystream(iv, blocks, 64)[:size]


@pytest.mark.parametrize(("size", "fits"), [(0, True), (1, True), (16, True), (17, False), (2**40, False)])
def test_last_counter_value_covers_one_block(size: int, fits: bool) -> None:
    key = key_with(iv=b"\xff" * 16)
    if fits:
        key.check(size, key.ciphertext_sha256)
    else:
        with pytest.raises(DecryptionError, match="wrap"):
            key.check(size, key.ciphertext_sha256)


@given(ciphertext=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=12))
def test_decryption_does_not_depend_on_the_chunking(ciphertext: bytes, cuts: list[int]) -> None:
    whole = bytearray(len(ciphertext))
    key = AttachmentKey.parse(BASE)
    key.decryptor().decrypt_into(ciphertext, whole)
    pieces = bytearray(len(ciphertext))
    source, target, decryptor = memoryview(ciphertext), memoryview(pieces), key.decryptor()
    edges = sorted({0, len(ciphertext), *(min(cut, len(ciphertext)) for cut in cuts)})
    for start, end in pairwise(edges):
        decryptor.decrypt_into(source[start:end], target[start:end])
    assert pieces == whole


def test_one_byte_at_a_time_decrypts_a_real_attachment() -> None:
    vector = VARIANTS[0]
    ciphertext, plaintext = memoryview(ciphertext_of(vector)), bytearray(64)
    decryptor = AttachmentKey.parse(vector["file"]).decryptor()
    for i in range(64):
        decryptor.decrypt_into(ciphertext[i : i + 1], memoryview(plaintext)[i : i + 1])
    assert plaintext == plaintext_by_rule(64)[:64]


def test_one_map_decrypts_into_another() -> None:
    """As in production: both sides are memory maps, and a longer target keeps its rest."""
    ciphertext = ciphertext_of(VARIANTS[0])
    with mmap.mmap(-1, 64) as source, mmap.mmap(-1, 128) as target:
        source.write(ciphertext)
        with memoryview(source) as readable, memoryview(target) as writable:
            AttachmentKey.parse(BASE).decryptor().decrypt_into(readable.toreadonly(), writable)
        assert target[:] == plaintext_by_rule(64)[:64] + bytes(64)


def test_too_small_a_target_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer"):
        AttachmentKey.parse(BASE).decryptor().decrypt_into(bytes(17), bytearray(16))


def test_secret_material_tells_attachments_apart_whatever_their_spelling() -> None:
    spellings = {
        AttachmentKey.parse(v["file"]).secret_material()
        for v in VARIANTS
        if v["name"] in ("valid-base", "key-padded", "key-standard-alphabet", "iv-urlsafe", "hash-padded")
    }
    others = {AttachmentKey.parse(v["file"]).secret_material() for v in VALID}
    assert len(spellings) == 1
    assert len(others) == len(VALID)
    assert {len(material) for material in spellings | others} == {80}


def test_a_key_cannot_be_changed() -> None:
    key = AttachmentKey.parse(BASE)
    with pytest.raises(AttributeError):
        key.ciphertext_sha256 = bytes(32)  # type: ignore[misc]


def spellings(file: Json) -> set[str]:
    """The secrets of `file` in every form in which they could leak."""
    texts = {file["key"]["k"], file["iv"]}
    raw = [b64decode(text.translate(str.maketrans("-_", "+/")) + "==") for text in texts]
    return texts | {form for secret in raw for form in (secret.hex(), repr(secret)[2:-1], str(list(secret)))}


def test_a_key_shows_nothing_of_itself(everything_said_by: Said) -> None:
    key = AttachmentKey.parse(BASE)
    shown = [repr(key), str(key), f"{key}", f"{[key]}", repr(key.decryptor())]
    assert shown[0] == "<AttachmentKey>"
    assert not [secret for secret in spellings(BASE) for text in shown if secret in text]
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as refusal:
            leave(key)
        assert not [secret for secret in spellings(BASE) if secret in everything_said_by(refusal.value)]


def long_strings(value: Json) -> set[str]:
    """Every string in `value` that is long enough to be key material."""
    if isinstance(value, dict):
        return {text for inner in value.values() for text in long_strings(inner)}
    return {value} if isinstance(value, str) and len(value) > 10 else set()


@pytest.mark.parametrize("vector", by_name(MALFORMED + UNDECRYPTABLE))
def test_no_error_shows_key_material(vector: Json, everything_said_by: Said) -> None:
    with pytest.raises(ClientError) as refusal:
        open_attachment(vector["file"], ciphertext_of(vector))
    said = everything_said_by(refusal.value)
    assert not [secret for secret in spellings(BASE) | long_strings(vector["file"]) if secret in said]


@pytest.mark.parametrize("path", [("key", "k"), ("iv",), ("hashes", "sha256")])
@pytest.mark.parametrize("bird", ["vogelé", "vogel\ud800", "vogel vogel", "vogel", "vogel" * 100])
def test_no_error_shows_a_value_that_cannot_be_decoded(
    path: tuple[str, ...], bird: str, everything_said_by: Said
) -> None:
    with pytest.raises(DecryptionError) as refusal:
        AttachmentKey.parse(altered(path, bird))
    assert "vogel" not in everything_said_by(refusal.value)
