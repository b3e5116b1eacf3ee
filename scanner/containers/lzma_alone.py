"""Bare .lzma, which has no signature: a header that makes sense, and bytes behind it that can be decoded.

Each reader minds other fields of the header, and Python and zstd read on behind a stream that holds nothing
(tried: liblzma 5.4.1, 7-Zip 26.02, libarchive 3.6.2, zstd 1.5.4).
"""

from __future__ import annotations

import lzma
import re

from scanner.containers.inspection import Part

_HEAD, _LEAST, _CONTENT = 1024, 14, 16
# For these few bytes the least dictionary does: 4 GiB of it may be more than there is.
_DICTIONARY = b"\0\x10\0\0"
_UNKNOWN_SIZE = b"\xff" * 8
_MOST = 1 << 38  # what liblzma believes where it guesses the format
_MIB = 1 << 20
_ANY_DICTIONARY = 0xFFFFFFFF
# For liblzma this is a stream of size 0, with a dictionary of none.
_NOTHING = re.compile(rb"(?:[\0-\xe0]\0{17})*")
_NOTHING_SIZE = 18
_STEP = _NOTHING_SIZE * 2_000
_ZEROS = bytes(_STEP)
# More is not looked at in a go: the event loop waits.
_MOST_EMPTY, _MOST_ZEROS, _MOST_BESIDES_ZEROS = 16, 64 * 1024, 16
# What readers go on with behind empty streams.
_STREAM = re.compile(
    rb"\xfd7zXZ\0|LZIP|\x1f\x8b|BZh|\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18|\x04\x22\x4d\x18|\x02\x21\x4c\x18"
)
# A list of Kotlin's own types, in every Android app that is written in it: as LZMA it makes sense now and
# then, and unpacks to what begins with a control character.
_KOTLIN = re.compile(rb"\0{3}\x03\0{3}\x01\0{3}[\0-\x09]\0{3}[\x01-\x09]\n")


def begins_lzma(part: Part, *, for_x86: bool = False) -> bool:
    """Whether some reader takes it for a .lzma file, or for 7-Zip's form of one for x86 code."""
    if _KOTLIN.match(part.read(0, _HEAD)):
        return False
    offset = 0
    for _ in range(_MOST_EMPTY):
        if for_x86:
            if part.read(offset, 1) not in (b"\0", b"\1"):
                return False
            offset += 1
        elif (behind := _behind_nothing(part, offset)) is None:
            return True
        else:
            offset = behind
        head = part.read(offset, _HEAD)
        if offset > 1 and _STREAM.match(head):
            return True
        end = _end_of_empty(head, for_x86=for_x86)
        if not end:
            return _is_stream(head, for_x86=for_x86)
        offset += end
    return True


def _behind_nothing(part: Part, offset: int) -> int | None:
    """The offset behind all that stands for nothing; None where that is a lot besides zeros."""
    if not _NOTHING.fullmatch(part.read(offset, _NOTHING_SIZE)):
        return offset
    besides_zeros = 0
    while step := part.read(offset, _STEP):
        if step == _ZEROS:
            offset += _STEP
            continue
        end = _end_of_nothing(step)
        offset += end
        besides_zeros += len(step) - step.count(0)
        if end < _STEP:
            return offset
        if besides_zeros > _MOST_BESIDES_ZEROS:
            return None
    return offset


def _end_of_nothing(step: bytes) -> int:
    match = _NOTHING.match(step)
    return match.end() if match else 0


def _end_of_empty(head: bytes, *, for_x86: bool) -> int:
    """Where a stream of size 0 ends, behind which there may be another; 0 if this is none."""
    if any(head[5:13]) or not _is_header(head, for_x86=for_x86):
        return 0
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
    try:
        decoder.decompress(head[:1] + _DICTIONARY + head[5:])
    except lzma.LZMAError:
        return 0
    return len(head) - len(decoder.unused_data) if decoder.eof else 0


def _is_stream(head: bytes, *, for_x86: bool) -> bool:
    """Whether bytes come out of it; or it says itself that there are none, which is no chance."""
    if not _is_header(head, for_x86=for_x86):
        return False
    if _is_for_7zip_alone(head[0]):
        return True
    size = head[5:13] if int.from_bytes(head[5:13], "little") < _CONTENT else _UNKNOWN_SIZE
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE)
    try:
        content = decoder.decompress(head[:1] + _DICTIONARY + size + head[13:], _CONTENT)
        # Many a file begins with zeros, which decode to zeros: those alone are nothing.
        if len(content) == _CONTENT and not any(head[1:5]) and not any(content):
            return any(decoder.decompress(b"", _MOST_ZEROS))
    except lzma.LZMAError:
        return False
    return decoder.eof or len(content) == _CONTENT


def _is_header(head: bytes, *, for_x86: bool) -> bool:
    """Properties, dictionary and size make sense to a reader, and the first byte behind them is zero."""
    if len(head) < _LEAST or head[0] >= 9 * 5 * 5 or head[13]:
        return False
    dictionary, size = int.from_bytes(head[1:5], "little"), head[5:13]
    lowest = dictionary & -dictionary
    if dictionary and dictionary in (lowest, 3 * lowest, _ANY_DICTIONARY):
        return not size[7] or size == _UNKNOWN_SIZE
    return not for_x86 and _is_odd_header(head, dictionary, size)


def _is_odd_header(head: bytes, dictionary: int, size: bytes) -> bool:
    """Liblzma takes a dictionary of none, libarchive whole MiB, zstd any behind its own signature."""
    if size == _UNKNOWN_SIZE:
        return True
    whole = not dictionary % _MIB and 3 <= dictionary // _MIB <= 63
    return (not dictionary or whole or head.startswith(b"]\0")) and int.from_bytes(size, "little") < _MOST


def _is_for_7zip_alone(properties: int) -> bool:
    """More literal bits than liblzma has: nothing else here decodes it."""
    return properties % 9 + properties // 9 % 5 > 4
