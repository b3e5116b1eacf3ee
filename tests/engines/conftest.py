"""Fixtures of the engines' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import archive_fuzz
from tests.real_clamd import Clamd


@pytest.fixture(scope="session")
def strict_clamd() -> Iterator[Clamd]:
    """A clamd that finds EICAR only where a file begins with it: what it does not unpack, it misses."""
    with archive_fuzz.strict_clamd() as clamd:
        yield clamd
