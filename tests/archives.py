"""Archives made by the programs that people use, and what these programs get out of a file."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import py7zr

from scanner.containers.inspection import Part
from scanner.containers.opening import inspect
from scanner.containers.readers import Reader
from scanner.unpacking import by_libarchive, by_zipfile
from scanner.verdict import Reason
from tests.python_readers import readings

SEVENZIP = shutil.which("7zz") or shutil.which("7z")
TEXT = b"The quick brown fox jumps over the lazy dog.\n" * 40
# With what sound and crooked containers are opened.
SOUND, CROOKED = (Reader.LIBARCHIVE,), (Reader.LIBARCHIVE, Reader.ZIPFILE)
_TIMEOUT = 20
# Programs that look at nothing but the first bytes.
_MAGIC: dict[str, bytes | tuple[bytes, ...]] = {
    "gzip": b"\x1f",
    "bzip2": b"BZh",
    "xz": b"\xfd7z",
    "zstd": (b"\x28\xb5\x2f\xfd", *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))),
    "lz4": (b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18", b"\x50\x2a\x4d\x18"),
    "lzip": b"LZIP",
    "cpio": (b"0707", b"\xc7\x71", b"\x71\xc7"),
    "dpkg-deb": b"!<arch>",
}


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


def sevenzip_of(
    files: Mapping[str, bytes],
    *filters: dict[str, Any],
    password: str | None = None,
    packed_header: bool = True,
) -> bytes:
    """A 7z by py7zr."""
    buffer = io.BytesIO()
    with py7zr.SevenZipFile(buffer, "w", filters=list(filters) or None, password=password) as archive:
        archive.set_encoded_header_mode(packed_header)
        for name, content in files.items():
            archive.writestr(content, name)
    return buffer.getvalue()


def rar4_of(files: Mapping[str, bytes], *, flags: int = 0, main: int = 0) -> bytes:
    """A RAR 4 of stored files: nobody else's program may write one."""
    blocks = _rar4_block(0x73, main, bytes(6))
    for name, content in files.items():
        crc = zlib.crc32(content)
        fields = struct.pack(
            "<2LB2L2BHL", len(content), len(content), 3, crc, 33, 20, 0x30, len(name), 0o100644
        )
        blocks += _rar4_block(0x74, 0x8000 | flags, fields + name.encode()) + content
    return b"Rar!\x1a\x07\0" + blocks + _rar4_block(0x7B, 0x4000, b"")


def _rar4_block(kind: int, flags: int, fields: bytes) -> bytes:
    body = struct.pack("<BHH", kind, flags, 7 + len(fields)) + fields
    return struct.pack("<H", zlib.crc32(body) & 0xFFFF) + body


def rar5_of(files: Mapping[str, bytes], *, extra: bytes = b"", flags: int = 0, main: int = 0) -> bytes:
    """A RAR 5 of stored files."""
    blocks = rar5_block(1, 0, bytes([main]))
    for name, content in files.items():
        fields = bytes([4 | flags]) + vint(len(content)) + vint(0o100644)
        fields += struct.pack("<L", zlib.crc32(content)) + b"\0\1" + vint(len(name)) + name.encode()
        blocks += rar5_block(2, 0, fields, content, extra)
    return b"Rar!\x1a\x07\1\0" + blocks + rar5_block(5, 0, b"\0")


