"""A PDF that opens without asking, as clamd wants to have it.

Clamd decrypts what has only an owner's password, but not where the encryption dictionary stands in the
trailer itself, or gives its key's length in bytes (tried, 1.4.6): it then says that it cannot look inside. So
the same document is made with the same dictionary as an object of its own (ISO 32000-1, 7.6). Whether it
opens without a password is still for clamd to say.
"""

from __future__ import annotations

import re

from scanner.containers.inspection import Part
from scanner.containers.pdf_encryption import REFERENCE
from scanner.containers.pdf_objects import MOST, few, matches

_OBJECT = 8_388_607  # the highest number that readers must take (annex C)
_MAX_DICTIONARY = 16 * 1024
_NAME = re.compile(rb"/Encrypt")
_ESCAPED = re.compile(
    rb"/(?=[^\s/<>\[\]()]*#)(?:E|#45)(?:n|#6[eE])(?:c|#63)(?:r|#72)(?:y|#79)(?:p|#70)(?:t|#74)"
)
_ID = re.compile(rb"/ID\s{0,32}\[\s{0,32}(<[0-9A-Fa-f\s]{0,512}>|\((?:[^()\\]|\\.){0,256}\))", re.DOTALL)
# Brackets of dictionaries and lists; strings in hexadecimal and in letters; comments; names; others.
_TOKEN = re.compile(
    rb"<<|>>|\[|\]|<[0-9A-Fa-f\s]*>|\((?:[^()\\]|\\.)*\)|%[^\r\n]*|/[^\s/<>\[\]()%]*|[^\s/<>\[\]()%]+",
    re.DOTALL,
)
_NUMBER = re.compile(rb"\d{1,4}")
_LEAST_BITS = 40
_HIDDEN = b"/Xncrypt"


def move_encryption(content: bytearray) -> bool:
    """Put a PDF's encryption dictionary where clamd looks; False if there is not exactly one."""
    part = Part.of(content)
    found = few(matches(part, REFERENCE))
    identifiers = {match[1] for _, match in few(matches(part, _ID))} or {b"<>"}
    if (
        len(found) > MOST
        or len({match[0] for _, match in found}) != 1
        or len(identifiers) != 1
        or any(matches(part, _ESCAPED))
    ):
        return False
    dictionary = _encryption(part, found)
    if dictionary is None:
        return False
    for begin, match in matches(part, _NAME):  # of its metadata, too: clamd minds no more of the name
        content[begin : begin + len(match[0])] = _HIDDEN
    content += b"\n%d 0 obj\n%b\nendobj\n" % (_OBJECT, dictionary)
    identifier = identifiers.pop()
    content += b"trailer\n<< /Encrypt %d 0 R /ID [%b%b] >>\n%%%%EOF\n" % (_OBJECT, identifier, identifier)
    return True


def _encryption(part: Part, found: list[tuple[int, re.Match[bytes]]]) -> bytes | None:
    """The dictionary in the trailer itself, or in the object that trailers refer to."""
    reference = found[0][1]
    if reference[1] is not None:
        pattern = rb"(?<![0-9])%b\s{1,32}%b\s{1,32}obj\s{0,32}(?=<<)" % (reference[1], reference[2])
        found = few(matches(part, re.compile(pattern)))
    if len(found) != 1:
        return None
    begin, match = found[0]
    return _dictionary(part.read(begin + len(match[0]), _MAX_DICTIONARY))


def _dictionary(text: bytes) -> bytes | None:
    """The dictionary that begins here, with the length of its key in bits."""
    depth, end, name, values = 0, 0, b"", dict[bytes, re.Match[bytes]]()
    for token in _TOKEN.finditer(text):
        if text[end : token.start()].strip():
            break
        end = token.end()
        if token[0] in (b"<<", b"["):
            depth += 1
        elif token[0] in (b">>", b"]"):
            depth -= 1
            name = b"" if depth == 1 else name
            if not depth:
                return _with_length(text[: token.end()], values)
        elif depth == 1 and not token[0].startswith(b"%"):
            if name:
                values[name] = token
            name = token[0] if not name and token[0].startswith(b"/") else b""
    return None


def _with_length(dictionary: bytes, values: dict[bytes, re.Match[bytes]]) -> bytes:
    """Later versions have it elsewhere; without any it is 40."""
    version, length = (values[key][0] if key in values else b"" for key in (b"/V", b"/Length"))
    if version not in (b"1", b"2", b"3"):
        return dictionary
    if not length:
        return dictionary.removesuffix(b">>") + b" /Length 40 >>"
    begin, end = values[b"/Length"].span()
    bits = int(length) if _NUMBER.fullmatch(length) else 0
    return dictionary[:begin] + b"%d" % (bits * 8 if bits < _LEAST_BITS else bits) + dictionary[end:]
