"""What the X-Matrix header of a federation request says; only the homeserver can tell whether it is true."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"X-Matrix[ \t]+", re.IGNORECASE)
# Quoted or, as older servers do, bare. Names begin where words do: else each of 8,000 letters would be tried.
_PARAMETER = re.compile(r'(?<!\w)(\w+)[ \t]*=[ \t]*(?:"([^"\\]*)"|([^",\s]*))')


def signing_server(authorization: str | None) -> str | None:
    """Who says that he signed the request."""
    return _parameter(authorization, "origin")


def addressed_server(authorization: str | None) -> str | None:
    """Whom the request is for: a homeserver accepts it only under its own name, but it may be absent."""
    return _parameter(authorization, "destination")


def _parameter(authorization: str | None, name: str) -> str | None:
    scheme = _SCHEME.match(authorization or "")
    if scheme is None:
        return None
    found = _PARAMETER.findall(scheme.string, scheme.end())
    values = [quoted or bare for key, quoted, bare in found if key.lower() == name]
    return values[0] if len(values) == 1 and values[0] else None
