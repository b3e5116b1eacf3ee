"""Text from elsewhere, made fit for a terminal."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Names of keys and files may hold line feeds, terminal escapes and bytes that are no text."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """A byte of a name that is not UTF-8 stands in a surrogate: PEP 383."""
    code = ord(character)
    return f"\\x{code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code:02x}"
