"""A PDF that opens without asking, as clamd wants to have it.

Clamd decrypts what has only an owner's password, but not where the encryption dictionary stands in the
trailer itself, or gives its key's length in bytes (tried, 1.4.6): it then says that it cannot look inside. So
the same document is made with the same dictionary as an object of its own (ISO 32000-1, 7.6). Whether it
opens without a password is still for clamd to say.
"""

from __future__ import annotations

import re

_OBJECT = 8_388_607  # the highest number that readers must take (annex C)
_MAX_DICTIONARY = 16 * 1024
_ENCRYPT = re.compile(rb"/Encrypt(?![A-Za-z])\s*(?:(\d+)\s+(\d+)\s+R|(?=<<))")
_ESCAPED = re.compile(
    rb"/(?=[^\s/<>\[\]()]*#)(?:E|#45)(?:n|#6[eE])(?:c|#63)(?:r|#72)(?:y|#79)(?:p|#70)(?:t|#74)"
)
_ID = re.compile(rb"/ID\s*\[\s*(<[0-9A-Fa-f\s]*>|\((?:[^()\\]|\\.)*\))", re.DOTALL)
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
    found = list(_ENCRYPT.finditer(content))
    identifiers = {match[1] for match in _ID.finditer(content)} or {b"<>"}
    if len({match[0] for match in found}) != 1 or len(identifiers) != 1 or _ESCAPED.search(content):
        return False
    dictionary = _encryption(content, found)
    if dictionary is None:
        return False
    for match in re.finditer(rb"/Encrypt", content):  # of its metadata, too: clamd minds no more of the name
        content[match.start() : match.end()] = _HIDDEN
    content += b"\n%d 0 obj\n%b\nendobj\n" % (_OBJECT, dictionary)
    identifier = identifiers.pop()
    content += b"trailer\n<< /Encrypt %d 0 R /ID [%b%b] >>\n%%%%EOF\n" % (_OBJECT, identifier, identifier)
    return True


def _encryption(content: bytearray, found: list[re.Match[bytes]]) -> bytes | None:
    """The dictionary in the trailer itself, or in the object that trailers refer to."""
    reference = found[0]
    if reference[1] is not None:
        pattern = rb"(?<![0-9])%b\s+%b\s+obj\s*(?=<<)" % (reference[1], reference[2])
        found = list(re.finditer(pattern, content))
    if len(found) != 1:
        return None
    return _dictionary(bytes(content[found[0].end() : found[0].end() + _MAX_DICTIONARY]))


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
