"""Media as homeservers hand them to each other, well-formed and not."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import Message
from email.parser import BytesParser

from tests.fake_homeserver import Script, head, saying

BOUNDARY = "gc0pBoundary"
OBJECT = b"Content-Type: application/json\r\n\r\n{}"


def part(content: bytes, content_type: str | None = "image/png", **headers: str) -> bytes:
    """A media part; underscores in the names of headers stand for hyphens."""
    named = [] if content_type is None else [("Content-Type", content_type)]
    named += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return "".join(f"{name}: {value}\r\n" for name, value in named).encode() + b"\r\n" + content


def form(*parts: bytes, end: bytes = f"\r\n--{BOUNDARY}--\r\n".encode()) -> bytes:
    """A multipart body of them, as Synapse writes it."""
    return b"".join(b"\r\n--%b\r\n%b" % (BOUNDARY.encode(), each) for each in parts) + end


def federating(
    *parts: bytes, content_type: str = f"multipart/mixed; boundary={BOUNDARY}", body: bytes | None = None
) -> Script:
    """A homeserver that hands out that form, or that body."""
    whole = form(*parts) if body is None else body
    return saying(federated_head(len(whole), content_type), whole)


def federated_head(
    length: int | None,
    content_type: str = f"multipart/mixed; boundary={BOUNDARY}",
    further: Sequence[tuple[str, str]] = (),
) -> bytes:
    """Without a length the body ends with the connection."""
    framing = ("Connection", "close") if length is None else ("Content-Length", str(length))
    return head(headers=[("Content-Type", content_type), framing, *further])


def parts_of(content_type: str, body: bytes) -> list[Message]:
    """The parts of a multipart body, as Python's own parser sees them."""
    whole = BytesParser().parsebytes(b"Content-Type: %b\r\n\r\n%b" % (content_type.encode(), body))
    assert not whole.defects
    assert whole.is_multipart()
    return [each for each in whole.get_payload() if isinstance(each, Message)]


def content_of(part: Message) -> bytes:
    """The bytes of a part."""
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content
