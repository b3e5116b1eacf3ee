from __future__ import annotations

import pytest

from scanner.doctor.words import duration, size


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7199, "120 minutes"),
        (7200, "2 hours"),
        (86400, "24 hours"),
        (7 * 86400, "7 days"),
    ],
)
def test_durations_are_in_the_largest_unit_of_which_there_are_two(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(10, "10 bytes"), (2**20, "1 MiB"), (20 * 2**20, "20 MiB"), (3 * 2**29, "1.5 GiB")],
)
def test_sizes_are_in_binary_units(count: int, said: str) -> None:
    assert size(count) == said
