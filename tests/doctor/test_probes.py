from __future__ import annotations

import email
import io
import re
import zipfile
import zlib

import pytest

from scanner.doctor import probes
from tests.real_clamd import EICAR

MIB = 2**20


def members(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_archive_has_its_fillings_and_eicar_as_a_file_of_its_own() -> None:
    assert members(probes.archive(3, 5)) == {
        "filling-0": bytes(3),
        "filling-1": bytes(5),
        "eicar.com": EICAR,
    }


def test_nested_archive_is_as_deep_as_asked() -> None:
    content = probes.nested_archive(8)
    for _ in range(8):
        content = members(content)["inner"]
    assert content == EICAR


@pytest.mark.parametrize("size", [1000, MIB, 3 * MIB + 17])
def test_large_archive_has_exactly_the_size_that_was_asked_for(size: int) -> None:
    archive = probes.large_archive(size)
    assert len(archive) == size
    assert list(members(archive))[-1] == "eicar.com"


def test_archive_for_a_tiny_limit_is_as_small_as_one_can_be() -> None:
    assert members(probes.large_archive(10))["eicar.com"] == EICAR


def test_archive_of_a_large_file_is_small_and_has_eicar_at_the_end_of_the_file() -> None:
    archive = probes.archive_of_large_file(3)
    assert len(archive) < 32 * 1024
    large = members(archive)["large"]
    assert 3 * MIB < len(large) < 3 * MIB + 1024
    assert list(members(large)) == ["filling", "eicar.com"]


def test_encrypted_archive_wants_a_password() -> None:
    with zipfile.ZipFile(io.BytesIO(probes.encrypted_archive())) as file, pytest.raises(RuntimeError):
        file.read("secret")


def test_pdf_has_eicar_in_a_compressed_stream_and_a_right_table() -> None:
    pdf = probes.pdf()
    stream = re.search(rb"stream\n(.*)\nendstream", pdf, re.DOTALL)
    assert stream is not None
    assert zlib.decompress(stream[1]) == EICAR
    offsets = [int(row) for row in re.findall(rb"^(\d{10}) 00000 n", pdf, re.MULTILINE)]
    assert [pdf[offset : offset + 7] for offset in offsets] == [b"%d 0 obj" % n for n in (1, 2, 3, 4)]


def test_mail_has_eicar_attached() -> None:
    [part] = [part for part in email.message_from_bytes(probes.mail()).walk() if part.get_filename()]
    assert part.get_payload(decode=True) == EICAR


def test_no_probe_but_the_bare_one_shows_eicar_to_whoever_looks_at_its_bytes() -> None:
    """Else a signature for the string alone would find it, wherever clamd does not look."""
    for probe in (probes.pdf(), probes.mail(), probes.archive(1), probes.nested_archive(2)):
        assert EICAR not in probe
