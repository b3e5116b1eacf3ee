"""`media-scanner quarantine hold|delete|purge`: what stays, and what goes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
import uvloop

from scanner.cli.option_groups import grouped
from scanner.cli.quarantine_deeds import Deeds, Who
from scanner.cli.quarantine_filters import moment
from scanner.cli.quarantine_found import EXIT_NOTHING, Name, read_samples_named
from scanner.cli.quarantine_output import note_ignored, progress, sized, tell, tell_json
from scanner.cli.quarantine_store import Place
from scanner.cli.scan_output import note
from scanner.errors import ConfigError
from scanner.ports import Store
from scanner.quarantine.actions import Kind, Rules
from scanner.quarantine.layout import deliveries_of, markers_prefix
from scanner.quarantine.markers import Marker, is_held
from scanner.quarantine.reading import Catalogue, Progress, markers_of, read_catalogue
from scanner.quarantine.upkeep import Plan, purge_plan

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")]


@grouped
def hold(
    name: Name,
    reason: Reason,
    who: Who,
    place: Place,
    end: Annotated[bool, typer.Option("--end", help="It need not be kept any longer.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep a sample and its records whatever their age, until --end.

    Neither `delete` nor `purge` touches what is held. Where the bucket has Object Lock the sample gets a
    legal hold there as well, so that nobody can delete it: that needs s3:PutObjectLegalHold.
    With quarantine.four_eyes --end asks for a colleague's approval first, and ends it when there is one.

    Exits with 1 where there is no such sample.
    """
    sha256, locks, waits = uvloop.run(_hold(name, reason, who, place, end=end))
    held = not end or waits is not None
    if as_json:
        legal_hold = None if waits else locks and held
        tell_json({"sha256": sha256, "held": held, "legal_hold": legal_hold, "waits_for_approval": waits})
    elif waits is not None:
        tell(f"{sha256}: not ended yet; {waits} waits for a colleague's approval, then say this again")
    else:
        tell(f"{sha256}: {'held' if held else 'held no longer'}")
    if not locks and not end:
        note("The store has no Object Lock: whoever may delete there still can.")


