"""What is left is left for all; nothing is given twice."""

from __future__ import annotations

import pytest

from scanner.unpacking.allowance import RATIO_COUNTS_FROM, Allowance, Unreadable
from scanner.verdict import Reason


def test_it_can_be_spent_to_the_last_byte_and_member() -> None:
    allowance = Allowance(3, 100, 200, 0.0)
    allowance.spend(2, 40)
    allowance.spend(1, 60)
    assert (allowance.members, allowance.size) == (0, 0)


@pytest.mark.parametrize(("members", "size"), [(4, 0), (0, 101), (4, 101)])
def test_no_more_can_be_spent_than_is_left(members: int, size: int) -> None:
    with pytest.raises(Unreadable) as caught:
        Allowance(3, 100, 200, 0.0).spend(members, size)
    assert caught.value.reason is Reason.LIMIT


def test_a_small_container_may_hold_fifty_mib_and_a_large_one_the_ratio() -> None:
    allowance = Allowance(1, 1, 200, 0.0)
    assert allowance.most_of(1) == allowance.most_of(RATIO_COUNTS_FROM // 200) == RATIO_COUNTS_FROM
    assert allowance.most_of(RATIO_COUNTS_FROM) == 200 * RATIO_COUNTS_FROM
