"""What an analyst says on the command line: a signed statement in the store, and an audit record of it.

The audit record comes first: whoever is stopped half-way has said what he was about to do.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from scanner.analysts import signing_analyst
from scanner.cli.quarantine_filters import moment
from scanner.cli.quarantine_output import tell, tell_json
from scanner.cli.quarantine_store import Place
from scanner.errors import ConfigError
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Kind, Signed, Statement, new_nonce
from scanner.quarantine.chain import Chain

Key = Annotated[Path, typer.Option("--key", metavar="FILE", help="Your private signing key.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; everybody who audits reads it.")]
Expires = Annotated[
    str, typer.Option("--expires", metavar="TIME", help="When it ends: 12h, 30d, or a date, in UTC.")
]
Sha256 = Annotated[str, typer.Argument(metavar="SHA256", help="Of the content: all 64 digits.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DEFAULT_EXPIRY = "30d"
_NOTED = 200  # characters of a reason in the audit record, which stays small
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
    rules, now = place.rules(), int(time.time())
    signer, analyst = signing_analyst(key, rules)
    try:
        statement = Statement(action, sha256, rules.store, reason, analyst.name, new_nonce(), now, expires)
    except ValueError:
        raise ConfigError("--reason: must have 1 to 500 characters") from None
    async with place.opened() as store:
        await Chain(store, signer, analyst.name).append(
            action, f"{sha256} {statement.nonce} {reason[:_NOTED]}"
        )
        name = await Actions(store).file(Signed.by(signer, statement))
    return Said(name, statement, waits=rules.four_eyes and action.needs_approval)


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
