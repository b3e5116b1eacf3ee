"""The media of the benchmark: base files, and any number of unique variants of each at no cost.

Caches of verdicts must never answer for another request, so every request has bytes of its own: the base
file and a tail of 64 bytes that its format ignores. Only the tail is new work: the ciphertext of a variant
is the base's with another tail (CTR mode), and its SHA-256 goes on from where the base's stood.

A media ID is `[e-]<base>_<variant>`; with `e-` it is the encrypted twin. Clean base files are kept below a
folder, infected ones are made in memory each time, so that nothing on a disk is a detection.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from tests.bench.file_formats import FORMATS, TAIL, Member, docx, mp4, text, zipped
from tests.bench.signatures import MARKER
from tests.real_clamd import EICAR

SERVER = "bench"
SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000, "20m": 20_000_000}
INFECTED = {
    "10k": ("eicar-plain", "eicar-zip", "marker-10k"),
    "100k": ("eicar-docx-100k",),
    "1m": ("eicar-docx-1m", "marker-1m"),
    "20m": ("marker-20m",),
}

_LETTERS = str.maketrans("0123456789", "ghijklmnop")
_SEED = "2024"
_VERSION = "corpus-2"  # raise it when a maker's files change


class Recipe(NamedTuple):
    """How a base file comes about."""

    format: str
    make: Callable[[Random], bytes]
    infected: bool = False


def _marked(size: int, rng: Random) -> bytes:
    """What must be found at the very end: a scanner that skips it is caught."""
    return mp4(size - len(MARKER), rng) + MARKER


def _recipes() -> dict[str, Recipe]:
    recipes = {
        "eicar-plain": Recipe("text", lambda rng: EICAR, infected=True),
        "eicar-zip": Recipe(
            "docx",
            lambda rng: zipped([Member("readme.txt", text(3000, rng)), Member("a/eicar.com", EICAR)]),
            infected=True,
        ),
    }
    for label, size in SIZES.items():
        for name, form in FORMATS.items():
            recipes[f"{name}-{label}"] = Recipe(name, partial(form.make, size - TAIL))
        recipes[f"eicar-docx-{label}"] = Recipe(
            "docx", partial(docx, size - TAIL, embedded=EICAR), infected=True
        )
        recipes[f"marker-{label}"] = Recipe("mp4", partial(_marked, size - TAIL), infected=True)
    return recipes


RECIPES = _recipes()


class BaseFile:
    """One file without its tail, and its encrypted twin."""

    def __init__(self, name: str, body: bytes) -> None:
        recipe = RECIPES[name]
        self.name = name
        self.infected = recipe.infected
        self.mime = FORMATS[recipe.format].mime
        self.body = body
        self._tail = FORMATS[recipe.format].tail
        self._key = hashlib.sha256(b"key" + name.encode()).digest()
        self._iv = hashlib.sha256(b"iv" + name.encode()).digest()[:8] + bytes(8)
        encryptor = Cipher(AES(self._key), CTR(self._iv)).encryptor()
        self.ciphertext = encryptor.update(body)
        self._key_stream = encryptor.update(bytes(TAIL))
        self._hash = hashlib.sha256(self.ciphertext)

    @property
    def size(self) -> int:
        """Bytes, the tail included."""
        return len(self.body) + TAIL

    def tail(self, variant: str) -> bytes:
        """52 of the letters a to p: digits and capitals begin an archive (`070707`, `MSCF`) now and then."""
        letters = hashlib.sha256(variant.encode()).hexdigest()[:52].translate(_LETTERS)
        return self._tail(letters.encode())

    def encrypted_tail(self, variant: str) -> bytes:
        return bytes(a ^ b for a, b in zip(self.tail(variant), self._key_stream, strict=True))

    def encrypted_file(self, variant: str) -> dict[str, Any]:
        """The EncryptedFile (v2) that the event of the attachment holds."""
        digest = self._hash.copy()
        digest.update(self.encrypted_tail(variant))
        return {
            "v": "v2",
            "url": f"mxc://{SERVER}/{media_id(self.name, variant, encrypted=True)}",
            "key": {
                "alg": "A256CTR",
                "ext": True,
                "k": urlsafe_b64encode(self._key).decode().rstrip("="),
                "key_ops": ["encrypt", "decrypt"],
                "kty": "oct",
            },
            "iv": b64encode(self._iv).decode().rstrip("="),
            "hashes": {"sha256": b64encode(digest.digest()).decode().rstrip("=")},
        }


class Variant(NamedTuple):
    """What a media ID stands for."""

    base: BaseFile
    name: str
    encrypted: bool

    def content(self) -> tuple[bytes, bytes]:
        """What the media repository has: the long part, and the tail."""
        if self.encrypted:
            return self.base.ciphertext, self.base.encrypted_tail(self.name)
        return self.base.body, self.base.tail(self.name)


def media_id(base: str, variant: str, *, encrypted: bool) -> str:
    return f"{'e-' if encrypted else ''}{base}_{variant}"


class Corpus:
    """Base files below `folder`, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _VERSION
        self._folder.mkdir(parents=True, exist_ok=True)
        self._bases: dict[str, BaseFile] = {}

    def base(self, name: str) -> BaseFile:
        if name not in self._bases:
            self._bases[name] = BaseFile(name, self._body(name))
        return self._bases[name]

    def prepare(self, names: Iterable[str]) -> None:
        """Make them before time is measured."""
        for name in names:
            self.base(name)

    def find(self, media: str) -> Variant:
        """Raises KeyError where there is no such media."""
        name, _, variant = media.removeprefix("e-").partition("_")
        return Variant(self.base(name), variant, media.startswith("e-"))

    def _body(self, name: str) -> bytes:
        recipe = RECIPES[name]
        path = self._folder / name
        if path.exists():
            return path.read_bytes()
        body = recipe.make(Random(f"{_SEED}/{name}"))
        if not recipe.infected:
            partly = path.with_suffix(".part")
            partly.write_bytes(body)
            partly.rename(path)
        return body
