"""Times as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from scanner.cli.quarantine_filters import Filters, moment
from scanner.errors import ConfigError
from scanner.events import Source
from scanner.quarantine.catalogue import Query

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("24h", NOW - timedelta(days=1)),
        ("7d", NOW - timedelta(days=7)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2w", NOW - timedelta(days=14)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T08:30", datetime(2026, 11, 1, 8, 30, tzinfo=UTC)),
        ("2026-11-01T08:30+02:00", datetime(2026, 11, 1, 6, 30, tzinfo=UTC)),
    ],
)
def test_a_time_is_so_long_ago_or_a_date(text: str, at: datetime) -> None:
    assert moment(text, "--since", NOW) == at


def test_until_a_date_is_to_its_end_and_until_a_time_is_to_that_time() -> None:
    assert moment("2026-11-01", "--until", NOW, ends=True) == datetime(2026, 11, 2, tzinfo=UTC)
    assert moment("2026-11-01T08:30", "--until", NOW, ends=True).hour == 8


@pytest.mark.parametrize("text", ["", "yesterday", "24", "-24h", "999999w", "2026-13-01", "9999-12-31"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--until: .*neither"):
        moment(text, "--until", NOW, ends=True)


def test_filters_are_a_query() -> None:
    filters = Filters(since="24h", signature="Win.*", hash="ab", media="m", source=Source.UPLOAD)
    assert filters.query(NOW) == Query(NOW - timedelta(days=1), None, "Win.*", "ab", "m", "upload")
    assert Filters().query(NOW) == Query()
