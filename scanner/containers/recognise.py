"""What kind of container a part is, if any: by its first bytes, by its end, or by what lies inside it.

The end counts because Python, unzip and bsdtar open as a ZIP whatever ends as one; see `embedded` for the
inside. A container that has no check here is one of those that clamd opens partly or not at all.
"""

from __future__ import annotations

import re

from scanner.containers.ar import check_ar
from scanner.containers.cab import check_cab
from scanner.containers.cpio import check_cpio
from scanner.containers.documents import check_headless_pdf, check_pdf
from scanner.containers.embedded import contains_container
from scanner.containers.frames import check_compress, check_lz4, check_zstd
from scanner.containers.inspection import PDF_WITHIN, Check, Format, Inspection, Part, ambiguous
from scanner.containers.iso import check_iso
from scanner.containers.lzma_alone import begins_lzma
from scanner.containers.office import check_ole2
from scanner.containers.pdf_objects import search_for_objects
from scanner.containers.rar import check_rar
from scanner.containers.rpm import check_rpm
from scanner.containers.sevenzip import check_7z
from scanner.containers.streams import check_bzip2, check_gzip, check_lzip, check_lzma_alone, check_xz
from scanner.containers.tar import BLOCK, begins_tar, begins_tar_later, check_tar, is_tar_header
from scanner.containers.zip import check_zip, zip_end

_CHECKS: dict[str, Check] = {
    "zip": check_zip,
    "gzip": check_gzip,
    "bzip2": check_bzip2,
    "xz": check_xz,
    "sevenzip": check_7z,
    "rar": check_rar,
    "ole2": check_ole2,
    "zstd": check_zstd,
    "lz4": check_lz4,
    "lzip": check_lzip,
    "lzma": check_lzma_alone,
    "compress": check_compress,
    "ar": check_ar,
    "cpio": check_cpio,
    "rpm": check_rpm,
    "cab": check_cab,
    "tar": check_tar,
    "iso": check_iso,
    "pdf": check_pdf,
    "other": ambiguous,
}


def _with_pdf(check: Check) -> Check:
    """A file of two formats, or the first member is a PDF as it is."""

    def check_both(part: Part, inspection: Inspection) -> None:
        check_pdf(part, inspection, alone=False)
        check(part, inspection)

    return check_both


_NO_TAR = _CHECKS.keys() - {"tar", "lzma"}
_FORMATS = {kind: Format(kind, check, kind in ("zip", "ole2")) for kind, check in _CHECKS.items()}
_HEADLESS_PDF = Format("pdf", check_headless_pdf, is_zip=False)
_ALSO_PDF = {kind: Format(kind, _with_pdf(found.check), found.is_zip) for kind, found in _FORMATS.items()}
_MAGIC = re.compile(
    rb"""
    (?P<zip>       PK(?:\x01\x02|\x03\x04|\x05\x06|\x06[\x06\x07]|\x07\x08|00) )
    | (?P<gzip>    \x1f\x8b\x08 )                                      # the one method that readers know
    | (?P<bzip2>   BZh[1-9] )
    | (?P<xz>      \xfd7zXZ\0 )
    | (?P<sevenzip> 7z\xbc\xaf\x27\x1c )
    | (?P<rar>     Rar!\x1a\x07 )
    | (?P<ole2>    \xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 )
    | (?P<zstd>    \x28\xb5\x2f\xfd | [\x50-\x5f]\x2a\x4d\x18 )           # frames, and what may be skipped
    | (?P<lz4>     \x04\x22\x4d\x18 )
    | (?P<lzip>    LZIP )
    | (?P<compress> \x1f\x9d )
    | (?P<ar>      !<arch>\n )                                       # and deb
    | (?P<cpio>    07070[127] )
    | (?P<rpm>     \xed\xab\xee\xdb )
    | (?P<cab>     MSCF\0\0\0\0 )
    | (?P<other>
        [\x22-\x27]\xb5\x2f\xfd | \x02\x21\x4c\x18 | \x89LZO | LRZI       # old zstd and lz4, lzop, lrzip
        | \x1f(?: \x9e\x08 | \xa0 | \x1e.{4}[\x01-\x19] )                 # old gzip, lzh, pack
        | !<thin>\n | \xc7\x71 | \x71\xc7 | xar!                       # thin ar, binary cpio, xar
        | WARC/ | \#mtree | begin(?:-base64)?\x20[0-7]{3}
        | \x3a\xff\x26\xed | .{64}\x7f\x10\xda\xbe | \x45\x3d\xcd\x28     # Android's images, VDI, cramfs
        | 0\.9\d{5}\n                                                    # deb of old
        | ISc\( | ITSF | MSWIM\0\0\0 | WLPWM\0\0\0 | SZDD               # chm, wim
        | ..-[lp][hmz][a-z0-9]- | \x60\xea.[\0-\n] | .{7}\*\*ACE\*\*      # lha, arj, ace
        | ALZ\x01 | EGGA | ZOO\x20 | SIT! | StuffIt
        | hsqs | sqsh | conectix | KDMV | QFI\xfb | vhdxfile | .{32}NXSB  # images of disks and file systems
      )
    """,
    re.VERBOSE | re.DOTALL,
)
_LEAST = 14
_VOLUME_DESCRIPTOR = 32769
_DMG_TRAILER = 512
# NTFS, exFAT and FAT; a disk with a partition table (GPT).
_BOOT_SECTOR = re.compile(rb"[\xeb\xe9]..(?:NTFS    |EXFAT   |.{51}FAT|.{79}FAT32)|.{512}EFI PART", re.DOTALL)
_SUPERBLOCK = 1024
_INTEL_HEX = re.compile(rb":((?:[0-9A-Fa-f]{2}){5,260})[\r\n]")


