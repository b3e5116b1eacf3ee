"""`media-scanner quarantine release|approve`: what an analyst decides, and what another agrees to."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from scanner.analysts import signing_analyst
from scanner.cli.options import ConfigFile
from scanner.cli.quarantine_found import EXIT_NOTHING, Name, read_samples_named
from scanner.cli.quarantine_output import tell, tell_json
from scanner.cli.quarantine_store import Place
from scanner.cli.scan_output import note
from scanner.cli.statements import DEFAULT_EXPIRY, REFUSED, AsJson, Expires, Key, Reason, Said, end_of, say
from scanner.cli.terminal import one_line
from scanner.errors import ConfigError
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Analyst, Approval, Filed, Kind, Role, Rules, Standing, Statement
from scanner.quarantine.chain import Chain

Id = Annotated[str, typer.Argument(metavar="ID", help="Of the statement: `verdict list` shows it.")]


def release(
    name: Name,
    reason: Reason,
    key: Key,
    config: ConfigFile,
    expires: Expires = DEFAULT_EXPIRY,
    as_json: AsJson = False,
) -> None:
    """Hand a quarantined content over again, until it expires.

    For a false positive. Every replica has it in force within 10 s; what the engines could not judge is
    withheld all the same. With quarantine.four_eyes another person approves first. `verdict forget` ends it.

    Exits with 1 where there is no such sample; `verdict allow` is for a content that was never seen.
    """
    uvloop.run(_release(Place(config=config), name, key, reason, end_of(expires))).tell(as_json=as_json)


def approve(
    name: Id,
    key: Key,
    config: ConfigFile,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Agree to what a colleague said, so that it counts.

    With quarantine.four_eyes it does not without this. Shows what it is, and asks. Nobody can approve what
    he said himself.
    """
    uvloop.run(_approve(Place(config=config), name, key, yes=yes))
    if as_json:
        tell_json({"id": name, "approved": True})
    else:
        tell(f"{name}: approved")


async def _release(place: Place, name: str, key: Path, reason: str, expires: int) -> Said:
    async with place.opened() as store:
        sha256 = (await read_samples_named(store, name))[0].sha256
    return await say(place, key, Kind.RELEASE, sha256, reason, expires)


async def _approve(place: Place, name: str, key: Path, *, yes: bool) -> None:
    rules = place.rules()
    signer, approver = signing_analyst(key, rules)
    async with place.opened() as store:
        actions = Actions(store)
        statement = await _waiting(actions, name, rules)
        _check(statement, approver, rules)
        _confirm(statement, yes=yes)
        await Chain(store, signer, approver.name).append("approve", f"{statement.sha256} {name}")
        if not await actions.approve(name, Approval.of(statement, signer, approver.name)):
            raise ConfigError(f"{name}: there is an approval in your name already")


async def _waiting(actions: Actions, name: str, rules: Rules) -> Statement:
    """A statement that is all right but for its approval."""
    judged = rules.unapproved().judge_all(await actions.filed(), time.time())
    absent = Filed(name, None), Standing.MALFORMED
    filed, standing = next((each for each in judged if each[0].id == name), absent)
    if standing is not Standing.APPROVED or filed.signed is None:
        raise ConfigError(f"{name}: {REFUSED[standing]}")
    return filed.signed.statement


def _check(statement: Statement, approver: Analyst, rules: Rules) -> None:
    if not (rules.four_eyes and statement.action.needs_approval):
        raise ConfigError("it needs no approval")
    if statement.author == approver.name:
        raise ConfigError("you said this yourself: another person must approve it")
    if approver.role is not Role.APPROVER:
        raise ConfigError(f"--key: {approver.name} is no approver in quarantine.analysts")


def _confirm(statement: Statement, *, yes: bool) -> None:
    ends = datetime.fromtimestamp(statement.expires, UTC)
    note(one_line(f"{statement.author}: {statement.action} {statement.sha256}"))
    note(one_line(f"until {ends:%Y-%m-%d %H:%M} UTC, because: {statement.reason}"))
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nobody is there to be asked: say --yes")
    if not typer.confirm("Approve it?", err=True):
        note("Nothing is approved.")
        raise typer.Exit(EXIT_NOTHING)
