"""Compound files ([MS-CFB]), OLE2: a file system in a file, as old Office files, .msi and .msg are.

Strict where two readers could find other streams, or other bytes in one: a sector outside of the file or in
two chains, a chain that ends too early, a directory that is no tree. Lenient where they all read the same: a
chain may be too long, orphans may lie about. Costs no more than the file's size, whatever is in it.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scanner.containers.inspection import MAX_MEMBERS, Part, Unsure, require
from scanner.verdict import Reason

# Smaller streams lie in small sectors (2.2).
CUTOFF = 4096
_HEADER = struct.Struct("<8s18x4H6x9L")
_BYTE_ORDER, _MINI_SHIFT, _MINI = 0xFFFE, 6, 64
_SHIFTS = {3: 9, 4: 12}
_IN_HEADER, _IN_HEADER_AT = 109, 76
_END, _NONE = 0xFFFFFFFE, 0xFFFFFFFF
_ENTRY = struct.Struct("<64sHBB3L36xLQ")
_EMPTY, _STORAGE, _STREAM, _ROOT = 0, 1, 2, 5
_NAME_SIZE = 64
# Clamd goes no deeper by its MaxRecursion (facts/security.md, section 2).
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Stream:
    """A file in it; `offset` is where that lies in one piece in the compound file, if it does."""

    path: tuple[str, ...]
    content: Part
    offset: int | None

    @property
    def name(self) -> str:
        """Without the storages around it."""
        return self.path[-1]


@dataclass(frozen=True, slots=True)
class _Node:
    """An entry of the directory."""

    name: str
    kind: int
    links: tuple[int, int, int]
    start: int
    size: int


class CompoundFile:
    """A compound file, `version` 3 or 4, in sectors of so many bytes. Raises Unsure, as `streams` does."""

    def __init__(self, part: Part) -> None:
        self._part = part
        header = part.read(0, _HEADER.size)
        require(len(header) == _HEADER.size, Reason.DAMAGED)
        _, self.version, order, shift, mini, *numbers = _HEADER.unpack(header)
        require(order == _BYTE_ORDER and mini == _MINI_SHIFT and numbers[4] == CUTOFF, Reason.DAMAGED)
        require(_SHIFTS.get(self.version) == shift, Reason.DAMAGED)
        _, fats, directory, _, _, mini_fat, mini_fats, difat, _ = numbers
        self.sector = 1 << int(shift)
        self._used = bytearray(max(0, -(-(part.size - self.sector) // self.sector)))
        self._fat = self._table(self._fat_sectors(fats, difat), len(self._used))
        mini_sectors = self._chain(mini_fat, mini_fats)
        self._nodes = self._directory(directory)
        root = self._nodes[0]
        self._mini_fat = self._table(mini_sectors, -(-min(root.size, part.size) // _MINI))
        self._mini_used = bytearray(len(self._mini_fat))
        self._mini = self._gathered(self._chain(root.start, self._count(root.size)), root.size)

    def streams(self) -> Iterator[Stream]:
        """All that the directory's tree leads to."""
        for path, node in self._walk():
            if node.size >= CUTOFF:
                content = self._gathered(self._chain(node.start, self._count(node.size)), node.size)
            else:
                content = self._small(node)
            yield Stream(path, content, self._offset(content))

    # -- sectors ---------------------------------------------------------------------------------

    def _count(self, size: int) -> int:
        """How many sectors so many bytes fill; Unsure where the file has less."""
        require(size <= self._part.size, Reason.DAMAGED)
        return -(-size // self.sector)

    def _claim(self, number: int) -> None:
        """Each sector belongs to one chain, and is in it once."""
        if number >= len(self._used) or self._used[number]:
            raise Unsure(Reason.DAMAGED)
        self._used[number] = 1

    def _fat_sectors(self, count: int, difat: int) -> list[int]:
        """Where the FAT lies: the header knows the first sectors, a chain of others the rest (2.5)."""
        require(count <= len(self._used), Reason.DAMAGED)
        found = list(struct.unpack("<109L", self._whole(_IN_HEADER_AT, 4 * _IN_HEADER)))
        while len(found) < count:
            self._claim(difat)
            *more, difat = self._numbers(difat)
            found += more
        for number in found[:count]:
            self._claim(number)
        return found[:count]

    def _chain(self, number: int, wanted: int) -> list[int]:
        """The first `wanted` sectors from this one on. There may be 40,000: claimed here, without a call."""
        sectors, fat, used = [], self._fat, self._used
        known = min(len(fat), len(used))
        for _ in range(wanted):
            if number >= known or used[number]:
                raise Unsure(Reason.DAMAGED)
            used[number] = 1
            sectors.append(number)
            number = fat[number]
        return sectors

    def _whole(self, offset: int, size: int) -> bytes:
        content = self._part.read(offset, size)
        require(len(content) == size, Reason.DAMAGED)
        return content

    def _numbers(self, number: int) -> tuple[int, ...]:
        return struct.unpack(f"<{self.sector // 4}L", self._whole((number + 1) * self.sector, self.sector))

    def _table(self, sectors: Sequence[int], wanted: int) -> array[int]:
        """At least so many numbers, if there are, if there are: a hostile file may be full of them."""
        table = array("I")
        for number in sectors[: -(-wanted // (self.sector // 4))]:
            table.extend(self._numbers(number))
        return table

    def _gathered(self, sectors: list[int], size: int) -> Part:
        return gathered(self._part, [(number + 1) * self.sector for number in sectors], self.sector, size)

    def _small(self, node: _Node) -> Part:
        number, offsets = node.start, []
        for _ in range(-(-node.size // _MINI)):
            require(number < len(self._mini_used) and not self._mini_used[number], Reason.DAMAGED)
            self._mini_used[number] = 1
            offsets.append(number * _MINI)
            number = self._mini_fat[number]
        return gathered(self._mini, offsets, _MINI, node.size)

    def _offset(self, content: Part) -> int | None:
        (read, begin), (raw, start) = content.place(0), self._part.place(0)
        return begin - start if read is raw else None

    # -- directory -------------------------------------------------------------------------------

    def _directory(self, number: int) -> list[_Node]:
        nodes: list[_Node] = []
        while number != _END:
            require(len(nodes) <= MAX_MEMBERS, Reason.LIMIT)
            self._chain(number, 1)
            content = self._whole((number + 1) * self.sector, self.sector)
            nodes += (self._node(*fields) for fields in _ENTRY.iter_unpack(content))
            number = self._fat[number]
        require(nodes and nodes[0].kind == _ROOT and nodes[0].links[:2] == (_NONE, _NONE), Reason.DAMAGED)
        return nodes

    def _node(self, name: bytes, length: int, kind: int, _color: int, *numbers: int) -> _Node:
        """In version 3 the higher half of the size may be anything (2.6.3)."""
        left, right, child, start, size = numbers
        if length > _NAME_SIZE or length % 2:
            kind = _EMPTY  # clamd goes no further here
        text = name[: max(0, length - 2) & ~1].decode("utf-16-le", "surrogatepass")
        return _Node(
            text, kind, (left, right, child), start, size & 0xFFFFFFFF if self.version == 3 else size
        )

    def _walk(self) -> Iterator[tuple[tuple[str, ...], _Node]]:
        """Streams with their paths; each entry is met once."""
        seen = bytearray(len(self._nodes))
        seen[0] = 1
        waiting: list[tuple[int, tuple[str, ...]]] = [(self._nodes[0].links[2], ())]
        while waiting:
            index, above = waiting.pop()
            if index == _NONE:
                continue
            require(index < len(seen) and not seen[index], Reason.DAMAGED)
            seen[index] = 1
            node = self._nodes[index]
            left, right, child = node.links
            require(node.kind == _STORAGE or (node.kind == _STREAM and child == _NONE), Reason.DAMAGED)
            require(len(above) < _MAX_DEPTH, Reason.LIMIT)
            path = (*above, node.name)
            waiting += [(right, above), (child, path), (left, above)]
            if node.kind == _STREAM:
                yield path, node


def gathered(base: Part, offsets: list[int], unit: int, size: int) -> Part:
    """The `size` bytes that lie in `base` in units at these offsets: a slice where one follows the other.

    Unsure (damaged) where one does not fit.
    """
    if not offsets:
        return base.slice(0, 0)
    behind = len(offsets) - 1
    ends = max(offsets[:-1], default=-unit) + unit, offsets[-1] + size - behind * unit
    require(max(ends) <= base.size, Reason.DAMAGED)
    breaks = [i for i, (one, other) in enumerate(pairwise(offsets), 1) if other != one + unit]
    if not breaks:
        return base.slice(offsets[0], size)
    firsts = [0, *breaks]
    runs = _Runs(base, [i * unit for i in firsts], [offsets[i] for i in firsts], size)
    return Part(runs.read, 0, size)


class _Runs:
    """Bytes in pieces: `starts` are their offsets in what they come to, `offsets` those in `base`."""

    def __init__(self, base: Part, starts: list[int], offsets: list[int], size: int) -> None:
        self._base = base
        self._starts = starts
        self._offsets = offsets
        self._ends = [*starts[1:], size]

    def read(self, offset: int, length: int) -> bytes:
        end, pieces = offset + length, []
        at = bisect_right(self._starts, offset) - 1
        while offset < end and at < len(self._starts):
            size = min(end, self._ends[at]) - offset
            pieces.append(self._base.read(self._offsets[at] + offset - self._starts[at], size))
            offset += size
            at += 1
        return b"".join(pieces)
