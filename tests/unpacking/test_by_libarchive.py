"""Every format that real programs write, whole or not at all: never less than others see, without a word."""

from __future__ import annotations

import bz2
import gzip
import io
import locale
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.unpacking.allowance import Unreadable
from scanner.unpacking.by_libarchive import entries, version
from scanner.verdict import Reason
from tests.archives import TEXT, dubious, encrypted, innocent, locked, tar_of, zip_of

FIRST = b"hello first" * 10
_NOT_KNOWN = {
    **dict.fromkeys(("wim", "squashfs", "gz-with-its-old-magic", "zip-deflate64"), Reason.AMBIGUOUS),
    # Another archive follows.
    **dict.fromkeys(("gz-and-more", "initramfs"), Reason.AMBIGUOUS),
}


@pytest.fixture(autouse=True, scope="module")
def _words() -> Iterator[None]:
    """As the template does."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


def read(data: bytes) -> list[tuple[bytes, bytes]]:
    return [(path, b"".join(map(bytes, pieces))) for path, pieces in entries(memoryview(bytearray(data)))]


def reason(data: bytes) -> Reason:
    with pytest.raises(Unreadable) as caught:
        read(data)
    return caught.value.reason


def is_there(wanted: bytes, data: bytes, depth: int = 3) -> bool:
    """Whether it comes out, at any depth."""
    contents = [content for _, content in read(data) if content]
    if wanted in contents:
        return True
    layers = (content for content in contents if depth and not is_refused(content))
    return any(is_there(wanted, layer, depth - 1) for layer in layers)


@pytest.mark.slow
def test_what_programs_write_comes_out_whole() -> None:
    missing = set()
    for kind, data in (innocent(FIRST) | dubious(FIRST)).items():
        if kind in _NOT_KNOWN:
            assert (kind, reason(data)) == (kind, _NOT_KNOWN[kind])
        elif not is_there(FIRST, data):
            missing.add(kind)
    assert missing <= {"tar-pax-sparse"}


@pytest.mark.slow
def test_what_is_encrypted_is_said_to_be() -> None:
    for kind, data in encrypted(FIRST).items():
        assert (kind, reason(data)) == (kind, Reason.ENCRYPTED_ARCHIVE)


def until_refused(data: bytes) -> tuple[dict[bytes, bytes], Reason]:
    found = {}
    try:
        for path, pieces in entries(memoryview(bytearray(data))):
            found[path] = b"".join(map(bytes, pieces))
    except Unreadable as refusal:
        return found, refusal.reason
    raise AssertionError("it was read to its end")


@pytest.mark.slow
def test_what_needs_no_password_comes_out_wherever_it_lies() -> None:
    for kind, data in locked(FIRST).items():
        if kind.startswith(("zip-of", "tar-of")):
            continue
        found, told = until_refused(data)
        assert (kind, found, told) == (kind, {b"first": FIRST, b"text": b""}, Reason.ENCRYPTED_ARCHIVE)


def test_damage_is_not_taken_for_a_password() -> None:
    archive = bytearray(zip_of({"locked": b"x" * 20, "plain": TEXT}))
    for signature, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        archive[archive.index(signature) + flags] |= 1
    assert until_refused(bytes(archive)) == (
        {b"locked": b"", b"plain": TEXT},
        Reason.ENCRYPTED_ARCHIVE,
    )
    archive[archive.index(b"plain") + 7] ^= 0xFF
    assert until_refused(bytes(archive))[1] is Reason.DAMAGED


# -- single compressed files ---------------------------------------------------------------------

_COMPRESSORS = {
    "gzip": "gzip -c",
    "bzip2": "bzip2 -c",
    "xz": "xz -c",
    "lzma": "xz -c --format=lzma",
    "lzip": "lzip -c",
    "lz4": "lz4 -qc",
    "lz4-legacy": "lz4 -qlc",
    "zstd": "zstd -qc",
    "compress": "compress -fc",
}


def compressed(command: str, content: bytes) -> bytes:
    if shutil.which(command.split(maxsplit=1)[0]) is None:
        pytest.skip(f"needs {command.split(maxsplit=1)[0]}")
    return subprocess.run(command.split(), input=content, stdout=subprocess.PIPE, check=True).stdout


each_compressor = pytest.mark.parametrize("command", _COMPRESSORS.values(), ids=_COMPRESSORS)


@each_compressor
@pytest.mark.parametrize("content", [b"text", os.urandom(3000) + b"ab" * 200_000], ids=["short", "long"])
def test_a_compressed_file_has_one_member_without_a_name(command: str, content: bytes) -> None:
    assert read(compressed(command, content)) == [(b"", content)]


# No reader sees where a .Z ends.
each_with_an_end = pytest.mark.parametrize(
    "command", [command for name, command in _COMPRESSORS.items() if name != "compress"]
)


@each_with_an_end
def test_a_compressed_file_that_is_cut_off_is_never_less(command: str) -> None:
    data = compressed(command, b"text")
    assert [length for length in range(1, len(data)) if not is_refused(data[:length])] == []


def is_refused(data: bytes) -> bool:
    try:
        read(data)
    except Unreadable:
        return True
    return False


@each_with_an_end
def test_nothing_may_follow_a_compressed_file(command: str) -> None:
    data = compressed(command, b"text")
    assert is_refused(data + b"x")
    assert is_refused(data + bytes(600) + b"x")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_several_streams_are_one_file(compress: type[bytes]) -> None:
    assert read(compress(b"one ") + compress(b"two")) == [(b"", b"one two")]


def test_one_layer_is_taken_off() -> None:
    for inner in (zip_of({"a": b"x"}), tar_of({"a": b"x"}), gzip.compress(b"x"), b"x"):
        assert read(gzip.compress(inner)) == read(lzma.compress(inner)) == [(b"", inner)]
    twice = compressed("compress -fc", compressed("compress -fc", b"text" * 1000))
    assert reason(twice) is Reason.AMBIGUOUS


# -- archives ------------------------------------------------------------------------------------


def test_nothing_may_follow_the_end_of_a_tar_but_zeros() -> None:
    one, two = tar_of({"a": b"x"}), tar_of({"b": b"y"})
    assert read(one + bytes(10240)) == [(b"a", b"x")]
    assert reason(one + two) is Reason.AMBIGUOUS


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_folders_and_devices_have_no_content(form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        file = tarfile.TarInfo("file")
        file.size = 4
        archive.addfile(file, io.BytesIO(b"text"))
        for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"kind {kind.decode()}")
            info.type, info.linkname = kind, "file"
            archive.addfile(info)
    contents = [content for _, content in read(buffer.getvalue())]
    assert contents == [b"text", b"", b"", b"", b"", b""]


def test_holes_are_zeros_to_the_end(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.seek(1_000_000)
        file.write(b"text")
        file.truncate(2_000_000)
    for form in ("gnu", "pax"):
        command = ["tar", "-S", f"--format={form}", "-c", "-C", str(tmp_path), "sparse"]
        data = subprocess.check_output(command)
        assert len(data) < 100_000
        assert read(data) == [(b"sparse", sparse.read_bytes())]


def test_names_of_any_bytes_are_no_reason_to_refuse() -> None:
    names = ["\xe9.txt", "\N{SNOWMAN}", "a\nb", "x" * 300]
    files = {name: name.encode() for name in names}
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert [content for _, content in read(tar_of(files, form))] == list(files.values())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("n\xe4me\xff"))
    assert read(buffer.getvalue()) == [(b"n\xe4me\xff", b"")]
    assert [content for _, content in read(zip_of(files))] == list(files.values())
    assert [content for _, content in read(zip_of({"name": b"text"}).replace(b"name", b"n\xe4\xff\xfe"))] == [
        b"text"
    ]


@pytest.mark.parametrize("offset", [22, 24])
def test_a_member_that_lies_about_its_size_is_damaged(offset: int) -> None:
    data = zip_of({"a": b"some content"})
    at = data.rindex(b"PK\1\2") + 24
    assert reason(data[:at] + struct.pack("<I", offset) + data[at + 4 :]) is Reason.DAMAGED


def test_a_zip_without_its_directory_is_read_from_its_beginning() -> None:
    """By libarchive; zipfile refuses it, and so nothing of the kind is clean."""
    data = zip_of({"a": b"text", "b": b"more"})
    assert read(data[: data.index(b"PK\1\2") + 4]) == [(b"a", b"text"), (b"b", b"more")]


def test_text_is_no_container() -> None:
    """Neither one that describes files (mtree) nor one that encodes them (uuencode)."""
    assert reason(b"#mtree\n./passwd type=file contents=/etc/passwd\n") is Reason.AMBIGUOUS
    assert reason(b"begin 644 x\n#=&5X\n`\nend\n") is Reason.AMBIGUOUS


def test_no_other_program_is_asked(tmp_path: Path) -> None:
    """For lzop, lrzip and grzip libarchive would start one."""
    for mark in (b"\x89LZO\0\r\n\x1a\n", b"LRZI\0\6", b"GRZipII\0\2\4:)"):
        assert reason(mark + bytes(100)) is Reason.AMBIGUOUS


def test_the_version_is_libarchives() -> None:
    assert version().startswith("3.")
