"""Looking into one file: its bytes (`Part`), what that may cost (`Inspection`), how it ends (`Unsure`).

The rules of this module: a format raises `Unsure` as soon as two readers might see different things in a
file, calls `must_be_opened` where they all see the same but clamd does not, and returns where clamd certainly
sees everything. Hostile input costs a bounded number of members, bytes, nested containers and seconds; bytes
are touched in steps that let the event loop in.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NoReturn, Self

from scanner.containers.readers import Reader
from scanner.verdict import Reason

# Offset and length -> at most so many bytes from there.
Read = Callable[[int, int], bytes]
Place = tuple[Read, int]

STEP = 256 * 1024
# As clamd's own MaxFiles and MaxScanSize (facts/security.md, section 2): beyond them it says so itself.
MAX_MEMBERS = 10_000
MAX_INFLATED = 400 * 1024 * 1024
# Nested containers are held whole, all levels together; other members as far as 7-Zip searches them.
MAX_HELD = 64 * 1024 * 1024
SEARCHED = 8 * 1024 * 1024 + 64 * 1024
MAX_DEPTH = 8
PDF_WITHIN = 1024
# The end record of a ZIP with the longest comment: readers open whatever ends in one.
_END_RECORD = 22 + 0xFFFF
# Innocent members above that are not packed tighter than 1:200; a white page for print, at 70 MB, is.
RATIO_COUNTS_FROM = 100 * 1024 * 1024
MAX_RATIO = 200


class Unsure(Exception):
    """Clamd may not see what others see; `reason` is the report's."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def ambiguous(*_: object) -> NoReturn:
    """No reader opens this for certain, or two may see different things in it."""
    raise Unsure(Reason.AMBIGUOUS)


def require(condition: object, reason: Reason = Reason.AMBIGUOUS) -> None:
    """Raise Unsure unless `condition` holds."""
    if not condition:
        raise Unsure(reason)


class Part:
    """A run of `size` bytes behind something that reads; offsets are relative to its start.

    `zips_seen`: in these bytes clamd finds a ZIP wherever it begins.
    """

    __slots__ = ("_read", "_start", "size", "zips_seen")

    def __init__(self, read: Read, start: int, size: int, *, zips_seen: bool = False) -> None:
        self._read = read
        self._start = start
        self.size = size
        self.zips_seen = zips_seen

    @classmethod
    def of(cls, content: bytes | bytearray) -> Self:
        """All of `content`."""
        return cls(
            lambda offset, length: bytes(memoryview(content)[offset : offset + length]), 0, len(content)
        )

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes, fewer where the part ends, none outside of it."""
        if offset < 0 or offset >= self.size:
            return b""
        return self._read(self._start + offset, max(0, min(length, self.size - offset)))

    def slice(self, offset: int, size: int) -> Part:
        """The part inside this one; Unsure (damaged) where it does not fit."""
        require(offset >= 0 and 0 <= size <= self.size - offset, Reason.DAMAGED)
        return Part(self._read, self._start + offset, size, zips_seen=self.zips_seen)

    def with_zips_seen(self) -> Part:
        """The same bytes, where clamd finds every ZIP."""
        return Part(self._read, self._start, self.size, zips_seen=True)

    def place(self, offset: int) -> Place:
        """The same for the same byte in all parts of a file."""
        return self._read, self._start + offset

    def steps(self, offset: int = 0, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
        """Offset and bytes of one step after the other; each sees `overlap` bytes of the next."""
        for begin in range(offset, self.size, STEP):
            yield begin, self.read(begin, STEP + overlap)

    def tail(self, length: int) -> tuple[int, bytes]:
        """The last `length` bytes and where they begin."""
        begin = max(0, self.size - length)
        return begin, self.read(begin, length)

    def zeros(self, offset: int) -> bool:
        """Whether nothing but zeros follows."""
        return not any(piece.strip(b"\0") for _, piece in self.steps(offset))

    def crc32(self) -> int:
        """CRC-32 of all bytes."""
        crc = 0
        for _, piece in self.steps():
            crc = zlib.crc32(piece, crc)
        return crc


Check = Callable[[Part, "Inspection"], None]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of container, and how to judge one."""

    kind: str
    check: Check
    is_zip: bool = False  # or looks for one by itself


Recognise = Callable[[Part], Format | None]


