from __future__ import annotations

import json
import pickle
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import vodozemac
from hypothesis import given
from hypothesis import strategies as st

from scanner.crypto.pk import ServerKeys, generate_secret, parse_secret
from scanner.errors import ClientError, MalformedRequest, SealedBodyError

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "pk_encryption.json").read_text())
SECRETS = {key["name"]: b64decode(key["secret_b64"]) for key in VECTORS["keys"]}
SEALED = VECTORS["decrypt"]
PROBES = VECTORS["probes"]
OK = PROBES[0]
BODY = next(vector for vector in SEALED if vector["name"] == "mcs-body/seq")

Json = Any
Said = Callable[[BaseException], str]
secrets = st.binary(min_size=32, max_size=32)


def by_name(vectors: list[Json]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


def unpadded(raw: bytes) -> str:
    return b64encode(raw).decode().rstrip("=")


def seal(plaintext: bytes, public_key: str) -> dict[str, str]:
    """A body sealed by vodozemac, as a client does."""
    recipient = vodozemac.Curve25519PublicKey.from_base64(public_key)
    message = vodozemac.PkEncryption.from_key(recipient).encrypt(plaintext)
    parts = {"ephemeral": message.ephemeral_key, "ciphertext": message.ciphertext, "mac": message.mac}
    return {name: unpadded(part) for name, part in parts.items()}


def opened_by_vodozemac(secret: bytes, message: dict[str, str]) -> bytes | None:
    """None if it refuses."""
    decryption = vodozemac.PkDecryption.from_key(vodozemac.Curve25519SecretKey.from_bytes(secret))
    parts = (message["ciphertext"], message["mac"], message["ephemeral"])
    try:
        return decryption.decrypt(vodozemac.Message.from_base64(*parts))
    except vodozemac.PkDecodeException:
        return None


def opened_by_us(secret: bytes, message: dict[str, str]) -> bytes | None:
    try:
        return ServerKeys(secret).open(message)
    except SealedBodyError:
        return None


@pytest.mark.parametrize("key", by_name(VECTORS["keys"]))
def test_public_key_belongs_to_the_secret(key: Json) -> None:
    public_key = ServerKeys(parse_secret(key["secret_b64"])).public_key
    assert public_key == key["public_key"]
    assert len(public_key) == 43


@pytest.mark.parametrize("vector", by_name(SEALED))
def test_bodies_sealed_by_each_implementation_open(vector: Json) -> None:
    assert ServerKeys(SECRETS[vector["key"]]).open(vector) == b64decode(vector["plaintext_b64"])


def test_every_probe_says_what_is_expected_of_us() -> None:
    assert {probe["ours"].split("-")[0] for probe in PROBES} == {"accept", "reject", "either"}


@pytest.mark.parametrize("probe", by_name([p for p in PROBES if p["ours"] == "reject"]))
def test_probes_that_must_not_open_are_refused(probe: Json) -> None:
    with pytest.raises(SealedBodyError):
        ServerKeys(SECRETS[probe["key"]]).open(probe)


@pytest.mark.parametrize("probe", by_name([p for p in PROBES if p["ours"] in ("accept", "either")]))
def test_harmless_probes_open(probe: Json) -> None:
    assert ServerKeys(SECRETS[probe["key"]]).open(probe) == b'{"file":{}}'


def test_a_ciphertext_altered_in_the_middle_opens_as_garbage() -> None:
    """The MAC does not cover the ciphertext: whoever reads the result must not trust it."""
    (probe,) = (p for p in PROBES if p["ours"].startswith("accept-at-pk-layer"))
    garbled = ServerKeys(SECRETS["seq"]).open(probe)
    assert garbled.startswith(b'{"file":{"pad":"')
    with pytest.raises(UnicodeDecodeError):
        garbled.decode()


@pytest.mark.parametrize("message", [None, [], "sealed", 1, True, {}])
def test_a_message_that_is_no_object_of_strings_is_malformed(message: Json) -> None:
    with pytest.raises(MalformedRequest):
        ServerKeys(SECRETS["seq"]).open(message)


@pytest.mark.parametrize("name", ["ephemeral", "ciphertext", "mac"])
@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["AAAA"]])
def test_a_member_that_is_no_string_is_malformed(name: str, value: Json) -> None:
    with pytest.raises(MalformedRequest, match=name):
        ServerKeys(SECRETS["seq"]).open({**OK, name: value})


