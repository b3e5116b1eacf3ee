"""The media: what a variant is, and that its parts fit together."""

from __future__ import annotations

import hashlib
import io
import zipfile
from base64 import b64decode, urlsafe_b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from PIL import Image

from tests.bench.corpus import INFECTED, RECIPES, SIZES, Corpus, media_id
from tests.bench.file_formats import FORMATS, TAIL
from tests.bench.signatures import MARKER

SMALL = ["jpeg-10k", "pdf-10k", "docx-10k", "mp4-10k", "text-10k", "jpeg-100k", "pdf-100k", "docx-100k"]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


@pytest.mark.parametrize("name", SMALL)
def test_a_file_has_the_size_that_its_name_says(corpus: Corpus, name: str) -> None:
    assert corpus.base(name).size == SIZES[name.partition("-")[2]]


@pytest.mark.parametrize("form", FORMATS)
def test_tails_differ_and_have_one_length(form: str) -> None:
    tails = {FORMATS[form].tail(bytes([number]) * 52) for number in range(9)}
    assert {len(tail) for tail in tails} == {TAIL}
    assert len(tails) == 9


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_media_id_finds_its_variant(corpus: Corpus, encrypted: bool) -> None:
    found = corpus.find(media_id("mp4-10k", "v1", encrypted=encrypted))
    assert found == (corpus.base("mp4-10k"), "v1", encrypted)


def test_unknown_media_are_not_found(corpus: Corpus) -> None:
    with pytest.raises(KeyError):
        corpus.find("e-nothing_v1")


def test_a_variant_decrypts_to_its_plaintext_and_has_the_hash_that_it_says(corpus: Corpus) -> None:
    base = corpus.base("pdf-10k")
    file = base.encrypted_file("v1")
    ciphertext = b"".join(corpus.find(media_id("pdf-10k", "v1", encrypted=True)).content())
    assert hashlib.sha256(ciphertext).digest() == b64decode(file["hashes"]["sha256"] + "=")
    key, iv = urlsafe_b64decode(file["key"]["k"] + "="), b64decode(file["iv"] + "==")
    assert Cipher(AES(key), CTR(iv)).decryptor().update(ciphertext) == base.body + base.tail("v1")


def test_formats_are_what_they_seem_with_their_tails(corpus: Corpus) -> None:
    jpeg, docx, pdf = (b"".join(corpus.find(f"{name}-10k_v").content()) for name in ("jpeg", "docx", "pdf"))
    Image.open(io.BytesIO(jpeg)).verify()
    assert zipfile.ZipFile(io.BytesIO(docx)).testzip() is None
    assert pdf.endswith(b"%%EOF\n")


@pytest.mark.parametrize("name", ["eicar-plain", "eicar-zip", "marker-10k", "eicar-docx-100k"])
def test_infected_files_never_touch_the_disk(corpus: Corpus, tmp_path: Path, name: str) -> None:
    assert corpus.base(name).infected
    assert not list(tmp_path.rglob(f"*{name}*"))


def test_a_marked_file_is_infected_at_its_very_end(corpus: Corpus) -> None:
    assert corpus.base("marker-10k").body.endswith(MARKER)


def test_every_infected_file_has_a_recipe() -> None:
    assert all(RECIPES[name].infected for names in INFECTED.values() for name in names)


def test_a_corpus_is_the_same_everywhere(corpus: Corpus, tmp_path: Path) -> None:
    """What does not depend on Pillow's version, that is."""
    assert Corpus(tmp_path / "other").base("mp4-10k").body == corpus.base("mp4-10k").body