def by_ends(part: Part) -> Format | None:
    """The format of a part that is a container by its first or last bytes."""
    if part.size < _LEAST:
        return None
    head = part.read(0, PDF_WITHIN)
    kind = _kind(part, head)
    if part.read(_VOLUME_DESCRIPTOR, 5) == b"CD001":
        kind = "iso" if kind in (None, "zip") else "other"  # a member may end it as a ZIP
    if _is_image(part, head) or (kind in _NO_TAR and (begins_tar(head[:BLOCK]) or begins_tar_later(part))):
        kind = "other"
    if kind and b"%PDF-" in head:
        return _ALSO_PDF[kind]
    return _FORMATS[kind] if kind else None


def _kind(part: Part, head: bytes) -> str | None:
    if match := _MAGIC.match(head):
        return match.lastgroup
    if is_tar_header(head[:BLOCK]):
        return "tar"
    if zip_end(part) is not None:
        return "zip"
    if begins_tar(head[:BLOCK]):
        return "tar"
    if begins_lzma(part):
        return "lzma"
    return "other" if begins_lzma(part, for_x86=True) or _is_intel_hex(head) else None


def by_inside(part: Part) -> Format | None:
    """The format of any other part."""
    if contains_container(part):
        return _FORMATS["other"]
    if is_pdf(part):
        return _FORMATS["pdf"]
    return _HEADLESS_PDF if any(search_for_objects(part)) else None


def is_pdf(part: Part) -> bool:
    """Whether readers take it for a PDF, whatever comes first."""
    return b"%PDF-" in part.read(0, PDF_WITHIN)


def _is_image(part: Part, head: bytes) -> bool:
    """Whether it is of an optical disk (UDF), an Apple one, or one with a boot sector."""
    if part.read(_VOLUME_DESCRIPTOR, 5) == b"BEA01" or part.read(part.size - _DMG_TRAILER, 4) == b"koly":
        return True
    return bool(_BOOT_SECTOR.match(head)) or _is_ext(part)


def _is_intel_hex(head: bytes) -> bool:
    """A line of bytes that add up to nothing."""
    line = _INTEL_HEX.match(head)
    return bool(line and not sum(bytes.fromhex(line[1].decode())) & 0xFF)


def _is_ext(part: Part) -> bool:
    """Magic, a state that is known, a block size up to 64 KiB, revision 0 or 1 (`ext4.5`)."""
    block = part.read(_SUPERBLOCK, 80)
    if block[56:58] != b"\x53\xef" or len(block) < 80:
        return False
    size, state, revision = (int.from_bytes(block[i:j], "little") for i, j in ((24, 28), (58, 60), (76, 80)))
    return size <= 6 and state < 8 and revision <= 1