@pytest.mark.parametrize("name", ["ephemeral", "ciphertext", "mac"])
def test_a_missing_member_is_malformed_even_beside_one_that_cannot_be_decoded(name: str) -> None:
    message = {other: "***" for other in ("ephemeral", "ciphertext", "mac") if other != name}
    with pytest.raises(MalformedRequest, match=name):
        ServerKeys(SECRETS["seq"]).open(message)


@pytest.mark.parametrize("name", ["ephemeral", "ciphertext", "mac"])
@pytest.mark.parametrize(
    "value", ["", "=", "A", "A===", "é" * 43, "\ud800" * 11, "\0", "AAAA AAAAAA", "AA=A"]
)
def test_a_member_that_is_no_base64_does_not_open(name: str, value: str) -> None:
    with pytest.raises(SealedBodyError, match=name):
        ServerKeys(SECRETS["seq"]).open({**OK, name: value})


@pytest.mark.parametrize("name", ["ephemeral", "ciphertext", "mac"])
def test_a_stray_character_in_base64_is_not_skipped(name: str) -> None:
    padded = OK[name] + "=" * (-len(OK[name]) % 4)
    ServerKeys(SECRETS["seq"]).open({**OK, name: padded})
    for spoilt in ("\n" + padded, padded[:4] + " " + padded[4:], padded + "\n"):
        with pytest.raises(SealedBodyError, match=name):
            ServerKeys(SECRETS["seq"]).open({**OK, name: spoilt})


@given(plaintext=st.binary(max_size=200), secret=secrets)
def test_what_vodozemac_seals_for_our_public_key_opens(plaintext: bytes, secret: bytes) -> None:
    keys = ServerKeys(secret)
    message = seal(plaintext, keys.public_key)
    assert keys.open(message) == plaintext
    assert opened_by_vodozemac(secret, message) == plaintext


@given(secret=secrets)
def test_public_key_is_the_one_vodozemac_derives(secret: bytes) -> None:
    decryption = vodozemac.PkDecryption.from_key(vodozemac.Curve25519SecretKey.from_bytes(secret))
    assert ServerKeys(secret).public_key == decryption.public_key.to_base64()


@given(name=st.sampled_from(["ephemeral", "ciphertext", "mac"]), bit=st.integers(min_value=0))
def test_one_flipped_bit_has_the_effect_that_it_has_on_vodozemac(name: str, bit: int) -> None:
    """Both refuse, or both open it to the same bytes."""
    raw = bytearray(b64decode(BODY[name] + "=="))
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8
    message = {**BODY, name: unpadded(bytes(raw))}
    assert opened_by_us(SECRETS["seq"], message) == opened_by_vodozemac(SECRETS["seq"], message)


@pytest.mark.parametrize("position", [0, 1, 3])
def test_bodies_sealed_for_a_retired_key_open(position: int) -> None:
    retired = [bytes([i]) * 32 for i in range(1, 4)]
    retired.insert(position, SECRETS["seq"])
    keys = ServerKeys(SECRETS["mcs-tests"], retired)
    assert keys.public_key == ServerKeys(SECRETS["mcs-tests"]).public_key
    assert keys.open(BODY) == b64decode(BODY["plaintext_b64"])


def test_a_key_that_was_neither_current_nor_retired_opens_nothing() -> None:
    with pytest.raises(SealedBodyError):
        ServerKeys(SECRETS["mcs-tests"], [bytes([7]) * 32]).open(BODY)


