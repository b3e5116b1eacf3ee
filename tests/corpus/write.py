"""Innocent files by the programs that people write them with: LibreOffice, qpdf, packers."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

_SEVENZIP = shutil.which("7zz") or "7z"

_SENTENCE = "The quick brown fox jumps over the lazy dog. "
_TEXT_TARGETS = ("odt", "docx", "doc", "rtf", "epub", "dotx", "pdf")
_TABLE_TARGETS = ("ods", "xlsx", "xls", "pdf")
_SLIDE_TARGETS = ("odp", "pptx", "ppt")
# Opens without asking, and may not be printed: nothing to refuse.
_RESTRICTED = "pdf:writer_pdf_Export:" + json.dumps(
    {
        "RestrictPermissions": {"type": "boolean", "value": "true"},
        "PermissionPassword": {"type": "string", "value": "owner"},
        "Printing": {"type": "long", "value": "0"},
    }
)
_QPDF = {
    "rc4-40": "40 --",
    "rc4-128": "128 --use-aes=n --",
    "rc4-128-plain-metadata": "128 --use-aes=n --cleartext-metadata --",
    "aes-128": "128 --use-aes=y --",
    "aes-128-plain-metadata": "128 --use-aes=y --cleartext-metadata --",
    "aes-256": "256 --",
    "aes-256-plain-metadata": "256 --cleartext-metadata --",
}
# {sz} is 7-Zip; the folder `files` is packed into files.TYPE, {one} is a single file of it.
_PACKERS = {
    "zip": "zip -qr files.zip files",
    "piped.zip": "zip -qr - files | cat > piped.zip",
    "from-a-pipe.zip": "cat {one} | zip -q from-a-pipe.zip -",
    "zip64.zip": "zip -qr -fz zip64.zip files",
    "bzip2.zip": "zip -qr -Z bzip2 bzip2.zip files",
    "stored.zip": "zip -qr0 stored.zip files",
    "comment.zip": "echo Holidays | zip -qrz comment.zip files > /dev/null",
    "bsdtar.zip": "bsdtar --format=zip -cf bsdtar.zip files",
    "bsdtar-piped.zip": "bsdtar --format=zip -cf - files | cat > bsdtar-piped.zip",
    "7-zip.zip": "{sz} a -bso0 -tzip 7-zip.zip files",
    "lzma.zip": "{sz} a -bso0 -tzip -mm=LZMA lzma.zip files",
    "ppmd.zip": "{sz} a -bso0 -tzip -mm=PPMd ppmd.zip files",
    "7z": "{sz} a -bso0 files.7z files",
    "ppmd.7z": "{sz} a -bso0 -m0=PPMd ppmd.7z files",
    "bzip2.7z": "{sz} a -bso0 -m0=BZip2 bzip2.7z files",
    "deflate.7z": "{sz} a -bso0 -m0=Deflate deflate.7z files",
    "single.7z": "{sz} a -bso0 single.7z {one}",
    "tar": "tar -cf files.tar files",
    "pax.tar": "tar --format=pax -cf pax.tar files",
    "bsdtar.tar": "bsdtar -cf bsdtar.tar files",
    "7-zip.tar": "{sz} a -bso0 -ttar 7-zip.tar files",
    "tar.gz": "tar -czf files.tar.gz files",
    "tar.bz2": "tar -cjf files.tar.bz2 files",
    "tar.xz": "tar -cJf files.tar.xz files",
    "tar.zst": "tar --zstd -cf files.tar.zst files",
    "tar.lz": "tar --lzip -cf files.tar.lz files",
    "tar.lz4": "tar -c files | lz4 -q > files.tar.lz4",
    "tar.lzma": "tar --lzma -cf files.tar.lzma files",
    "tar.Z": "tar -c files | compress -fc > files.tar.Z",
    "gz": "gzip -c {one} > one.gz",
    "bz2": "bzip2 -c {one} > one.bz2",
    "xz": "xz -c {one} > one.xz",
    "threads.xz": "xz -T2 --block-size=64KiB -c {one} > threads.xz",
    "zst": "zstd -q -c {one} > one.zst",
    "long.zst": "zstd -q -19 --long=27 -c {one} > long.zst",
    "piped.zst": "cat {one} | zstd -q -c > piped.zst",
    "lz4": "lz4 -q -c {one} > one.lz4",
    "lz": "lzip -c {one} > one.lz",
    "lzma": "xz -c --format=lzma {one} > one.lzma",
    "jar": "jar cf files.jar files",
    "stored.jar": "jar c0f stored.jar files",
    "cpio": "find files | cpio -o -H newc --quiet > files.cpio",
    "odc.cpio": "find files | cpio -o -H odc --quiet > odc.cpio",
    "iso": "genisoimage -quiet -J -r -o files.iso files",
    "bsdtar.iso": "bsdtar --format=iso9660 -cf bsdtar.iso files",
    "ar": "ar rc files.ar {one}",
    "zips-in.zip": "zip -qr inner.zip files && zip -q zips-in.zip inner.zip && rm inner.zip",
    "zips-in.7z": "zip -qr inner.zip files && {sz} a -bso0 zips-in.7z inner.zip && rm inner.zip",
    "zst-in.zip": "zstd -q -c {one} > one.zst && zip -q zst-in.zip one.zst && rm one.zst",
    "7z-in.tar": "{sz} a -bso0 -m0=PPMd inner.7z files && tar -cf 7z-in.tar inner.7z && rm inner.7z",
    "updated.zip": "zip -qr updated.zip files && zip -q updated.zip {one} && zip -qd updated.zip '*.rtf'",
    "empty.zip": "printf 'PK\\5\\6%018d' 0 | tr 0 '\\0' > empty.zip",
    "empty.tar": "tar -cf empty.tar -T /dev/null",
}
_SLIDE = """<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0" office:version="1.3"
 office:mimetype="application/vnd.oasis.opendocument.presentation">
