"""The three answers about one file: plain, to be opened by these readers, or why nobody can.

*Plain* is a file in which clamd sees what everybody else sees: its verdict suffices. Any other container is
opened by us if it is *sound*, written the one way that all readers agree on, to the last byte: then one of
them is as good as another. A crooked ZIP is opened by two, whose answers must be the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from scanner.containers.inspection import Inspection, Part, Unsure
from scanner.containers.readers import Reader
from scanner.containers.recognise import by_ends, by_inside
from scanner.containers.zip import zip_end
from scanner.verdict import Reason


@dataclass(frozen=True, slots=True)
class Opening:
    """What to open a file with: nothing where it is plain, two readers where they must agree.

    `kind` is one of a fixed set of formats, for metrics; "none" for what is no container. `encryption` is why
    some of it, or all, can be read by nobody without a password.
    """

    kind: str
    readers: tuple[Reader, ...] = ()
    encryption: frozenset[Reason] = frozenset()


def inspect(part: Part, timeout: float, abandoned: Callable[[], bool] = lambda: False) -> Opening | Reason:
    """How these bytes are to be opened, or why they cannot be inspected.

    `timeout` is in seconds; `abandoned` says that nobody waits for the answer any more. Never raises for what
    is in the part.
    """
    inspection = Inspection(by_ends, by_inside, zip_end, time.monotonic() + timeout, abandoned)
    try:
        inspection.look_into(part)
        return Opening(inspection.kind, inspection.readers(), frozenset(inspection.encryption))
    except Unsure as unsure:
        return unsure.reason
