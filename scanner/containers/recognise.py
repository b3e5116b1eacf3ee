"""What kind of container a part is, if any: by its first bytes, by its end, or by what lies inside it.

The end counts because Python, unzip and bsdtar open as a ZIP whatever ends as one; see `embedded` for the
inside. A container that has no check here is one of those that clamd opens partly or not at all.
"""

from __future__ import annotations

import re

from scanner.containers.documents import check_ole2, check_pdf
from scanner.containers.embedded import contains_container, is_lzma
from scanner.containers.inspection import Check, Part, ambiguous
from scanner.containers.rar import check_rar
from scanner.containers.sevenzip import check_7z
from scanner.containers.streams import check_bzip2, check_gzip, check_xz
from scanner.containers.tar import BLOCK, begins_tar, begins_tar_later, check_tar
from scanner.containers.zip import check_zip, ends_as_zip

_CHECKS: dict[str, Check] = {
    "zip": check_zip,
    "gzip": check_gzip,
    "bzip2": check_bzip2,
    "xz": check_xz,
    "sevenzip": check_7z,
    "rar": check_rar,
    "ole2": check_ole2,
    "other": ambiguous,
}
_MAGIC = re.compile(
    rb"""
    (?P<zip>       PK(?:\x01\x02|\x03\x04|\x05\x06|\x06[\x06\x07]|\x07\x08|00) )
    | (?P<gzip>    \x1f\x8b\x08 )                                      # the one method that readers know
    | (?P<bzip2>   BZh[1-9] )
    | (?P<xz>      \xfd7zXZ\0 )
    | (?P<sevenzip> 7z\xbc\xaf\x27\x1c )
    | (?P<rar>     Rar!\x1a\x07 )
    | (?P<ole2>    \xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 )
    | (?P<other>
        [\x22-\x28]\xb5\x2f\xfd | [\x50-\x5f]\x2a\x4d\x18               # zstd, old and new; skippable frames
        | \x04\x22\x4d\x18 | \x02\x21\x4c\x18 | LZIP | \x89LZO | LRZI     # lz4, lzip, lzop, lrzip
        | \x1f(?: \x9e\x08 | [\x9d\xa0] | \x1e.{4}[\x01-\x19] )           # old gzip, compress, lzh, pack
        | !<(?:arch|thin)>\n | 07070[127] | \xc7\x71 | \x71\xc7 | xar!    # ar and deb, cpio, xar
        | \xed\xab\xee\xdb | WARC/ | \#mtree | begin(?:-base64)?\x20[0-7]{3}
        | MSCF\0\0\0\0 | ISc\( | ITSF | MSWIM\0\0\0 | WLPWM\0\0\0 | SZDD  # cab, chm, wim
        | ..-[lp][hmz][a-z0-9]- | \x60\xea.[\0-\n] | .{7}\*\*ACE\*\*      # lha, arj, ace
        | ALZ\x01 | EGGA | ZOO\x20 | SIT! | StuffIt
        | hsqs | sqsh | conectix | KDMV | QFI\xfb | vhdxfile | .{32}NXSB  # images of disks and file systems
      )
    """,
    re.VERBOSE | re.DOTALL,
)
_HEAD = 64
_LEAST = 14
_PDF_WITHIN = 1024
_VOLUME_DESCRIPTOR = 32769
_DMG_TRAILER = 512


def by_ends(part: Part) -> Check | None:
    """The check for a part that is a container by its first or last bytes."""
    if part.size < _LEAST:
        return None
    head = part.read(0, _PDF_WITHIN)
    match = _MAGIC.match(head)
    if match is not None and match.lastgroup is not None:
        return _CHECKS[match.lastgroup]
    if ends_as_zip(part):
        return check_zip
    if begins_tar(head[:BLOCK]):
        return check_tar
    return ambiguous if _is_image(part) or is_lzma(head[:_HEAD]) else None


def by_inside(part: Part) -> Check | None:
    """The check for any other part."""
    if contains_container(part) or begins_tar_later(part):
        return ambiguous
    return check_pdf if is_pdf(part) else None


def is_pdf(part: Part) -> bool:
    """Whether readers take it for a PDF, whatever comes first."""
    return b"%PDF-" in part.read(0, _PDF_WITHIN)


def _is_image(part: Part) -> bool:
    """An image of an optical disk (ISO 9660, UDF) or of an Apple one."""
    if part.read(_VOLUME_DESCRIPTOR, 5) in (b"CD001", b"BEA01"):
        return True
    return part.read(part.size - _DMG_TRAILER, 4) == b"koly"
