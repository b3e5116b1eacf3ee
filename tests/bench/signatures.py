"""ClamAV signatures for the benchmark: a synthetic stand-in for the real database, at any scale.

The real one (8.7 million signatures) cannot be shipped. Each kind of matcher costs clamd something else, so
the stand-in has the same mix: whole-file hashes (.hdb, .hsb: memory, and a digest of every file; some
without a length force SHA-1 and SHA-256 on all), sections of programs (.mdb: memory), byte patterns (.ndb,
.ldb: the cost per byte). At scale 1 clamd takes about 1.0 GB and 7 s to load. Scale 0 is EICAR and the
marker alone: clamd is then as cheap as it gets, which shows what a proxy costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TextIO

from tests.real_clamd import EICAR

# Found at any place of any file: it shows that the whole of it was scanned.
MARKER = b"bench-marker-7f3a9c51e2d84b06-av"

_COUNTS = {"hdb": 2_400_000, "hsb": 900_000, "mdb": 3_000_000, "ndb": 160_000, "ldb": 60_000}
_WITHOUT_LENGTH = 0.02
# Kind of file that a pattern is for (1 programs, 3 HTML, 10 PDF, ...), and how many of a hundred are.
_TARGETS = {1: 70, 0: 8, 3: 6, 7: 3, 2: 3, 10: 2, 4: 1, 5: 1, 6: 2}
_OPCODES = (
    "8b45 8b4d ff15 e8 83c4 85c0 7405 7510 33c0 c745 6a00 68 50 8d85 895d 5e5f c9c3 55 8bec 0fb6".split()  # noqa: SIM905
)
_PHRASES = (
    b"function|eval(|document.|unescape|String.fromCharCode|var |http://|.exe|powershell|CreateObject|Shell|base64"
    b"|iframe|onload=|cmd /c|AutoOpen|WScript|password|Invoice|/JavaScript"
).split(b"|")


def build_database(folder: Path, scale: float, seed: int = 20) -> None:
    """Write the files of `scale` to `folder`, unless they are there."""
    done = folder / "built"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = Random(seed)
    makers = {"hdb": _hash, "hsb": _long_hash, "mdb": _section, "ldb": _logic}
    for suffix, make in makers.items():
        if number := int(_COUNTS[suffix] * scale):
            with (folder / f"bench.{suffix}").open("w", buffering=1 << 20) as file:
                file.writelines(make(rng, index) for index in range(number))
    with (folder / "bench.ndb").open("w", buffering=1 << 20) as file:
        _write_bodies(file, rng, int(_COUNTS["ndb"] * scale))
    done.touch()


def _write_bodies(file: TextIO, rng: Random, number: int) -> None:
    file.write(f"Eicar-Signature:0:0:{EICAR.hex()}\nBench.Marker:0:*:{MARKER.hex()}\n")
    file.writelines(_body(rng, index) for index in range(number))


def _hash(rng: Random, index: int) -> str:
    return f"{rng.randbytes(16).hex()}:{rng.randint(600, 4_000_000)}:Bench.Hash-{index}\n"


def _long_hash(rng: Random, index: int) -> str:
    digest = rng.randbytes(20 if rng.random() < 0.15 else 32).hex()
    if rng.random() < _WITHOUT_LENGTH:
        return f"{digest}:*:Bench.Sha-{index}:73\n"
    return f"{digest}:{rng.randint(600, 30_000_000)}:Bench.Sha-{index}\n"


def _section(rng: Random, index: int) -> str:
    return f"{rng.randint(600, 4_000_000) & ~0x1FF}:{rng.randbytes(16).hex()}:Bench.Sect-{index}\n"


def _body(rng: Random, index: int) -> str:
    target = _target(rng)
    offset = rng.choice(("*", "*", "*", "EP+0", "0")) if target == 1 else "*"
    return f"Bench.Body-{index}:{target}:{offset}:{_pattern(rng, target)}\n"


def _logic(rng: Random, index: int) -> str:
    target = _target(rng)
    patterns = [_pattern(rng, target) for _ in range(rng.randint(2, 5))]
    all_of_them = "&".join(map(str, range(len(patterns))))
    return f"Bench.Logic-{index};Engine:51-255,Target:{target};{all_of_them};{';'.join(patterns)}\n"


def _target(rng: Random) -> int:
    return rng.choices(list(_TARGETS), weights=list(_TARGETS.values()))[0]


def _pattern(rng: Random, target: int) -> str:
    """Bytes in hexadecimal, nearly half with a gap or a wildcard in them."""
    code = target in {1, 6} or (target == 0 and rng.random() < 0.5)
    pieces = _code(rng) if code else _prose(rng)
    pattern = _of_length(pieces, rng.choice((12, 16, 20, 24, 32, 48, 64)))
    kind = rng.random()
    if kind < 0.25:
        return f"{pattern}{{{rng.randint(0, 8)}-{rng.randint(9, 64)}}}{_of_length(pieces, 12)}"
    if kind < 0.35:
        return f"{pattern}*{_of_length(pieces, 16)}"
    if kind < 0.45:
        return f"{pattern}????{_of_length(pieces, 10)}"
    return pattern


def _of_length(pieces: Iterator[str], length: int) -> str:
    pattern = ""
    while len(pattern) < 2 * length:
        pattern += next(pieces)
    return pattern[: 2 * length]


def _code(rng: Random) -> Iterator[str]:
    while True:
        yield rng.choice(_OPCODES) + rng.randbytes(rng.choice((1, 2, 4))).hex()


def _prose(rng: Random) -> Iterator[str]:
    while True:
        yield (rng.choice(_PHRASES) + rng.randbytes(rng.choice((1, 2, 3))).hex().encode()).hex()