<office:body><office:presentation><draw:page draw:name="1"><draw:frame svg:x="1cm" svg:y="1cm"
 svg:width="9cm" svg:height="3cm"><draw:text-box><text:p>Lorem ipsum</text:p></draw:text-box></draw:frame>
</draw:page></office:presentation></office:body></office:document>
"""


def write(target: Path) -> None:
    """Add files to `target` as files/TYPE/NAME; programs that are not installed fail."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = folder / "files"
        files.mkdir()
        _write_documents(folder, files)
        _write_restricted(files)
        _write_arrays(files)
        for path in sorted(files.iterdir()):
            _keep(target, path)
        _pack(target, folder, files)


def _write_documents(folder: Path, files: Path) -> None:
    for number in range(4):
        _picture(number).save(files / f"photo{number}.jpg", quality=90)
    body = "".join(f"<h2>{i}</h2><p>{_SENTENCE * 40}</p>" for i in range(20))
    (folder / "text.html").write_text(f"<html><body>{body}<img src='files/photo0.jpg'></body></html>")
    (folder / "table.csv").write_text("".join(f"{i},{i * i},row {i}\n" for i in range(2000)))
    (folder / "slides.fodp").write_text(_SLIDE)
    shutil.copy(folder / "table.csv", files)
    for target in _TEXT_TARGETS:
        _convert(folder, files, "text.html", target, "--infilter=HTML (StarWriter)")
    for target in _TABLE_TARGETS:
        _convert(folder, files, "table.csv", target)
    for target in _SLIDE_TARGETS:
        _convert(folder, files, "slides.fodp", target)
    shutil.copy(files / "text.odt", folder / "restricted.odt")
    _convert(folder, files, "restricted.odt", _RESTRICTED)


def _convert(folder: Path, files: Path, source: str, target: str, *options: str) -> None:
    profile = f"-env:UserInstallation=file://{folder}/profile"
    command = ["soffice", profile, "--headless", *options, "--convert-to", target, "--outdir", str(files)]
    subprocess.run([*command, source], cwd=folder, check=True, capture_output=True, timeout=120)
    made = files / Path(source).with_suffix("." + target.split(":", maxsplit=1)[0]).name
    assert made.exists(), f"LibreOffice wrote no {target}"


def _write_restricted(files: Path) -> None:
    for name, options in _QPDF.items():
        command = f"qpdf --allow-weak-crypto --encrypt '' owner {options} text.pdf restricted-{name}.pdf"
        subprocess.run(["bash", "-c", command], cwd=files, check=True)


def _write_arrays(files: Path) -> None:
    np.savez(files / "arrays.npz", a=np.arange(10_000), b=np.zeros(5))
    np.savez_compressed(files / "packed.npz", a=np.arange(10_000))


def _picture(number: int) -> Image.Image:
    noise = random.Random(number).randbytes(80 * 60 * 3)
    return Image.frombytes("RGB", (80, 60), noise).resize((320, 240))


def _pack(target: Path, folder: Path, files: Path) -> None:
    for name, command in _PACKERS.items():
        line = command.format(sz=_SEVENZIP, one="files/table.csv")
        subprocess.run(["bash", "-o", "pipefail", "-ec", line], cwd=folder, check=True, capture_output=True)
        kind = name.split(".", 1)[1] if name.count(".") and not name.startswith("tar.") else name
        made = folder / (name if (folder / name).exists() else f"files.{name}")
        made = made if made.exists() else folder / f"one.{name}"
        _keep(target, made, kind)


def _keep(target: Path, path: Path, kind: str = "") -> None:
    folder = target / "files" / (kind or path.suffix.lstrip("."))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder / f"written-{path.name}")
