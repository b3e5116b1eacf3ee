"""Names out of archives, which somebody wrote: shown so that they do nothing but say what they say."""

from __future__ import annotations

import re

_LONGEST = 1_000


def shown(name: bytes) -> str:
    """A name from which no terminal does anything, and no path leads out of anywhere."""
    text = name.decode(errors="surrogateescape").removeprefix("./").replace("\\", r"\x5c")
    text = re.sub(r"^/", r"\\x2f", text)
    return printable(re.sub(r"(?:^|(?<=/))\.\.(?=/|$)", r"\\x2e\\x2e", text))


def printable(text: str) -> str:
    r"""What is not, byte by byte as `\x1b`."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def shortened(path: str) -> str:
    """The end says most."""
    return path if len(path) <= _LONGEST else f"...{path[3 - _LONGEST :]}"


def _escaped(character: str) -> str:
    """A byte that is no text stands in a surrogate: PEP 383."""
    byte = ord(character) - 0xDC00
    encoded = bytes([byte]) if 0x80 <= byte <= 0xFF else character.encode(errors="surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in encoded)