@grouped
def delete(
    name: Name, reason: Reason, who: Who, place: Place, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Delete a sample, all sealed copies of it; its records stay.

    Needs credentials that may delete, which neither the scanner nor an analyst should have. What is held
    is not deleted. In a bucket with versions a deletion hides the sample; its lifecycle rule removes it.
    With quarantine.four_eyes this asks for a colleague's approval first, and deletes when there is one.

    Exits with 1 where there is no such sample.
    """
    sha256, waits = uvloop.run(_delete(name, reason, who, place, yes=yes))
    if as_json:
        tell_json({"sha256": sha256, "deleted": waits is None, "waits_for_approval": waits})
    elif waits is None:
        tell(f"{sha256}: deleted")
    else:
        tell(f"{sha256}: not deleted yet; {waits} waits for a colleague's approval, then say this again")


@grouped
def purge(
    who: Who,
    place: Place,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="TIME", help="Like 90d, or a date, in UTC; if not quarantine.retention."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete old records, and samples not detected since.

    Never what is held. With quarantine.four_eyes nothing younger than quarantine.retention: that takes two
    people and `delete`. With the last record of a content goes what is known of who was given it. Needs
    credentials that may delete. A timer can do it, with --yes.

    Exits with 1 where nothing is that old.
    """
    now = datetime.now(UTC)
    before = moment(older_than, "--older-than", now) if older_than else now - place.retention()
    if place.rules().four_eyes and before > now - place.retention():
        raise ConfigError("--older-than: with quarantine.four_eyes no less than quarantine.retention")
    plan = uvloop.run(_purge(before, who, place, dry_run=dry_run, yes=yes))
    if as_json:
        counts = {"samples": len(plan.samples), "records": len(plan.records), "bytes": plan.size}
        tell_json({"before": before.isoformat(), "dry_run": dry_run, **counts, "held": plan.held})
    else:
        tell(f"{'would be purged' if dry_run else 'purged'}: {_counted(plan)}")
    if not plan.samples and not plan.records:
        raise typer.Exit(EXIT_NOTHING)


async def _hold(name: str, reason: str, who: Who, place: Place, *, end: bool) -> tuple[str, bool, str | None]:
    """The content, whether the store itself can keep it, and what waits for approval before it is let go."""
    async with place.opened() as store:
        copies = await read_samples_named(store, name)
        sha256 = copies[0].sha256
        deeds = Deeds(store, who, place.rules())
        if not end:
            await deeds.mark(sha256, Kind.HOLD, reason)
        elif waits := await deeds.end_hold(sha256, reason):
            return sha256, False, waits
        locks = [await store.hold(copy.key, not end) for copy in copies]
        return sha256, all(locks), None


async def _delete(name: str, reason: str, who: Who, place: Place, *, yes: bool) -> tuple[str, str | None]:
    """The content, and what waits for approval before it can be deleted."""
    async with place.opened() as store:
        copies = await read_samples_named(store, name)
        sha256 = copies[0].sha256
        rules = place.rules()
        note_ignored(await _ignored(store, rules, sha256))
        _confirm(f"Delete {sha256}?", yes=yes)
        await _ignored(store, rules, sha256)  # it may have been held while somebody thought about that
        waits = await Deeds(store, who, rules).mark_deleted(copies, reason)
        if waits is None:
            for copy in copies:
                await store.delete(copy.key)
        return sha256, waits


async def _ignored(store: Store, rules: Rules, sha256: str) -> list[Marker]:
    """Markers of it that do not count. Raises ConfigError where it is held."""
    markers = await markers_of(store, rules, sha256)
    if is_held(markers):
        raise ConfigError(f"{sha256}: is held; nothing is deleted")
    return [each for each in markers if not each.counts]


async def _purge(before: datetime, who: Who, place: Place, *, dry_run: bool, yes: bool) -> Plan:
    async with place.opened() as store:
        catalogue = await _read(store, place.rules())
        note_ignored(catalogue.ignored)
        plan = purge_plan(catalogue.contents, before)
        if dry_run or not (plan.samples or plan.records):
            return plan
        _confirm(f"Purge what is from before {before:%Y-%m-%d %H:%M} UTC ({_counted(plan)})?", yes=yes)
        if not yes:  # what was seen or held while somebody thought about it stays
            plan = purge_plan((await _read(store, place.rules())).contents, before)
        await Deeds(store, who, place.rules()).audit(
            "purge", f"before {before.isoformat()}: {_counted(plan)}"
        )
        with progress("Looking for what belongs to them") as seen:
            beside = await _beside(store, plan.gone, seen)
        # The records last: whatever is broken off can be done again.
        await _remove(store, [*beside, *plan.samples, *plan.records])
        return plan


async def _read(store: Store, rules: Rules) -> Catalogue:
    with progress("Reading records") as seen:
        return await read_catalogue(store, rules, progress=seen)


async def _beside(store: Store, gone: Sequence[str], seen: Progress) -> list[str]:
    """Names of what is kept of contents beside samples and records."""
    found: list[str] = []
    for number, sha256 in enumerate(gone, 1):
        for prefix in (deliveries_of(sha256), markers_prefix(sha256)):
            found += [stored.key async for stored in store.listing(prefix)]
        seen(number, len(gone))
    return found


async def _remove(store: Store, keys: Sequence[str]) -> None:
    with progress("Deleting") as seen:
        for number, key in enumerate(keys, 1):
            await store.delete(key)
            seen(number, len(keys))


def _counted(plan: Plan) -> str:
    kept = f"; contents that are held: {plan.held}" if plan.held else ""
    return f"samples: {len(plan.samples)} ({sized(plan.size)}), records: {len(plan.records)}{kept}"


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nobody is there to be asked: say --yes")
    if not typer.confirm(question, err=True):
        note("Nothing is deleted.")
        raise typer.Exit(EXIT_NOTHING)
