"""What both readers say of a container: its entries, one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

Piece = bytes | memoryview
# What a reader takes out of a member at a time.
STEP = 256 * 1024


class Entry(NamedTuple):
    """A member of whatever kind, and its content: no piece if it has none.

    A piece lasts until the next one, and all of them are taken before the next entry.
    """

    path: bytes
    pieces: Iterable[Piece]
