"""`media-scanner quarantine verify`: whether everything is there, whole, and what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
import uvloop

from scanner.cli.option_groups import grouped
from scanner.cli.quarantine_deeds import Deeds, Who, opened_samples
from scanner.cli.quarantine_export import KeyFiles, private_keys
from scanner.cli.quarantine_found import content_named
from scanner.cli.quarantine_output import progress, tell, tell_json
from scanner.cli.quarantine_store import Place
from scanner.cli.statements import REFUSED
from scanner.quarantine.catalogue import Content
from scanner.quarantine.markers import Marker
from scanner.quarantine.reading import Catalogue, read_catalogue
from scanner.quarantine.verification import Problem, examine, unaccounted

_EXIT_PROBLEM = 1


@grouped
def verify(
    who: Who,
    place: Place,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SHA256]...", help="These contents only.")
    ] = None,
    key_files: KeyFiles = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a line for each problem, and one that counts.")
    ] = False,
) -> None:
    """Verify that samples are whole, and none is missing.

    With keys each is opened and compared with its SHA-256; without, size, form and recipients are compared.
    Names records without a sample, samples without a record, and what is nothing that we know. What is opened
    stands in the audit chain first, as with `export`.

    Exits with 0 if all is well, with 1 if anything is not.
    """
    counts: Counter[str] = Counter()
    uvloop.run(_verify(who, place, names or [], private_keys(key_files), counts, as_json=as_json))
    if as_json:
        tell_json({"summary": {name: counts[name] for name in ("opened", "unopened", "problems")}})
    else:
        samples = f"samples opened: {counts['opened']}, seen from outside: {counts['unopened']}"
        tell(f"{samples}; problems: {counts['problems']}")
    if counts["problems"]:
        raise typer.Exit(_EXIT_PROBLEM)


async def _verify(
    who: Who, place: Place, names: list[str], keys: list[bytes], counts: Counter[str], *, as_json: bool
) -> None:
    def report(problem: Problem) -> None:
        counts["problems"] += 1
        tell_json(asdict(problem)) if as_json else tell(f"{problem.key}: {problem.problem}")

    async with place.opened() as store:
        rules = place.rules()
        deeds = Deeds(store, who, rules) if keys else None
        with progress("Reading records") as seen:
            catalogue = await read_catalogue(store, rules, progress=seen)
        contents = _chosen(catalogue, names)
        for key in () if names else catalogue.strange:
            report(Problem(key, "is nothing that we know"))
        for marker in _ignored(catalogue, contents, all_of_them=not names):
            report(Problem(marker.key, f"does not count: it {REFUSED[marker.standing]}"))
        for problem in unaccounted(contents):
            report(problem)
        samples = [sample for content in contents for sample in content.samples]
        if deeds is not None and samples:
            await deeds.audit("verify", opened_samples(sorted({sample.sha256 for sample in samples})))
        with progress("Samples") as seen:
            number = 0
            async for found in examine(store, samples, keys):
                number += 1
                seen(number, len(samples))
                if isinstance(found, Problem):
                    report(found)
                else:
                    counts["opened" if found.is_open else "unopened"] += 1


def _ignored(catalogue: Catalogue, contents: Sequence[Content], *, all_of_them: bool) -> Iterable[Marker]:
    if all_of_them:
        return catalogue.ignored
    return [marker for content in contents for marker in content.markers if not marker.counts]


def _chosen(catalogue: Catalogue, names: list[str]) -> list[Content]:
    if not names:
        return list(catalogue.contents)
    return [content_named(catalogue.contents, name) for name in names]
