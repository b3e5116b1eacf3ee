"""`media-scanner verdict`: what is remembered of media, and what analysts said of contents."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.table import Table

from scanner.cli.options import ConfigFile
from scanner.cli.quarantine_found import EXIT_NOTHING
from scanner.cli.quarantine_output import SHOWN_DIGITS, console, safe, tell_json, words
from scanner.cli.quarantine_store import Place
from scanner.cli.scan_output import note
from scanner.cli.statements import (
    DEFAULT_EXPIRY,
    AsJson,
    Expires,
    Key,
    Reason,
    Sha256,
    checked_sha256,
    end_of,
    say,
)
from scanner.config import Config
from scanner.epoch import Epoch
from scanner.errors import ConfigError
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Filed, Kind, Standing

app = typer.Typer(help="Decide about contents, and forget.", no_args_is_help=True)
_Listed = tuple[Filed, Standing]


@app.command()
def allow(
    sha256: Sha256,
    reason: Reason,
    key: Key,
    config: ConfigFile,
    expires: Expires = DEFAULT_EXPIRY,
    as_json: AsJson = False,
) -> None:
    """Hand a content over whatever the engines find, until it expires.

    It need not have been seen yet. What the engines could not judge is withheld all the same.
    """
    _say(Kind.ALLOW, sha256, reason, key, end_of(expires), config, as_json=as_json)


@app.command()
def deny(
    sha256: Sha256,
    reason: Reason,
    key: Key,
    config: ConfigFile,
    expires: Expires = DEFAULT_EXPIRY,
    as_json: AsJson = False,
) -> None:
    """Withhold a content whatever the engines find, until it expires.

    It need not have been seen yet. One signature is enough, with quarantine.four_eyes as well.
    """
    _say(Kind.DENY, sha256, reason, key, end_of(expires), config, as_json=as_json)


@app.command("list")
def list_(
    config: ConfigFile,
    sha256: Annotated[str | None, typer.Argument(metavar="[SHA256]", help="Of one content only.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="What is over or refused, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a line for each statement.")] = False,
) -> None:
    """List what analysts said: in force, or waiting for approval. The newest is the last.

    Exits with 1 where there is nothing.
    """
    chosen = checked_sha256(sha256) if sha256 is not None else None
    found = uvloop.run(_listed(Place(config=config)))
    listed = [
        (filed, standing)
        for filed, standing, said in found
        if (everything or said) and (chosen is None or _sha256(filed) == chosen)
    ]
    if as_json:
        for filed, standing in listed:
            tell_json(_document(filed, standing))
    elif listed:
        _show(listed)
    if not listed:
        note("Nothing found.")
        raise typer.Exit(EXIT_NOTHING)


@app.command()
def forget(
    config: ConfigFile,
    sha256: Annotated[
        str | None, typer.Argument(metavar="[SHA256]", help="Take back what analysts said of this content.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Have every file scanned anew.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="With SHA256: why.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="With SHA256: your private signing key.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take back what analysts said, or have all files scanned anew.

    With SHA256: what analysts said of it no longer holds, as soon as every replica has read this; it needs
    --reason and --key. With --all: for a change of clamd's that we cannot see. A service that runs with the
    same state_dir notices within seconds, another one when it is started again.
    """
    if everything is (sha256 is not None):
        raise typer.BadParameter("say either SHA256 or --all")
    if sha256 is None:
        Epoch(Config.load(config).state_dir).advance()
        if as_json:
            tell_json({"action": Kind.FORGET, "sha256": None})
        else:
            note("All verdicts are forgotten: files are scanned anew.")
        return
    if reason is None or key is None:
        raise typer.BadParameter("SHA256 needs --reason and --key")
    chosen = checked_sha256(sha256)
    ends = uvloop.run(_last_end(Place(config=config), chosen))
    _say(Kind.FORGET, chosen, reason, key, ends, config, as_json=as_json)


def _say(
    action: Kind, sha256: str, reason: str, key: Path, expires: int, config: Path | None, *, as_json: bool
) -> None:
    said = say(Place(config=config), key, action, checked_sha256(sha256), reason, expires)
    uvloop.run(said).tell(as_json=as_json)


async def _listed(place: Place) -> list[tuple[Filed, Standing, bool]]:
    """Each with its standing, and whether its author says it now, approved or not."""
    rules, now = place.rules(), time.time()
    async with place.opened() as store:
        filed = await Actions(store).filed()
    said = [standing is Standing.APPROVED for _, standing in rules.unapproved().judge_all(filed, now)]
    return [(*judged, each) for judged, each in zip(rules.judge_all(filed, now), said, strict=True)]


async def _last_end(place: Place, sha256: str) -> int:
    """When all that was said of it is over: so long it must stay taken back. Raises ConfigError."""
    ends = [
        filed.signed.statement.expires
        for filed, _, said in await _listed(place)
        if said and filed.signed is not None and filed.signed.statement.sha256 == sha256
    ]
    if not ends:
        raise ConfigError(f"{sha256}: nothing that was said of it is in force")
    return max(ends)


def _sha256(filed: Filed) -> str:
    return filed.signed.statement.sha256 if filed.signed is not None else ""


def _document(filed: Filed, standing: Standing) -> dict[str, Any]:
    document: dict[str, Any] = {"id": filed.id, "standing": standing}
    if filed.signed is None:
        return document
    said = filed.signed.statement
    return {
        **document,
        "action": said.action,
        "sha256": said.sha256,
        "author": said.author,
        "approvals": [approval.by for approval in filed.approvals],
        "reason": said.reason,
        "nonce": said.nonce,
        "issued": _rfc3339(said.issued),
        "expires": _rfc3339(said.expires),
    }


def _show(listed: list[_Listed]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for title, width in (("ID", 25), ("ACTION", 7), ("SHA-256", SHOWN_DIGITS), ("BY", 8), ("UNTIL", 10)):
        table.add_column(title, no_wrap=True, width=width)
    table.add_column("STANDING", no_wrap=True, max_width=13)
    for filed, standing in listed:
        shown = _document(filed, standing)
        cells = [str(shown.get(name, "-")) for name in ("id", "action", "sha256", "author", "expires")]
        cells[2], cells[4] = cells[2][:SHOWN_DIGITS], cells[4][:10]
        table.add_row(*map(safe, cells), safe(words(standing)))
    console().print(table)


def _rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
