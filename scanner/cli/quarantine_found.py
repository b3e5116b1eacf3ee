"""Which content or sample is meant by what somebody typed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, TypeVar

import typer

from scanner.cli.quarantine_output import progress
from scanner.cli.scan_output import note
from scanner.errors import ConfigError
from scanner.ports import Store
from scanner.quarantine.catalogue import Content, SealedSample
from scanner.quarantine.reading import read_samples

EXIT_NOTHING = 1

_Found = TypeVar("_Found")
_BEGINNING = re.compile(r"[0-9a-f]{8,64}")

Name = Annotated[
    str, typer.Argument(metavar="SHA256", help="Of the content, or 8 digits or more of its beginning.")
]


def content_named(contents: Iterable[Content], name: str) -> Content:
    """By the beginning of its SHA-256, or of the name of one of its records. Ends the command otherwise."""
    start = _checked(name)
    found = [
        content
        for content in contents
        if content.sha256.startswith(start) or any(entry.id.startswith(start) for entry in content.entries)
    ]
    return _only(found, name)


async def read_samples_named(store: Store, name: str) -> Sequence[SealedSample]:
    """Every sealed copy of one content, by the beginning of its SHA-256. Ends the command otherwise."""
    start = _checked(name)
    with progress("Listing samples") as seen:
        samples, _ = await read_samples(store, seen)
    found = [sample for sample in samples if sample.sha256.startswith(start)]
    sha256 = _only(sorted({sample.sha256 for sample in found}), name)
    return [sample for sample in found if sample.sha256 == sha256]


def _checked(name: str) -> str:
    if not _BEGINNING.fullmatch(name.lower()):
        raise ConfigError(f"{name}: 8 hexadecimal digits or more name a content")
    return name.lower()


def _only(found: Sequence[_Found], name: str) -> _Found:
    if len(found) > 1:
        raise ConfigError(f"{name}: {len(found)} contents have a name that begins so")
    if not found:
        note(f"Nothing found: {name}")
        raise typer.Exit(EXIT_NOTHING)
    return found[0]
