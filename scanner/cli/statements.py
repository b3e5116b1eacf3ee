"""What an analyst says on the command line: a signed statement in the store, and an audit record of it.

The audit record comes first: whoever is stopped half-way has said what he was about to do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from scanner.analysts import signing_analyst
from scanner.cli.quarantine_filters import moment
from scanner.cli.quarantine_output import tell, tell_json
from scanner.cli.quarantine_store import Place
from scanner.cli.scan_output import note
from scanner.errors import ConfigError
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Kind, Rules, Signed, Standing, Statement, new_nonce
from scanner.quarantine.chain import Chain

Key = Annotated[Path, typer.Option("--key", metavar="FILE", help="Your private signing key.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; everybody who audits reads it.")]
Expires = Annotated[
    str, typer.Option("--expires", metavar="TIME", help="When it ends: 12h, 30d, or a date, in UTC.")
]
Sha256 = Annotated[str, typer.Argument(metavar="SHA256", help="Of the content: all 64 digits.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DEFAULT_EXPIRY = "30d"
# Why what stands in the store does not count.
REFUSED: Mapping[Standing | None, str] = {
    Standing.MALFORMED: "is no statement",
    Standing.FORGED: "is not signed by anybody in quarantine.analysts",
    Standing.OTHER_STORE: "is about another store",
    Standing.EXPIRED: "is over",
    Standing.EARLY: "begins later: is a clock wrong?",
    Standing.REPLAYED: "was put there a second time, or its nonce was used before",
    Standing.WAITING: "was approved by nobody",
    Standing.SELF_APPROVED: "was approved by its author alone",
}
_NOTED = 200  # characters of a reason in an audit record, which stays small
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Said:
    """A statement that was filed, under its name in the store."""

    name: str
    statement: Statement
    waits: bool

    def tell(self, *, as_json: bool) -> None:
        """To people, or to programs."""
        said = self.statement
        if as_json:
            expires = datetime.fromtimestamp(said.expires, UTC).isoformat()
            about = {"action": said.action, "sha256": said.sha256, "expires": expires}
            tell_json({"id": self.name, **about, "waits_for_approval": self.waits})
        elif self.waits:
            tell(f"{said.action} {said.sha256}: waits for approval: quarantine approve {self.name}")
        else:
            tell(f"{said.action} {said.sha256}: in force within 10 s, as {self.name}")


async def say(place: Place, key: Path, action: Kind, sha256: str, reason: str, expires: int) -> Said:
    """Sign and file it; `expires` is Unix time. Raises ConfigError where nobody may say this with `key`."""
    rules = place.rules()
    signer, analyst = signing_analyst(key, rules)
    async with place.opened() as store:
        actions = Actions(store)
        issued = max(int(time.time()), await _last_word(actions, rules, sha256) + 1)
        try:
            statement = Statement(
                action, sha256, rules.store, reason, analyst.name, new_nonce(), issued, expires
            )
        except ValueError:
            raise ConfigError(
                "--reason: must have 1 to 500 characters, fewer where many are not ASCII"
            ) from None
        await Chain(store, signer, analyst.name).append(action, noted(statement))
        name = await actions.file(Signed.by(signer, statement))
    return Said(name, statement, waits=rules.four_eyes and action.needs_approval)


async def _last_word(actions: Actions, rules: Rules, sha256: str) -> int:
    """When the last was said of this content, by a clock that may be ahead of ours; 0 if nothing was.

    What begins later puts nothing off: what is said now holds until then.
    """
    last = 0
    for filed, standing in rules.unapproved().judge_all(await actions.filed(), time.time()):
        said = filed.signed.statement if filed.signed is not None else None
        if said is None or said.sha256 != sha256:
            continue
        if standing is Standing.APPROVED:
            last = max(last, said.issued)
        elif standing is Standing.EARLY:
            begins = datetime.fromtimestamp(said.issued, UTC).isoformat()
            note(f"{said.author} says {said.action} of it, which begins {begins}: is a clock wrong?")
    return last


def noted(statement: Statement) -> str:
    """What an audit record says of it before it is filed: its name would let others take that first."""
    return f"{statement.sha256} {statement.nonce} {statement.reason[:_NOTED]}"


def checked_sha256(text: str) -> str:
    """Raises ConfigError on what is none."""
    if not _SHA256.fullmatch(text.lower()):
        raise ConfigError(f"{text}: no SHA-256, which has 64 hexadecimal digits")
    return text.lower()


def end_of(text: str) -> int:
    """Unix time of `--expires`. Raises ConfigError."""
    now = datetime.now(UTC)
    at = moment(text, "--expires", now, ends=True)
    if text[-1] in "mhdw":
        at = now + (now - at)
    if at <= now:
        raise ConfigError(f"--expires: {text}: is over already")
    return int(at.timestamp())
