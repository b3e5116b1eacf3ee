"""Archives made by the programs that people use, what readers get out of them, and mutants of them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.real_clamd import EICAR

SEVENZIP = shutil.which("7zz") or shutil.which("7z")
TEXT = b"The quick brown fox jumps over the lazy dog.\n" * 40
_TIMEOUT = 20


class _Pipe(io.RawIOBase):
    """A stream that cannot seek, as a pipe."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, piece: object) -> int:
        view = memoryview(piece)  # type: ignore[arg-type]
        self.written += view
        return view.nbytes


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP by Python."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def streamed_zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP that Python writes to a pipe: descriptors behind the data, zeros before it."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return bytes(pipe.written)


def zip64_of(files: Mapping[str, bytes]) -> bytes:
    """A ZIP by Python with ZIP64 fields in its records alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar by Python."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# {a} is the archive's path; files are in the working directory.
_COMMANDS = {
    "zip": "zip -q {a} {files}",
    "zip-stored": "zip -q -0 {a} {files}",
    "zip-to-pipe": "zip -q - {files} | cat > {a}",
    "zip-from-pipe": "cat {first} | zip -q - - | cat > {a}",
    "zip-recursive": "mkdir d && cp {files} d && zip -q -r {a} d",
    "zip-comment": "echo comment | zip -q -z {a} {files} > /dev/null",
    "bsdtar-zip": "bsdtar --format=zip -cf {a} {files}",
    "bsdtar-zip-to-pipe": "bsdtar --format=zip -cf - {files} | cat > {a}",
    "7z-zip": "{sevenzip} a -bso0 -tzip {a} {files}",
    "7z-zip-stored": "{sevenzip} a -bso0 -tzip -mm=Copy {a} {files}",
    "jar": "jar cf {a} {files}",
    "jar-stored": "jar c0f {a} {files}",
    "jar-directory": "mkdir d && cp {files} d && jar cf {a} d",
    "tar": "tar -cf {a} {files}",
    "tar-ustar": "tar --format=ustar -cf {a} {files}",
    "tar-v7": "tar --format=v7 -cf {a} {files}",
    "tar-pax": "tar --format=pax -cf {a} {files}",
    "tar-directory": "mkdir d && cp {files} d && ln -s x d/link && tar -cf {a} d",
    "bsdtar": "bsdtar -cf {a} {files}",
    "tar.gz": "tar -czf {a} {files}",
    "tar.bz2": "tar -cjf {a} {files}",
    "tar.xz": "tar -cJf {a} {files}",
    "gz": "gzip -c {first} > {a}",
    "bz2": "bzip2 -c {first} > {a}",
    "xz": "xz -c {first} > {a}",
    "xz-9": "xz -9e -c {first} > {a}",
    "xz-threads": "xz -T2 --block-size=1KiB -c {first} > {a}",
    "7z": "{sevenzip} a -bso0 -t7z {a} {files}",
    "7z-lzma": "{sevenzip} a -bso0 -t7z -m0=LZMA {a} {files}",
    "7z-copy": "{sevenzip} a -bso0 -t7z -m0=Copy {a} {files}",
    "7z-not-solid": "{sevenzip} a -bso0 -t7z -ms=off {a} {files}",
    "7z-plain-header": "{sevenzip} a -bso0 -t7z -mhc=off {a} {files}",
}
# Clamd does not see into these, or only into some of their forms (facts/archives.md).
_DUBIOUS_COMMANDS = {
    "zip64-from-pipe": "cat {first} | zip -q {a} -",
    "zip-deflate64": "{sevenzip} a -bso0 -tzip -mm=Deflate64 {a} {files}",
    "zip-bzip2": "{sevenzip} a -bso0 -tzip -mm=BZip2 {a} {files}",
    "zip-lzma": "{sevenzip} a -bso0 -tzip -mm=LZMA {a} {files}",
    "zip-ppmd": "{sevenzip} a -bso0 -tzip -mm=PPMd {a} {files}",
    "zip-xz": "{sevenzip} a -bso0 -tzip -mm=XZ {a} {files}",
    "7z-bzip2": "{sevenzip} a -bso0 -t7z -m0=BZip2 {a} {files}",
    "7z-deflate": "{sevenzip} a -bso0 -t7z -m0=Deflate {a} {files}",
    "7z-ppmd": "{sevenzip} a -bso0 -t7z -m0=PPMd {a} {files}",
    "7z-delta": "{sevenzip} a -bso0 -t7z -m0=Delta:4 -m1=LZMA {a} {files}",
    "7z-bcj2": "{sevenzip} a -bso0 -t7z -m0=BCJ2 -m1=LZMA {a} {files}",
    "tar-sparse": "truncate -s 1M hole && cat {first} >> hole && tar -S -cf {a} {files} hole",
    "tar-pax-sparse": "truncate -s 1M hole && cat {first} >> hole && tar -S --format=pax -cf {a} {files} hole",
    "zst": "zstd -q -c {first} > {a}",
    "tar.zst": "tar -c {files} | zstd -q -c > {a}",
    "lz4": "lz4 -q -c {first} > {a}",
    "lzma": "xz -c --format=lzma {first} > {a}",
    "lz": "lzip -c {first} > {a}",
    "Z": "compress -fc {first} > {a}",
    "cpio": "bsdtar --format=cpio -cf {a} {files}",
    "newc": "bsdtar --format=newc -cf {a} {files}",
    "ar": "bsdtar --format=ar -cf {a} {files}",
    "xar": "bsdtar --format=xar -cf {a} {files}",
    "warc": "bsdtar --format=warc -cf {a} {files}",
    "iso": "bsdtar --format=iso9660 -cf {a} {files}",
    "wim": "{sevenzip} a -bso0 -twim {a} {files}",
    "squashfs": "mksquashfs {files} {a} -quiet -no-progress > /dev/null",
}
_ENCRYPTED_COMMANDS = {
    "zip-password": "zip -q -P secret {a} {files}",
    "zip-aes": "{sevenzip} a -bso0 -tzip -psecret -mem=AES256 {a} {files}",
    "7z-password": "{sevenzip} a -bso0 -t7z -psecret {a} {files}",
    "7z-password-header": "{sevenzip} a -bso0 -t7z -psecret -mhe=on {a} {files}",
}


def innocent(first: bytes) -> dict[str, bytes]:
    """Archives as they are ordinarily written, by kind; `first` is their first file."""
    return _made(_COMMANDS, first) | {
        "python-zip": zip_of({"first": first, "text": TEXT}),
        "python-zip-stored": zip_of({"first": first, "text": TEXT}, zipfile.ZIP_STORED),
        "python-zip-to-pipe": streamed_zip_of({"first": first, "text": TEXT}),
        "python-zip-to-pipe-stored": streamed_zip_of({"first": first, "text": TEXT}, zipfile.ZIP_STORED),
        "python-zip64": zip64_of({"first": first, "text": TEXT}),
        "python-zipapp": b"#!/usr/bin/env python3\n" + zip_of({"__main__.py": TEXT, "first": first}),
        "python-tar": tar_of({"first": first, "text": TEXT}),
        "python-tar-pax": tar_of({"first\xe9": first, "text": TEXT}, tarfile.PAX_FORMAT),
        "python-gz": gzip.compress(first),
        "python-gz-twice": gzip.compress(first[:30]) + gzip.compress(first[30:]),
        "python-bz2": bz2.compress(first),
        "python-xz": lzma.compress(first),
        "executable-zip": b"MZ" + bytes(510) + zip_of({"first": first}),
    }


def dubious(first: bytes) -> dict[str, bytes]:
    """Archives into which clamd does not see, or not surely."""
    return _made(_DUBIOUS_COMMANDS, first) | {
        "bz2-twice": bz2.compress(first[:30]) + bz2.compress(first[30:]),
        "gz-and-more": gzip.compress(first) + b"more",
    }


def encrypted(first: bytes) -> dict[str, bytes]:
    """Archives behind a password."""
    return _made(_ENCRYPTED_COMMANDS, first)


def _made(commands: Mapping[str, str], first: bytes) -> dict[str, bytes]:
    made = {}
    for kind, command in commands.items():
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            (directory / "first").write_bytes(first)
            (directory / "text").write_bytes(TEXT)
            archive = directory / ("a.jar" if "jar" in kind else "archive." + kind.split("-")[0])
            line = command.format(a=archive.name, files="first text", first="first", sevenzip=SEVENZIP)
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-ec", line], cwd=directory, capture_output=True, check=False
            )
            if archive.exists() and done.returncode == 0:
                made[kind] = archive.read_bytes()
    return made


def extracted(data: bytes, wanted: bytes, depth: int = 3) -> str | None:
    """The name of a reader that gets a file that begins with `wanted` out of `data`, at any depth."""
    for reader, contents in _readers(data):
        for content in contents:
            if content.startswith(wanted):
                return reader
            if depth and content != data and (found := extracted(content, wanted, depth - 1)):
                return f"{reader} > {found}"
    return None


def _readers(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    yield "zipfile", _by_zipfile(data)
    for reader, command in (
        ("7z", [SEVENZIP or "7z", "x", "-y", "-psecret", "-o{out}", "{file}"]),
        ("unzip", ["unzip", "-o", "-qq", "-P", "secret", "{file}", "-d", "{out}"]),
        ("bsdtar", ["bsdtar", "-x", "-f", "{file}", "-C", "{out}"]),
        ("bsdtar from a pipe", ["bsdtar", "-x", "-f", "-", "-C", "{out}"]),
        ("tar", ["tar", "-x", "-f", "{file}", "-C", "{out}"]),
        ("gzip", ["bash", "-c", "gzip -dc < {file} > {out}/out"]),
        ("bzip2", ["bash", "-c", "bzip2 -dc < {file} > {out}/out"]),
        ("xz", ["bash", "-c", "xz -dc < {file} > {out}/out"]),
    ):
        if _worth(reader, data):
            yield reader, _by_program(command, data)


def _worth(reader: str, data: bytes) -> bool:
    """Programs that look at nothing but the first bytes need not be started for other files."""
    magic = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7z"}.get(reader, b"")
    return data.startswith(magic)


def _by_zipfile(data: bytes) -> list[bytes]:
    contents = []
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist()[:20]:
                try:
                    contents.append(archive.read(info))
                except Exception:  # noqa: BLE001, PERF203, S112  # hostile input: whatever it raises
                    continue
    except Exception:  # noqa: BLE001  # hostile input: whatever it raises
        return contents
    return contents


def _by_program(command: list[str], data: bytes) -> list[bytes]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:  # noqa: PTH112, S108
        source, out = Path(name) / "file", Path(name) / "out"
        source.write_bytes(data)
        out.mkdir()
        filled = [word.format(file=source, out=out) for word in command]
        with source.open("rb") as pipe:
            try:
                subprocess.run(filled, stdin=pipe, capture_output=True, timeout=_TIMEOUT, check=False)
            except subprocess.TimeoutExpired:
                return []
        subprocess.run(["chmod", "-R", "u+rwX", out], check=False)
        return [
            found.read_bytes()[:200_000] for found in out.rglob("*") if found.is_file() and not found.is_symlink()
        ][:30]


Mutation = Callable[[random.Random, bytes], bytes]

_SIGNATURES = (
    b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\7\10", b"PK\6\6", b"PK\6\7", b"ustar", b"7z\xbc\xaf\x27\x1c",
    b"\xfd7zXZ", b"BZh", b"\x1f\x8b", b"\x28\xb5\x2f\xfd",
)  # fmt: skip
_VALUES = (b"\0", b"\xff", b"\1", b"\x08", b"\0\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x2d\0", b"\x0e\0")
_PREFIXES = (
    b"x", b"\n", b"MZ" + bytes(62), b"#!/bin/sh\n", b"<html></html>", b"ID3\4" + bytes(20), b"OggS" + bytes(30),
    b"%PDF-1.4\n", b"\xff\xd8\xff\xe0" + bytes(40) + b"\xff\xd9", b"GIF89a" + bytes(30), b"PK00", b"PK\7\10",
    b"From: a\r\nTo: b\r\n\r\n", b"{\\rtf1 }", bytes(512), gzip.compress(TEXT), b"\x7fELF" + bytes(60),
    bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504), b"RIFF\x24\0\0\0WAVE", b"\0\0\0\x18ftypmp42" + bytes(12),
)  # fmt: skip


def mutant(chance: random.Random, archives: list[bytes]) -> bytes:
    """One of the archives after a few mutations, sometimes inside another one."""
    data = chance.choice(archives)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        mutation = chance.choice(_MUTATIONS)
        data = mutation(chance, data) if mutation is not _join else _join(chance, data, chance.choice(archives))
    return data[: 1 << 20]


def _structure(chance: random.Random, data: bytes) -> int:
    """The place of some signature, or any place."""
    signature = chance.choice(_SIGNATURES)
    places = [i for i in range(len(data)) if data.startswith(signature, i)]
    return chance.choice(places) if places else chance.randrange(len(data) + 1)


def _change_field(chance: random.Random, data: bytes) -> bytes:
    place = _structure(chance, data) + chance.randrange(50)
    value = chance.choice((*_VALUES, chance.randbytes(1), chance.randbytes(2)))
    return data[:place] + value + data[place + len(value) :] if place < len(data) else data


def _add_to_field(chance: random.Random, data: bytes) -> bytes:
    place, width = _structure(chance, data) + chance.randrange(50), chance.choice((1, 2, 4))
    if place + width > len(data):
        return data
    value = int.from_bytes(data[place : place + width], "little") + chance.choice((-16, -1, 1, 2, 16, 512))
    return data[:place] + (value % 256**width).to_bytes(width, "little") + data[place + width :]


def _flip(chance: random.Random, data: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.randbytes(1) + data[place + 1 :]


def _truncate(chance: random.Random, data: bytes) -> bytes:
    return data[: -chance.choice((1, 4, 10, 22, 23, 40, 70, 100, 512, 1024, chance.randrange(1, len(data) + 2)))]


def _behead(chance: random.Random, data: bytes) -> bytes:
    return data[chance.choice((1, 4, 30, 512, _structure(chance, data))) :]


def _join(chance: random.Random, data: bytes, other: bytes = b"") -> bytes:
    other = other or zip_of({"clean.txt": b"clean"})
    return data + other if chance.random() < 0.5 else other + data  # noqa: PLR2004


def _join_clean(chance: random.Random, data: bytes) -> bytes:
    clean = {"clean.txt": b"clean"}
    return _join(
        chance, data, chance.choice((zip_of(clean), tar_of(clean), gzip.compress(b"clean"), zip_of({}), bytes(512)))
    )


def _gap(chance: random.Random, data: bytes) -> bytes:
    place = _structure(chance, data)
    fill = chance.choice((bytes(1), bytes(16), bytes(512), b"junk", b"PK\5\6" + bytes(18), b"PK\3\4" + bytes(26)))
    return data[:place] + fill + data[place:]


def _cut(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted((_structure(chance, data), _structure(chance, data)))
    return data[:start] + data[end:]


def _repeat(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted((_structure(chance, data), _structure(chance, data)))
    place = chance.choice((end, len(data), _structure(chance, data)))
    return data[:place] + data[start:end] + data[place:]


def _prefix(chance: random.Random, data: bytes) -> bytes:
    return chance.choice(_PREFIXES) + data


def _suffix(chance: random.Random, data: bytes) -> bytes:
    return data + chance.choice((b"x", bytes(22), bytes(70_000), b"PK\5\6" + bytes(18), b"junk" * 5, bytes(1024)))


def _reseal_tar(chance: random.Random, data: bytes) -> bytes:
    """Another field of a tar header, under a checksum that is right again."""
    blocks = [i for i in range(0, len(data) - 512, 512) if data[i + 257 : i + 262] == b"ustar"]
    if not blocks:
        return _change_field(chance, data)
    at = chance.choice(blocks)
    header = bytearray(data[at : at + 512])
    place = chance.choice((0, 100, 124, 128, 134, 156, 157, 257, 263, 345, 480, chance.randrange(512)))
    value = chance.choice((b"S", b"L", b"x", b"1", b"5", b"7", b"\x80", b"\0", b"000", b"ID3", b"MZ", chance.randbytes(1)))
    header[place : place + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header[:512]) + data[at + 512 :]


def _zip64_record(chance: random.Random, data: bytes) -> bytes:
    """A ZIP64 end record and its locator before the end record, pointing somewhere."""
    end = data.rfind(b"PK\5\6")
    if end < 0:
        return _gap(chance, data)
    size, offset = (int.from_bytes(data[end + i : end + i + 4], "little") for i in (12, 16))
    entries = int.from_bytes(data[end + 10 : end + 12], "little")
    where = chance.choice((offset, 0, offset + 30))
    fields = [44, 45 | 45 << 16, 0, entries, entries, size, where]
    record = b"PK\6\6" + b"".join(value.to_bytes(8, "little") for value in fields)
    locator = b"PK\6\7" + bytes(4) + end.to_bytes(8, "little") + b"\1\0\0\0"
    tail = data[end:]
    if chance.random() < 0.5:  # noqa: PLR2004
        tail = tail[:8] + b"\xff" * 12 + tail[20:]
    return data[:end] + record + locator + tail


def _nest(chance: random.Random, data: bytes) -> bytes:
    name = chance.choice(("inner", "a.zip", "mimetype", "META-INF/x", "d/", "ID3.mp3"))
    return chance.choice(
        (
            lambda: zip_of({name: data}),
            lambda: zip_of({name: data, "text": TEXT}, zipfile.ZIP_STORED),
            lambda: streamed_zip_of({name: data}),
            lambda: tar_of({name: data, "text": TEXT}),
            lambda: gzip.compress(data),
            lambda: bz2.compress(data),
            lambda: lzma.compress(data),
        )
    )()


def _reseal_7z(chance: random.Random, data: bytes) -> bytes:
    """Another byte in a 7z header, under checksums that are right again."""
    if not data.startswith(b"7z\xbc\xaf\x27\x1c") or len(data) < 40:  # noqa: PLR2004
        return _flip(chance, data)
    offset, size = (int.from_bytes(data[i : i + 8], "little") for i in (12, 20))
    header = bytearray(data[32 + offset : 32 + offset + size])
    if not header or len(header) != size:
        return _flip(chance, data)
    header[chance.randrange(len(header))] = chance.choice((0, 1, 2, 3, 9, 0x21, chance.randrange(256)))
    start = data[12:28] + zlib.crc32(header).to_bytes(4, "little")
    return data[:8] + zlib.crc32(start).to_bytes(4, "little") + start + data[32 : 32 + offset] + bytes(header)


_MUTATIONS: tuple[Mutation, ...] = (
    _change_field, _change_field, _add_to_field, _add_to_field, _flip, _truncate, _behead, _join, _join_clean, _gap,
    _cut, _repeat, _prefix, _suffix, _reseal_tar, _zip64_record, _nest, _nest, _reseal_7z,
)  # fmt: skip
