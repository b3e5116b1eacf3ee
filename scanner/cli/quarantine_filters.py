"""Which detections a command is about: by time, signature, hash, media and source."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from scanner.errors import ConfigError
from scanner.events import Source
from scanner.quarantine.catalogue import Query

_AGO = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Filters:
    """Options of commands that show what is in a quarantine."""

    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From: 24h, 7d, or a date, in UTC.")
    ] = None
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="To, likewise; a date with all of its day.")
    ] = None
    signature: Annotated[
        str | None, typer.Option("--signature", metavar="GLOB", help="Like 'Win.*'; in any case.")
    ] = None
    hash: Annotated[
        str | None, typer.Option("--hash", metavar="HEX", help="SHA-256, SHA-1 or MD5, or its beginning.")
    ] = None
    media: Annotated[
        str | None, typer.Option("--media", metavar="GLOB", help="Like 'mxc://example.org/*'.")
    ] = None
    source: Annotated[Source | None, typer.Option("--source", help="What was asked for.")] = None

    def query(self, now: datetime) -> Query:
        """`now` is in UTC. Raises ConfigError on a time that is none."""
        return Query(
            since=moment(self.since, "--since", now) if self.since else None,
            until=moment(self.until, "--until", now, ends=True) if self.until else None,
            signature=self.signature,
            hash=self.hash,
            media=self.media,
            source=self.source,
        )


def moment(text: str, option: str, now: datetime, *, ends: bool = False) -> datetime:
    """So long ago, or a date or time, in UTC unless it says otherwise; of a date the end where it `ends`."""
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago["unit"]]: int(ago["number"])})
        at = datetime.fromisoformat(text)
        whole_day = timedelta(days=1 if ends and len(text) == len("2026-01-01") else 0)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)) + whole_day
    except (ValueError, OverflowError):
        raise ConfigError(f"{option}: {text}: neither like 24h or 7d nor like 2026-01-31") from None