def test_wrong_mac_and_wrong_padding_read_the_same() -> None:
    """The text must not say how far a forged body came."""
    probes = ("mac-flipped", "ct-last-bit-flipped", "ephemeral-zero (low order)", "wrong-key")
    said = set()
    for probe in (p for p in PROBES if p["name"] in probes):
        with pytest.raises(SealedBodyError) as refusal:
            ServerKeys(SECRETS[probe["key"]]).open(probe)
        said.add(refusal.value.info)
    assert len(said) == 1


def test_generated_secrets_are_new_and_read_back() -> None:
    first, second = generate_secret(), generate_secret()
    assert first != second
    assert b64encode(parse_secret(first)).decode() == first


@pytest.mark.parametrize("text", ["{}", "{}\n", " {}\r\n\n"])
@pytest.mark.parametrize("padding", ["", "="])
def test_a_secret_file_may_end_in_white_space(text: str, padding: str) -> None:
    content = text.format(unpadded(SECRETS["seq"]) + padding)
    assert parse_secret(content) == parse_secret(content.encode()) == SECRETS["seq"]


MALFORMED_SECRETS = [
    "",
    "vogel",
    "vogelé" * 8,
    "vogel\ud800",
    "vogel/" * 7 + "v=\n=",
    "-_vogel" + "A" * 36,
    unpadded(b"vogel" * 6),
    unpadded(b"vogel" * 7),
    unpadded(b"vogel" * 6 + b"ab") + "==",
    "A" * 20 + "\n" + "A" * 23,
    "# vogel\n" + unpadded(SECRETS["seq"]),
]


@pytest.mark.parametrize("text", MALFORMED_SECRETS)
def test_a_malformed_secret_file_is_refused_without_showing_it(text: str, everything_said_by: Said) -> None:
    with pytest.raises(ValueError, match="32 bytes in base64") as refusal:
        parse_secret(text)
    assert not [part for part in ("vogel", text[:10] or "vogel") if part in everything_said_by(refusal.value)]


@pytest.mark.parametrize("content", [b"\xff\xfe" + b"A" * 42, b"vogel\xff", b"\0" * 32, b"\x80" * 32])
def test_a_binary_secret_file_is_refused_without_showing_it(content: bytes, everything_said_by: Said) -> None:
    with pytest.raises(ValueError, match="32 bytes in base64") as refusal:
        parse_secret(content)
    said = everything_said_by(refusal.value)
    assert not [form for form in ("vogel", repr(content)[2:-1], content.hex()) if form in said]


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_the_wrong_length_makes_no_server_keys(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ServerKeys(bytes(length))
    with pytest.raises(ValueError, match="32 bytes"):
        ServerKeys(SECRETS["seq"], [bytes(length)])


def spellings(raw: bytes) -> set[str]:
    """The secret in every form in which it could leak."""
    return {unpadded(raw), raw.hex(), repr(raw)[2:-1], str(list(raw))}


def test_server_keys_show_nothing_of_their_secrets(everything_said_by: Said) -> None:
    keys = ServerKeys(SECRETS["seq"], [SECRETS["mcs-tests"]])
    with pytest.raises(TypeError) as refusal:
        pickle.dumps(keys)
    shown = [repr(keys), str(keys), f"{keys}", f"{[keys]}", everything_said_by(refusal.value)]
    assert shown[0] == "<ServerKeys>"
    leaks = {form for secret in SECRETS.values() for form in spellings(secret)}
    assert not [form for form in leaks for text in shown if form in text]


@pytest.mark.parametrize("probe", by_name([p for p in PROBES if p["ours"] == "reject"]))
def test_no_error_shows_secrets_or_what_was_sent(probe: Json, everything_said_by: Said) -> None:
    with pytest.raises(ClientError) as refusal:
        ServerKeys(SECRETS[probe["key"]]).open(probe)
    said = everything_said_by(refusal.value)
    sent = {probe[name] for name in ("ephemeral", "ciphertext", "mac")} - {""}
    assert not [
        form for form in sent | spellings(SECRETS["seq"]) | spellings(SECRETS["mcs-tests"]) if form in said
    ]