def rar5_block(kind: int, flags: int, fields: bytes, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A header with its checksum, and the data behind it."""
    sizes = (vint(len(extra)) if extra else b"") + (vint(len(data)) if data else b"")
    body = bytes([kind, flags | bool(extra) | 2 * bool(data)]) + sizes + fields + extra
    body = vint(len(body)) + body
    return struct.pack("<L", zlib.crc32(body)) + body + data


def vint(number: int) -> bytes:
    """7 bits a byte, the lowest first."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + vint(rest) if rest else bytes([low])


_PACKAGE = (
    "mkdir -p d/DEBIAN && cp {files} d && echo Maintainer: m > d/DEBIAN/control && "
    "printf 'Package: p\\nVersion: 1\\nArchitecture: all\\nDescription: d\\n' >> d/DEBIAN/control && "
)
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
    "tar-pax-sparse": "truncate -s 1M hole && cat {first} >> hole && tar -S --format=pax -cf {a} hole",
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
    "cab": "gcab -c {a} {files}",
    "cab-zipped": "gcab -cz {a} {files}",
    "wim": "{sevenzip} a -bso0 -twim {a} {files}",
    "squashfs": "mksquashfs {files} {a} -quiet -no-progress > /dev/null",
    "tar.lz": "tar -c {files} | lzip -c > {a}",
    "tar.lz4": "tar -c {files} | lz4 -q -c > {a}",
    "tar.Z": "tar -c {files} | compress -fc > {a}",
    "newc-by-cpio": "ls {files} | cpio -o -H newc --quiet > {a}",
    "crc-by-cpio": "ls {files} | cpio -o -H crc --quiet > {a}",
    "bin-by-cpio": "ls {files} | cpio -o -H bin --quiet > {a}",
    "initramfs": "ls text | cpio -o -H newc --quiet > {a}; ls first | cpio -o -H newc --quiet | gzip >> {a}",
    "ar-by-ar": "ar rc {a} {files}",
    "deb": _PACKAGE + "dpkg-deb -b d {a}",
    "deb-gzip": _PACKAGE + "dpkg-deb -Zgzip -b d {a}",
    "deb-zstd": _PACKAGE + "dpkg-deb -Zzstd -b d {a}",
    "deb-stored": _PACKAGE + "dpkg-deb -Znone -b d {a}",
    "iso-by-genisoimage": "genisoimage -quiet -J -r -o {a} {files}",
    "tar-in-7z": "tar -cf t.tar {files} && {sevenzip} a -bso0 -t7z -m0=PPMd {a} t.tar",
    "zst-in-zip": "zstd -q {first} && zip -q {a} first.zst text",
    "zip-in-zst": "zip -q z.zip {files} && zstd -q -c z.zip > {a}",
    "deb-in-zip": _PACKAGE + "dpkg-deb -b d p.deb && zip -q {a} p.deb text",
}
_ENCRYPTED_COMMANDS = {
    "zip-password": "zip -q -P secret {a} {files}",
    "zip-aes": "{sevenzip} a -bso0 -tzip -psecret -mem=AES256 {a} {files}",
    "7z-password": "{sevenzip} a -bso0 -t7z -psecret {a} {files}",
    "7z-password-header": "{sevenzip} a -bso0 -t7z -psecret -mhe=on {a} {files}",
}


