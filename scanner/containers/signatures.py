"""Where bytes look like the beginning of a container. A signature alone may be chance.

Looking for them costs next to nothing only as long as nearly all bytes pass by a search for literals (SIMD,
10 GB/s); a pattern takes fifty times as long, and is for what these find.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ahocorasick_rs import BytesAhoCorasick, MatchKind

# How far a signature, or an old cpio's header, reaches at most: searches overlap by so much.
LONGEST = 32
# What is searched at a go: full of signatures it takes two milliseconds.
_WINDOW = 12 * 1024
_SIGNATURES = re.compile(
    rb"PK\x03\x04|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|\xfd7zXZ\0|\x1f\x8b\x08|BZh[1-9]1AY&SY|\x28\xb5\x2f(?=\xfd)"
    rb"|ustar|07070[127][0-9A-Fa-f \0]{8}|-lh[0-9d]-|xar!\0\x1c\0\x01|MSWIM\0\0\0|hsqs|MSCF\0\0\0\0"
    rb"|CD001\x01\0|BEA01\x01\0"
)
# Where none of these is, there is no signature.
_LITERALS = (
    *(b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\xfd7zXZ\0", b"\x1f\x8b\x08", b"1AY&SY"),
    *(b"\x28\xb5\x2f\xfd", b"ustar", b"070701", b"070702", b"070707", b"xar!\0\x1c\0\x01"),
    *(b"-lh", b"MSWIM\0\0\0", b"hsqs", b"MSCF\0\0\0\0", b"CD001\x01\0", b"BEA01\x01\0"),
)
# Old cpio in both byte orders, with the higher bytes of its mode and name's size (cpio.5):
# its two bytes are everywhere. Each alone, as patterns with alternatives are slow.
_MODE = rb"[\x10-\x2f\x40-\x4f\x60-\x6f\x80-\x8f\xa0-\xaf\xc0-\xcf]"
_OLD_CPIO = {
    b"\xc7\x71": re.compile(rb"\xc7\x71(?=.{19}[\0-\x10])(?=.{5}%b)" % _MODE, re.DOTALL),
    b"\x71\xc7": re.compile(rb"\x71\xc7(?=.{18}[\0-\x10])(?=.{4}%b)" % _MODE, re.DOTALL),
}
_FEW = 64


def _searching_for(*literals: bytes) -> BytesAhoCorasick:
    # Only this kind is searched for by SIMD. It passes over what overlaps with an earlier find.
    return BytesAhoCorasick(literals, MatchKind.LeftmostFirst)


_ANY_LITERAL = _searching_for(*_LITERALS)
# All others have zeros, or what is no ASCII, within `LONGEST`; not so a cpio, a tar and an LHA.
_ANY_IN_TEXT = _searching_for(b"1AY&SY", b"ustar", b"070701", b"070702", b"070707", b"-lh")
_MAGICS = [(_searching_for(magic), header) for magic, header in _OLD_CPIO.items()]
_OBJ = _searching_for(b"obj")


def has_obj(bit: bytes) -> bool:
    """Whether the keyword with which objects of a PDF begin stands somewhere in it."""
    return bool(_OBJ.find_matches_as_indexes(bit))


def signatures(step: bytes, size: int) -> Iterator[list[re.Match[bytes]]]:
    """Those in the first `size` bytes, and maybe some behind these, one window after the other.

    Text, of which office files are full, has few signatures: nearly every header has zeros in it.
    """
    is_text = step.isascii() and b"\0" not in step
    literals = _ANY_IN_TEXT if is_text else _ANY_LITERAL
    dense = set[re.Pattern[bytes]]()
    view = memoryview(step)  # in which the search keeps the interpreter's lock, as it takes microseconds
    for begin in range(0, min(size, len(step)), _WINDOW):
        end = begin + _WINDOW + LONGEST
        window = view[begin:end]
        found = literals.find_matches_as_indexes(window) and _SIGNATURES.finditer(step, begin, end)
        yield [*found, *(() if is_text else _old_cpio(step, window, begin, dense))]


def _old_cpio(
    step: bytes, window: memoryview, begin: int, dense: set[re.Pattern[bytes]]
) -> Iterator[re.Match[bytes]]:
    """Where its two bytes are everywhere the pattern finds them faster: these patterns are `dense`."""
    for magic, header in _MAGICS:
        places = [] if header in dense else magic.find_matches_as_indexes(window)
        if len(places) > _FEW:
            dense.add(header)
        if header in dense:
            yield from header.finditer(step, begin, begin + len(window))
        else:
            yield from [found for _, at, _ in places if (found := header.match(step, begin + at))]
