"""`media-scanner quarantine rescan`: what the clamd of this machine says today of what was detected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from scanner.cli.option_groups import grouped
from scanner.cli.options import system_file
from scanner.cli.quarantine_deeds import Deeds, Who, opened_samples
from scanner.cli.quarantine_export import KeyFiles, openable, private_keys
from scanner.cli.quarantine_found import EXIT_NOTHING, content_named
from scanner.cli.quarantine_output import progress, show_rescans, tell_json
from scanner.cli.quarantine_store import Place
from scanner.cli.scan import OCCASION, PATIENCE, usable_judge
from scanner.cli.scan_output import Finding, Result
from scanner.config import Config
from scanner.errors import ConfigError, EnvelopeError, StoreError, Unavailable
from scanner.judge import Judge
from scanner.media import BodyWriter, Sample
from scanner.ports import Store
from scanner.quarantine.catalogue import Content
from scanner.quarantine.reading import read_catalogue
from scanner.quarantine.samples import opened

_CALLER = "quarantine"
_EXIT_DIFFERS, _EXIT_NOT_SCANNED = 1, 2


@dataclass(frozen=True, slots=True)
class Rescan:
    """What was said of a content when it was last detected, and what is said today."""

    content: Content
    now: Finding

    @property
    def differs(self) -> bool:
        """Whether it is no longer what it was."""
        return self.now.result is not Result.NOT_SCANNED and self.now.result != self.then

    @property
    def then(self) -> str:
        """The old verdict; of a sample without a record nobody knows."""
        return self.content.last.verdict if self.content.last else "-"


@grouped
def rescan(
    who: Who,
    place: Place,
    names: Annotated[list[str] | None, typer.Argument(metavar="[SHA256]...", help="What to scan.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Scan every sample.")] = False,
    key_files: KeyFiles = None,
    clamd: Annotated[
        Path | None,
        typer.Option(
            "--clamd-config", metavar="FILE", help="Configuration that names the clamd, if not --config."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a line for each content.")] = False,
) -> None:
    """Scan samples again, and show today's verdict beside the old one.

    It asks the clamd that the configuration names, as `scan` does. Samples are opened in memory and never
    written to a disk. What is opened stands in the audit chain first, as with `export`.

    Exits with 0 if all are what they were, with 1 if any is not, with 2 if any could not be scanned.
    """
    if bool(names) is everything:
        raise ConfigError("rescan: name samples, or say --all")
    keys = private_keys(key_files)
    if not keys:
        raise ConfigError("--key-file: needed, it is what opens samples")
    config = Config.load(clamd or place.config or system_file())
    done = uvloop.run(_rescan(who, place, names or [], keys, config))
    if as_json:
        for each in done:
            tell_json(_document(each))
    else:
        show_rescans((each.content, each.then, each.now, each.differs) for each in done)
    raise typer.Exit(_exit_code(done))


def _exit_code(done: Sequence[Rescan]) -> int:
    if any(each.now.result is Result.NOT_SCANNED for each in done):
        return _EXIT_NOT_SCANNED
    if not done:
        return EXIT_NOTHING
    return _EXIT_DIFFERS if any(each.differs for each in done) else 0


def _document(each: Rescan) -> dict[str, object]:
    now = each.now
    then = {"verdict": each.then, "signatures": list(each.content.signatures)}
    found = [asdict(detection) for detection in now.found]
    today = {
        "verdict": now.result,
        "signatures": list(now.signatures),
        "reason": now.reason,
        "found": found,
    }
    return {"sha256": each.content.sha256, "differs": each.differs, "then": then, "now": today}


async def _rescan(
    who: Who, place: Place, names: Sequence[str], keys: Sequence[bytes], config: Config
) -> list[Rescan]:
    async with place.opened() as store:
        rules = place.rules()
        deeds = Deeds(store, who, rules)
        with progress("Reading records") as seen:
            contents = (await read_catalogue(store, rules, progress=seen)).contents
        chosen = [content_named(contents, name) for name in names] or [
            each for each in contents if each.samples
        ]
        if not chosen:
            return []
        async with usable_judge(config) as judge:
            await deeds.audit("rescan", opened_samples([each.sha256 for each in chosen]))
            with progress("Scanning") as seen:
                done = []
                async for each in _rescans(store, chosen, keys, judge):
                    done.append(each)
                    seen(len(done), len(chosen))
                return done


async def _rescans(
    store: Store, contents: Sequence[Content], keys: Sequence[bytes], judge: Judge
) -> AsyncIterator[Rescan]:
    for content in contents:
        try:
            yield Rescan(content, await _finding(store, content, keys, judge))
        except (EnvelopeError, StoreError, Unavailable) as problem:
            yield Rescan(content, Finding.not_scanned(content.sha256, problem.info))


async def _finding(store: Store, content: Content, keys: Sequence[bytes], judge: Judge) -> Finding:
    if not content.samples:
        raise StoreError("there is no sample of it")
    sample, header, envelope = await openable(store, content.samples, keys)
    plaintext = opened(header, envelope, keys, sample.sha256)
    writer = BodyWriter(await judge.budget.share_for(len(plaintext)).reserve(len(plaintext), _CALLER))
    try:
        writer.write(plaintext)
        body = writer.seal()
    except BaseException:
        writer.discard()
        raise
    try:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        verdict = await judge.pipeline.inspect(OCCASION, Sample(body), deadline)
        return Finding.of(content.sha256, verdict)
    finally:
        body.release()
