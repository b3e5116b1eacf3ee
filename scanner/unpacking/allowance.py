"""What the containers of one file may cost, all their levels together, and how reading one ends early."""

from __future__ import annotations

from dataclasses import dataclass

from scanner.verdict import Reason

# No innocent container above that is packed tighter than 1:200 (facts/archives.md).
RATIO_COUNTS_FROM = 50 * 1024 * 1024
# What the members of one file may take in memory at a time; more only for one file at a time.
FREELY = 32 * 1024 * 1024


class Unreadable(Exception):
    """A container cannot be read to its end; `reason` is the report's."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Allowance:
    """What is left for one file: share one among all its containers, at whatever depth.

    `members` counts directories, links and empty files, too. `size` is bytes unpacked. `ratio` is how many
    times its own size a container may hold, above 50 MiB. `deadline` is in the event loop's time, and is put
    off while a member is judged: what clamd takes does not count, so it is to be read anew for each member.
    """

    members: int
    size: int
    ratio: int
    deadline: float

    def spend(self, members: int, size: int) -> None:
        """Take so much away; Unreadable (limit) where there is not as much."""
        self.members -= members
        self.size -= size
        if self.members < 0 or self.size < 0:
            raise Unreadable(Reason.LIMIT)

    def most_of(self, packed: int) -> int:
        """How many bytes may come out of a container of `packed` bytes."""
        return max(RATIO_COUNTS_FROM, self.ratio * packed)
