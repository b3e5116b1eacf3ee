"""What the segments of a path name; each is decoded once, here."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote

from scanner.errors import InvalidMedia
from scanner.media import MediaRef


def ref_in(segments: Mapping[str, str]) -> MediaRef:
    """The media that `{server}` and `{media}` name. Raises InvalidMedia."""
    try:
        return MediaRef(*(unquote(segments[name], errors="strict") for name in ("server", "media")))
    except UnicodeDecodeError:
        raise InvalidMedia("not a valid media ID") from None


def filename_in(segments: Mapping[str, str]) -> str | None:
    """`{filename}`, percent-encoded anew; a dot segment would make it another path. Raises InvalidMedia."""
    segment = segments.get("filename")
    if not segment:
        return None
    filename = unquote(segment)
    if filename in (".", ".."):
        raise InvalidMedia("not a valid file name")
    return quote(filename, safe="")
