"""Compound files ([MS-CFB]) as programs write them, and as nobody but an attacker would.

Written from the specification: whoever reads them is tested, so that the reader's code is not used.
"""

from __future__ import annotations

import random
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.archives import SEVENZIP

FREE, END, FAT, DIFAT, NONE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFC, 0xFFFFFFFF
MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MINI, _CUTOFF, _IN_HEADER = 64, 4096, 109
_EMPTY, _STORAGE, _STREAM, _ROOT = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie in a compound file, for whoever wants to break one: file offsets of 4-byte numbers.

    `fat` and `mini_fat` are those of each sector's entry, `directory` of each 128-byte entry, `sectors` says
    which sectors a stream or "directory", "mini stream" and "mini FAT" has, in order.
    """

    data: bytes
    size: int
    fat: list[int]
    mini_fat: list[int]
    directory: list[int]
    sectors: dict[str, list[int]] = field(default_factory=dict)

    def with_number(self, offset: int, number: int, width: int = 4) -> bytes:
        """The file with another number at an offset."""
        return self.data[:offset] + number.to_bytes(width, "little") + self.data[offset + width :]


def compound(
    streams: Mapping[str, bytes], *, version: int = 3, shuffled: int | None = None, fat_sectors: int = 0
) -> bytes:
    """A compound file of streams by path ("storage/stream"); the rest as for `laid_out`."""
    return laid_out(streams, version=version, shuffled=shuffled, fat_sectors=fat_sectors).data


def by_sevenzip(data: bytes) -> list[bytes] | None:
    """The contents of all streams as 7-Zip extracts them, sorted; None where it opens no compound file."""
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name) / "file", Path(name) / "out"
        source.write_bytes(data)
        command = [SEVENZIP or "7z", "x", "-y", "-tcompound", f"-o{out}", str(source)]
        subprocess.run(command, capture_output=True, timeout=20, check=False)
        if not out.exists():
            return None
        return sorted(found.read_bytes() for found in out.rglob("*") if found.is_file())


def laid_out(
    streams: Mapping[str, bytes],
    *,
    version: int = 3,
    shuffled: int | None = None,
    fat_sectors: int = 0,
    spare: int = 0,
) -> Layout:
    """The same, and where everything lies.

    `shuffled` is the seed by which sectors of both kinds are put in another order; there are at least so many
    `fat_sectors`, and `spare` free sectors.
    """
    return _Writer(dict(streams), version, shuffled, fat_sectors, spare).written()


class _Writer:
    def __init__(
        self, streams: dict[str, bytes], version: int, seed: int | None, fat_sectors: int, spare: int
    ) -> None:
        self.version, self.size = version, 512 if version == 3 else 4096
        self.chance = None if seed is None else random.Random(seed)
        self.streams, self.fat_sectors, self.spare = streams, fat_sectors, spare
        self.contents: dict[str, list[bytes]] = {}

    def written(self) -> Layout:
        starts = self._mini()
        names, parents = self._tree()
        self.contents["directory"] = self._cut(bytes(128 * len(names)))
        order, fat_at, difat_at = self._places()
        sectors = {key: [0] * len(pieces) for key, pieces in self.contents.items()}
        for number, ((key, i), _) in enumerate(order):
            if key:
                sectors[key][i] = number
        fat = self._fat(len(order), sectors, fat_at, difat_at)
        entries = self._entries(names, parents, starts, sectors)
        self.contents["directory"] = self._cut(b"".join(entries), pad=_entry("", _EMPTY))
        return self._joined(order, sectors, fat, fat_at, difat_at, len(names))

    def _cut(self, content: bytes, pad: bytes = b"\0") -> list[bytes]:
        count = -len(content) % self.size // len(pad)
        content += pad * count
        return [content[i : i + self.size] for i in range(0, len(content), self.size)]

    def _mini(self) -> dict[str, int]:
        """Small streams side by side in mini sectors; gives where each begins."""
        wanted = [
            (path, i)
            for path, content in self.streams.items()
            if 0 < len(content) < _CUTOFF
            for i in range(-(-len(content) // _MINI))
        ]
        if self.chance:
            self.chance.shuffle(wanted)
        self.mini_size = len(wanted) * _MINI
        at = {key: number for number, key in enumerate(wanted)}
        table = [at.get((path, i + 1), END) for path, i in wanted]
        mini = b"".join(
            self.streams[path][i * _MINI : (i + 1) * _MINI].ljust(_MINI, b"\0") for path, i in wanted
        )
        if wanted:
            self.contents["mini stream"] = self._cut(mini)
            self.contents["mini FAT"] = self._cut(struct.pack(f"<{len(table)}L", *table), b"\xff" * 4)
        for path, content in self.streams.items():
            if len(content) >= _CUTOFF:
                self.contents[path] = self._cut(content)
        return {path: number for (path, i), number in at.items() if not i}

    def _tree(self) -> tuple[list[str], dict[str, list[str]]]:
        names: list[str] = [""]
        parents: dict[str, list[str]] = {}
        for path in self.streams:
            steps = path.split("/")
            for depth in range(len(steps)):
                name = "/".join(steps[: depth + 1])
                if name not in names:
                    names.append(name)
                    parents.setdefault("/".join(steps[:depth]), []).append(name)
        return names, parents

    def _places(self) -> tuple[list[tuple[tuple[str, int], bytes]], list[int], list[int]]:
        """What lies in each sector; sectors of the FAT and the DIFAT come last."""
        order = [((key, i), piece) for key, pieces in self.contents.items() for i, piece in enumerate(pieces)]
        order += [(("", i), bytes(self.size)) for i in range(self.spare)]
        if self.chance:
            self.chance.shuffle(order)
        numbers, fats, difats = self.size // 4, self.fat_sectors, 0
        while True:
            difats = max(0, -(-(fats - _IN_HEADER) // (numbers - 1)))
            if fats * numbers >= len(order) + fats + difats:
                break
            fats += 1
        first = len(order)
        order += [(("", -1), b"")] * (fats + difats)
        return order, list(range(first, first + fats)), list(range(first + fats, first + fats + difats))

    def _fat(
        self, count: int, sectors: Mapping[str, list[int]], fat_at: list[int], difat_at: list[int]
    ) -> list[int]:
        fat = [FREE] * (len(fat_at) * self.size // 4)
        for chain in sectors.values():
            for number, following in zip(chain, [*chain[1:], END], strict=True):
                fat[number] = following
        for number in fat_at:
            fat[number] = FAT
        for number in difat_at:
            fat[number] = DIFAT
        assert count <= len(fat)
        return fat

    def _entries(
        self,
        names: list[str],
        children: Mapping[str, list[str]],
        starts: Mapping[str, int],
        sectors: Mapping[str, list[int]],
    ) -> list[bytes]:
        index = {name: number for number, name in enumerate(names)}
        links = {name: [NONE, NONE, NONE] for name in names}
        for name, found in children.items():
            if found:
                links[name][2] = _balance(found, index, links)
        entries = []
        for name in names:
            if not name:
                start = sectors.get("mini stream", [END])[0]
                entries.append(_entry("Root Entry", _ROOT, links[name], start, self.mini_size))
            elif name in self.streams:
                content = self.streams[name]
                start = sectors[name][0] if len(content) >= _CUTOFF else starts.get(name, END)
                entries.append(_entry(name.rpartition("/")[2], _STREAM, links[name], start, len(content)))
            else:
                entries.append(_entry(name.rpartition("/")[2], _STORAGE, links[name]))
        return entries

    def _joined(
        self,
        order: list[tuple[tuple[str, int], bytes]],
        sectors: dict[str, list[int]],
        fat: list[int],
        fat_at: list[int],
        difat_at: list[int],
        count: int,
    ) -> Layout:
        numbers, size = self.size // 4, self.size
        body = [self.contents[key][i] if key else piece for (key, i), piece in order]
        for i, number in enumerate(fat_at):
            body[number] = struct.pack(f"<{numbers}L", *fat[i * numbers : (i + 1) * numbers])
        rest = fat_at[_IN_HEADER:]
        for i, number in enumerate(difat_at):
            mine = rest[i * (numbers - 1) : (i + 1) * (numbers - 1)]
            mine += [FREE] * (numbers - 1 - len(mine)) + [difat_at[i + 1] if i + 1 < len(difat_at) else END]
            body[number] = struct.pack(f"<{numbers}L", *mine)
        mini_fat = sectors.get("mini FAT", [])
        header = MAGIC + bytes(16) + struct.pack(
            "<5H6x9L",
            0x3E, self.version, 0xFFFE, size.bit_length() - 1, 6,
            (self.version - 3) * len(sectors["directory"]), len(fat_at), sectors["directory"][0], 0, _CUTOFF,
            mini_fat[0] if mini_fat else END, len(mini_fat), difat_at[0] if difat_at else END, len(difat_at),
        )  # fmt: skip
        in_header = (fat_at + [FREE] * _IN_HEADER)[:_IN_HEADER]
        header = (header + struct.pack("<109L", *in_header)).ljust(size, b"\0")
        at = [size + number * size for number in range(len(order))]
        return Layout(
            header + b"".join(body),
            size,
            [at[fat_at[i // numbers]] + i % numbers * 4 for i in range(len(fat))],
            [at[number] + i * 4 for number in mini_fat for i in range(numbers)],
            [at[sectors["directory"][i * 128 // size]] + i * 128 % size for i in range(count)],
            sectors,
        )


def _balance(found: list[str], index: Mapping[str, int], links: dict[str, list[int]]) -> int:
    """A search tree of siblings in the specification's order: by length, then by letters."""
    ordered = sorted(found, key=lambda name: (len(name.rpartition("/")[2]), name.upper()))
    middle = len(ordered) // 2
    name = ordered[middle]
    if ordered[:middle]:
        links[name][0] = _balance(ordered[:middle], index, links)
    if ordered[middle + 1 :]:
        links[name][1] = _balance(ordered[middle + 1 :], index, links)
    return index[name]


def _entry(name: str, kind: int, links: list[int] | None = None, start: int = 0, size: int = 0) -> bytes:
    encoded = (name + "\0").encode("utf-16-le") if kind else b""
    return struct.pack(
        "<64sHBB3L16xL16xLQ",
        encoded, len(encoded), kind, 1, *(links or [NONE] * 3), 0, start, size,
    )  # fmt: skip
