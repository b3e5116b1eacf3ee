"""Quantities as people read them."""

from __future__ import annotations

_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
_MIB = 2**20


def duration(seconds: float) -> str:
    """In the largest unit of which there are two or more."""
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def size(count: int) -> str:
    """In GiB, MiB or bytes."""
    if count >= 1024 * _MIB:
        return f"{count / 1024 / _MIB:.1f} GiB"
    return f"{count / _MIB:.0f} MiB" if count >= _MIB else f"{count} bytes"
