"""The streams of a PDF that opens without a password (ISO 32000-2, 7.6): its user's password is empty.

Not to judge how it is encrypted, which `pdf_encryption` does, but to see what is attached to it. With another
password, or another dictionary than readers take, nothing comes out that makes sense.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

from scanner.containers.inspection import Unsure
from scanner.containers.pdf_objects import Header, dictionary
from scanner.crypto.pdf_standard import by_aes128, by_aes256, by_rc4, file_key, old_file_key
from scanner.verdict import Reason

_LEAST_BITS = 40
_NOT_HEXADECIMAL = re.compile(rb"[^0-9A-Fa-f]")
_ESCAPED = re.compile(rb"\\(?:([0-7]{1,3})|\r\n|(.))|\r\n?", re.DOTALL)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f", b"\n": b"", b"\r": b""}


class Decryption:
    """By an encryption dictionary and the document's identifier, both as they are written.

    Nothing is computed before something is to be decrypted: most documents have no need.
    """

    def __init__(self, said: Mapping[bytes, bytes], identifier: bytes) -> None:
        self._said = said
        self._identifier = identifier

    def decrypt(self, header: Header, data: bytes) -> bytes:
        """What lies in the stream of this object; Unsure (encrypted document) where that is odd."""
        try:
            return self._decrypted(header, data)
        except (KeyError, ValueError):
            raise Unsure(Reason.ENCRYPTED_DOCUMENT) from None

    def _decrypted(self, header: Header, data: bytes) -> bytes:
        method, key = self._method_and_key
        if method == b"/AESV3":
            return by_aes256(key, data)
        cipher = by_aes128 if method == b"/AESV2" else by_rc4
        return cipher(key, header.number, header.generation, data)

    @cached_property
    def _method_and_key(self) -> tuple[bytes, bytes]:
        said, revision = self._said, int(self._said[b"/R"])
        method = _method(said) if int(said[b"/V"]) >= 4 else b"/V2"
        if revision >= 5:
            return method, file_key(text(said[b"/U"]), text(said[b"/UE"]), revision)
        left_plain = revision == 4 and said.get(b"/EncryptMetadata") == b"false"
        identifier = text(self._identifier) + b"\xff" * (4 if left_plain else 0)
        owner, permissions = text(said[b"/O"]), int(said[b"/P"])
        return method, old_file_key(owner, permissions, identifier, revision, _length(said, revision))


def text(string: bytes) -> bytes:
    """What a string stands for (7.3.4)."""
    if string.startswith(b"<"):
        digits = _NOT_HEXADECIMAL.sub(b"", string)
        return bytes.fromhex((digits + b"0" * (len(digits) % 2)).decode())
    return _ESCAPED.sub(_letter, string[1:-1])


def _letter(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return bytes([int(match[1], 8) & 0xFF])
    if match[2]:
        return _LETTERS.get(match[2], match[2])
    return b"" if match[0].startswith(b"\\") else b"\n"


def _method(said: Mapping[bytes, bytes]) -> bytes:
    """The one for streams; KeyError or ValueError for none that is known."""
    if said.get(b"/EFF", said[b"/StmF"]) != said[b"/StmF"]:  # qpdf has another one for attached files
        raise ValueError
    filters = dictionary(said[b"/CF"])
    crypt = filters and dictionary(filters.values[said[b"/StmF"]])
    if not crypt or crypt.values[b"/CFM"] not in (b"/V2", b"/AESV2", b"/AESV3"):
        raise ValueError
    return crypt.values[b"/CFM"]


def _length(said: Mapping[bytes, bytes], revision: int) -> int:
    """Of the key in bytes; some programs say it so."""
    if revision == 2:
        return 5
    bits = 128 if said[b"/V"] == b"4" else int(said.get(b"/Length", b"40"))
    return min(bits // 8 if bits >= _LEAST_BITS else bits, 16)