class Inspection:
    """What looking into one file has shown and cost so far, nested containers included.

    `by_ends` and `by_inside` give a part's format, or None where it is no container that can be told so;
    `zip_end` is where the end of a ZIP is in a part, if at all. `deadline` is on the monotonic clock,
    `abandoned` says that nobody waits any more.
    """

    def __init__(
        self,
        by_ends: Recognise,
        by_inside: Recognise,
        zip_end: Callable[[Part], int | None],
        deadline: float,
        abandoned: Callable[[], bool],
    ) -> None:
        self.kind = "none"
        self.opened = False
        self.encryption: set[Reason] = set()
        self._readers: tuple[Reader, ...] = (Reader.LIBARCHIVE,)
        self._by_ends = by_ends
        self._by_inside = by_inside
        self._zip_end = zip_end
        self._unexplained: Place | None = None
        self._deadline = deadline
        self._abandoned = abandoned
        self._members = 0
        self._inflated = 0
        self._held = 0
        self._depth = 0

    def look_into(self, part: Part) -> None:
        """Judge a part, whatever it is, like a file of its own; raises Unsure.

        Not in what must be opened anyhow: then its members are judged one by one.
        """
        self.explain_end(part)
        if self.opened or (found := self.container(part)) is None:
            return
        require(self._depth <= MAX_DEPTH, Reason.LIMIT)
        if not self._depth:
            self.kind = found.kind
        self._depth += 1
        outer, self._unexplained = self._unexplained, None if found.is_zip else self._end_of_zip(part)
        found.check(part, self)
        require(self._unexplained is None)
        self._unexplained = outer
        self._depth -= 1

    def explain_end(self, member: Part) -> None:
        """Where a file ends as a ZIP, some open it as one: it must be a member that is judged as one.

        Or the very bytes of one, where a compressor has stored what it could not make smaller.
        """
        if self._unexplained is None or (end := self._zip_end(member)) is None:
            return
        read, place = self._unexplained
        stored = member.size <= _END_RECORD and end <= place
        if member.place(end) == self._unexplained or (
            stored and read(place - end, member.size) == member.read(0, member.size)
        ):
            self._unexplained = None

    def _end_of_zip(self, part: Part) -> Place | None:
        offset = self._zip_end(part)
        return None if offset is None else part.place(offset)

    def container(self, part: Part) -> Format | None:
        """What kind of container a part is, if any."""
        return self._by_ends(part) or self._by_inside(part)

    def inside(self, part: Part) -> Format | None:
        """The same, whatever its first and last bytes are."""
        return self._by_inside(part)

    def must_be_opened(self) -> None:
        """Clamd does not open this container, or not surely: it and whatever holds it is left to readers."""
        self.opened = True

    def must_be_seen_alone(self) -> None:
        """Of a file's parts clamd may name this one alone: whatever holds it is left to readers."""
        self.opened |= self._depth > 1

    def is_encrypted(self, reason: Reason) -> None:
        """All of the part, or some, is behind a password; what is not is to be seen all the same."""
        self.encryption.add(reason)
        self.must_be_seen_alone()

    def opened_by(self, *readers: Reader) -> None:
        """Who is to open the outermost container if it must be opened; nobody: nobody can."""
        if self._depth == 1:
            self._readers = readers

    def readers(self) -> tuple[Reader, ...]:
        """Who opens the file: nobody where it is plain; Unsure where nobody can."""
        require(self._readers or not self.opened)
        return self._readers if self.opened else ()

    def unpack(self, pieces: Iterable[bytes], packed_size: int) -> tuple[int, int]:
        """Look into what the pieces add up to; gives its size and CRC-32."""
        held, tail, size, crc, limit, pdf = bytearray(), bytearray(), 0, 0, SEARCHED, False
        for piece in pieces:
            self.spend(len(piece))
            if not size:
                pdf = b"%PDF-" in piece[:PDF_WITHIN]
                if pdf or self._by_ends(Part.of(piece)) is not None:
                    limit = MAX_HELD
            size += len(piece)
            crc = zlib.crc32(piece, crc)
            _require_ratio(size, packed_size)
            if size > limit:
                tail = ((tail or held[-_END_RECORD:]) + piece)[-_END_RECORD:]
            held += piece[: max(0, limit + len(piece) - size)]
        if len(held) < size:
            require(limit == SEARCHED or pdf, Reason.LIMIT)
            if pdf:  # its end says whether it is encrypted
                self.must_be_opened()
            require(b"PK\5\6" not in tail)
        self.look_into_held(held, [len(held)])
        return size, crc

    def member(self) -> None:
        """Another member; Unsure (limit) where they are too many."""
        self._members += 1
        require(self._members <= MAX_MEMBERS, Reason.LIMIT)
        self.check_time()

    def spend(self, size: int) -> None:
        """So many more bytes were unpacked."""
        self._inflated += size
        require(self._inflated <= MAX_INFLATED, Reason.LIMIT)
        self.check_time()

    def check_time(self) -> None:
        """Unsure (time limit) where there is no more, or no use."""
        require(time.monotonic() < self._deadline and not self._abandoned(), Reason.TIME_LIMIT)

    def look_into_held(self, content: bytes | bytearray, sizes: Iterable[int]) -> None:
        """Judge unpacked members that lie side by side in `content`; Unsure unless they fill it."""
        self._held += len(content)
        require(self._held <= MAX_HELD, Reason.LIMIT)
        whole, offset = Part.of(content), 0
        for size in sizes:
            self.look_into(whole.slice(offset, size))
            offset += size
        require(offset == whole.size, Reason.DAMAGED)
        self._held -= len(content)


def _require_ratio(size: int, packed_size: int) -> None:
    require(size <= RATIO_COUNTS_FROM or size <= MAX_RATIO * packed_size, Reason.LIMIT)
