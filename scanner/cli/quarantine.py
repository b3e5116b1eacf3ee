"""`media-scanner quarantine`: an analyst's work, from any workstation that may read the store.

Exits with 0 if it was done, with 1 if nothing was found or something is not as it should be, with 2 if it
could not be done.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
import uvloop

from scanner.cli.option_groups import grouped
from scanner.cli.quarantine_actions import approve, release
from scanner.cli.quarantine_export import export
from scanner.cli.quarantine_filters import Filters
from scanner.cli.quarantine_found import EXIT_NOTHING
from scanner.cli.quarantine_output import (
    as_csv,
    document,
    note_ignored,
    progress,
    show_list,
    show_statistics,
    statistics,
    tell_json,
    tell_text,
)
from scanner.cli.quarantine_rescan import rescan
from scanner.cli.quarantine_show import show
from scanner.cli.quarantine_store import Place
from scanner.cli.quarantine_upkeep import delete, hold, purge
from scanner.cli.quarantine_verify import verify
from scanner.cli.scan_output import note
from scanner.quarantine.catalogue import Query
from scanner.quarantine.reading import Catalogue, read_catalogue

app = typer.Typer(help="Work with what was detected and kept.", no_args_is_help=True)


@app.command("list")
@grouped
def list_(
    filters: Filters,
    place: Place,
    as_table: Annotated[bool, typer.Option("--csv", help="Print CSV that is safe in spreadsheets.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a line for each content.")] = False,
) -> None:
    """List contents, the last seen first.

    SEEN counts the detections that the filters leave. STATE is what became of the sample: kept, held,
    deleted, hash only (of encrypted rooms, as configured), not kept (the disk or the outbox was full),
    missing (a record names it, and it is not there), unrecorded (it is there, and no record names it).

    Exits with 1 where nothing is found.
    """
    contents = uvloop.run(_read(place, filters.query(datetime.now(UTC)))).contents
    if as_table:
        tell_text(as_csv(contents))
    elif as_json:
        for content in contents:
            tell_json(document(content))
    elif contents:
        show_list(contents)
    if not contents:
        note("Nothing found.")
        raise typer.Exit(EXIT_NOTHING)


@app.command()
@grouped
def stats(
    filters: Filters,
    place: Place,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Count what there is: by state, source, signature and day.

    Exits with 1 where nothing is found.
    """
    contents = uvloop.run(_read(place, filters.query(datetime.now(UTC)))).contents
    counted = statistics(contents)
    if as_json:
        tell_json(counted)
    else:
        show_statistics(counted)
    if not contents:
        raise typer.Exit(EXIT_NOTHING)


for command in (show, verify, export, rescan, release, approve, hold, delete, purge):
    app.command()(command)


async def _read(place: Place, query: Query) -> Catalogue:
    async with place.opened() as store:
        with progress("Reading records") as seen:
            catalogue = await read_catalogue(store, place.rules(), query, seen)
    note_ignored(catalogue.ignored)
    if catalogue.strange:
        note(
            f"{len(catalogue.strange)} names in the store are nothing that we know: see `quarantine verify`."
        )
    return catalogue