# 7-Zip and zip add to what is there already; the harness below knows another password.
_LOCKED_COMMANDS = {
    "zip-and-password": "zip -q -P hidden {a} text && zip -q {a} {first}",
    "zip-lzma-and-password": "zip -q -P hidden {a} text && {sevenzip} a -bso0 -tzip -mm=LZMA {a} {first}",
    "zip-xz-and-aes": "{sevenzip} a -bso0 -tzip -phidden -mem=AES256 {a} text && "
    "{sevenzip} a -bso0 -tzip -mm=XZ {a} {first}",
    "zip-to-pipe-and-password": "zip -q -P hidden - text | cat > {a} && zip -q {a} {first}",
    "zip-password-behind": "{sevenzip} a -bso0 -tzip -mm=BZip2 {a} {first} && zip -q -P hidden {a} text",
    "7z-and-password": "{sevenzip} a -bso0 -t7z {a} {first} && {sevenzip} a -bso0 -t7z -phidden {a} text",
    "7z-ppmd-and-password": "{sevenzip} a -bso0 -t7z -phidden {a} text && "
    "{sevenzip} a -bso0 -t7z -m0=PPMd {a} {first}",
    "tar-of-password": "zip -q -P hidden l.zip text && {sevenzip} a -bso0 -tzip -mm=LZMA e.zip {first} && "
    "tar -cf {a} l.zip e.zip",
    "zip-of-7z-password": "{sevenzip} a -bso0 -t7z -phidden l.7z text && "
    "{sevenzip} a -bso0 -t7z -m0=PPMd e.7z {first} && zip -q {a} l.7z e.7z",
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


# What Krita once forgot to list, with letters for a CRC and sizes (facts/archives.md).
_STRAY_MIMETYPE = (
    b"PK\3\4\x14\0\0\0\0\0\x87;G\xfcCRCqCSIZUSIZ" + b"\x08\0\0\0mimetype" + b"application/x-krita"
)


def dubious(first: bytes) -> dict[str, bytes]:
    """Archives into which clamd does not see, or not surely."""
    return _made(_DUBIOUS_COMMANDS, first) | {
        "zip-behind-junk": b"junk\n" + zip_of({"first": first, "text": TEXT}),
        "zip-before-junk": zip_of({"first": first, "text": TEXT}) + b"junk\n",
        "zip-of-krita": _STRAY_MIMETYPE + zip_of({"first": first, "mimetype": b"application/x-krita"}),
        "rar4": rar4_of({"first": first, "text": TEXT}),
        "rar5": rar5_of({"first": first, "text": TEXT}),
        "bz2-twice": bz2.compress(first[:30]) + bz2.compress(first[30:]),
        "gz-and-more": gzip.compress(first) + b"more",
        "gz-with-its-old-magic": b"\x1f\x9e" + gzip.compress(first)[2:],
    }


def encrypted(first: bytes) -> dict[str, bytes]:
    """Archives behind a password."""
    return _made(_ENCRYPTED_COMMANDS, first)


def locked(first: bytes) -> dict[str, bytes]:
    """Archives in which something else than `first` is behind a password, which no program below knows."""
    return _made(_LOCKED_COMMANDS, first)


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
    yield from readings(data)
    for reader, command in (
        ("7z", [SEVENZIP or "7z", "x", "-y", "-psecret", "-o{out}", "{file}"]),
        ("unzip", ["unzip", "-o", "-qq", "-P", "secret", "{file}", "-d", "{out}"]),
        ("bsdtar", ["bsdtar", "-x", "-f", "{file}", "-C", "{out}"]),
        ("bsdtar from a pipe", ["bsdtar", "-x", "-f", "-", "-C", "{out}"]),
        ("tar", ["tar", "-x", "-f", "{file}", "-C", "{out}"]),
        ("gzip", ["bash", "-c", "gzip -dc < {file} > {out}/out"]),
        ("bzip2", ["bash", "-c", "bzip2 -dc < {file} > {out}/out"]),
        ("xz", ["bash", "-c", "xz -dc < {file} > {out}/out"]),
        ("zstd", ["bash", "-c", "zstd -dc < {file} > {out}/out"]),
        ("lz4", ["bash", "-c", "lz4 -dc < {file} > {out}/out"]),
        ("lzip", ["bash", "-c", "lzip -dc < {file} > {out}/out"]),
        ("cpio", ["bash", "-c", "cd {out} && cpio -id --quiet --no-absolute-filenames < {file}"]),
        ("dpkg-deb", ["dpkg-deb", "-x", "{file}", "{out}"]),
    ):
        if _worth(reader, data):
            yield reader, _by_program(command, data)


def _worth(reader: str, data: bytes) -> bool:
    """Programs of `_MAGIC` need not be started for other files."""
    return data.startswith(_MAGIC.get(reader, b""))


def _by_program(command: list[str], data: bytes) -> list[bytes]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:  # noqa: PTH112
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
            found.read_bytes()[:200_000]
            for found in out.rglob("*")
            if found.is_file() and not found.is_symlink()
        ][:30]


def delivered(data: bytes, *readers: Reader) -> list[list[bytes]]:
    """What each of our readers gets out of these bytes; raises Unreadable."""
    by = {Reader.LIBARCHIVE: by_libarchive.entries, Reader.ZIPFILE: by_zipfile.entries}
    return [
        [b"".join(map(bytes, e.pieces)) for e in by[reader](memoryview(bytearray(data)))]
        for reader in readers
    ]


def judged(data: bytes, timeout: float = 20.0) -> Reason | tuple[Reader, ...] | None:
    """None where these bytes are plain, else with what to open them, or why they are unscannable.

    Of what is encrypted that, whatever is to be opened all the same.
    """
    answer = inspect(Part.of(data), timeout)
    if isinstance(answer, Reason):
        return answer
    return min(answer.encryption, default=None) or answer.readers or None
