"""Small files that cost much to whoever opens them without a thought."""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import subprocess
import tempfile
import zipfile
import zlib

from tests.unpacking.scene import MIB


def zeros(size: int) -> bytes:
    """A gzip of so many zeros."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9) as archive:
        for _ in range(size // MIB):
            archive.write(bytes(MIB))
    return buffer.getvalue()


def forty_two() -> bytes:
    """After 42.zip: sixteen ZIPs in sixteen ZIPs and so on, and 100 MiB of zeros in each of the innermost."""
    inner = _zip({"0.dll": bytes(100 * MIB)})
    for level in range(5):
        inner = _zip({f"lib {level}{number:x}.zip": inner for number in range(16)})
    return inner


def overlapping() -> bytes:
    """After David Fifield: 20,000 members that all have the same stored bytes, a MiB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(MIB)) + packer.flush()
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, zlib.crc32(bytes(MIB)), len(packed), MIB, 1, 0)
    local = b"PK\3\4" + common + b"x" + packed
    entry = b"PK\1\2\x14\0" + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + b"x"
    return _with_end(local, 20_000 * entry, 20_000)


def million_members() -> bytes:
    """A ZIP of empty files."""
    common = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, 0, 0, 0, 6, 0)
    names = [b"%06d" % number for number in range(1_000_000)]
    local = b"".join(b"PK\3\4" + common + name for name in names)
    central = b"".join(
        b"PK\1\2\x14\0" + common + struct.pack("<HHHII", 0, 0, 0, 0, at * 36) + name
        for at, name in enumerate(names)
    )
    return _with_end(local, central, 1_000_000)


def _with_end(local: bytes, central: bytes, count: int) -> bytes:
    """ZIP64, where it is more than 65,535."""
    at = len(local) + len(central)
    end64 = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(central), len(local))
    locator = b"PK\6\7" + struct.pack("<IQI", 0, at, 1)
    short = min(count, 0xFFFF)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, short, short, len(central), len(local), 0)
    return local + central + (end64 + locator if short == 0xFFFF else b"") + end


def wide_zstd(window_log: int = 31) -> bytes:
    """A frame that asks for a window of 2 GiB, and then repeats a byte a thousand times."""
    descriptor = (window_log - 10) << 3
    block = (1000 << 3 | 1 << 1 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\0" + bytes([descriptor]) + block + b"x"


def wide_xz() -> bytes:
    """A dictionary of 1.5 GiB, for a text."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 4096}]
    small = lzma.compress(b"text" * 1000, filters=filters)
    header = small[12:24]
    wide = header[:4] + bytes([39]) + header[5:8]
    return small[:12] + wide + struct.pack("<I", zlib.crc32(wide)) + small[24:]


def sparse_tar() -> bytes:
    """8 TiB of a hole in a tar of 10 KiB."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["truncate", "-s", "8T", f"{directory}/hole"], check=True)
        return subprocess.check_output(["tar", "-S", "-c", "-C", directory, "hole"])


def gzip_chain(length: int) -> bytes:
    """A gzip in a gzip in a gzip."""
    inner = b"text"
    for _ in range(length):
        inner = gzip.compress(inner)
    return inner


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
