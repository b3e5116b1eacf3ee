"""Who does something to a quarantine, and that it stands there for everybody."""

from __future__ import annotations

import getpass
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from scanner.analysts import signing_analyst
from scanner.cli.scan_output import note
from scanner.crypto.signing import Signer
from scanner.errors import ConfigError, StoreError
from scanner.key_files import read_secret
from scanner.ports import Store
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Filed, Kind, Rules, Signed, Standing, Statement, new_nonce
from scanner.quarantine.chain import Chain
from scanner.quarantine.markers import Marking, new_marker

# How long a colleague may take to approve.
_WAITS = 7 * 86_400


@dataclass(frozen=True)
class Who:
    """Options of commands that change something, or take something out."""

    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Your private key (Ed25519): signs the audit record."),
    ] = None
    author: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="You, where the configuration lists no analysts."),
    ] = None


class Deeds:
    """Writes down what is about to be done: whoever is stopped half-way has said so before.

    Raises StoreError, and ConfigError where the configuration lists analysts and `who` is none of them.
    """

    def __init__(self, store: Store, who: Who, rules: Rules) -> None:
        self._store = store
        self._rules = rules
        self._signer: Signer | None = None
        self.author = who.author or _login()
        if rules.analysts and who.key is None:
            raise ConfigError("--key: needed, quarantine.analysts says who may do this")
        if rules.analysts and who.key is not None:
            self._signer, analyst = signing_analyst(who.key, rules)
            self.author = analyst.name
        elif who.key is not None:
            self._signer = Signer(read_secret(who.key, "--key"))

    async def audit(self, action: str, subject: str) -> None:
        """Add it to the audit chain, where there is a key to sign it with."""
        if self._signer is None:
            note("Without --key this does not stand in the audit chain.")
            return
        await Chain(self._store, self._signer, self.author).append(action, subject)

    async def mark(self, sha256: str, what: Marking, reason: str) -> None:
        """For everybody who looks at this content, and in the audit chain."""
        await self._mark(sha256, what, reason, datetime.now(UTC), new_nonce())

    async def mark_deleted(self, sha256: str, reason: str) -> str | None:
        """As `mark`; with four eyes only if a colleague approved, each approval for one deletion.

        Returns the name of what now waits for approval, None where nothing does.
        """
        if not self._rules.four_eyes:
            await self.mark(sha256, Marking.DELETE, reason)
            return None
        filed = [each for each in await Actions(self._store).filed() if self._asks(each, sha256)]
        for each in filed:
            if self._rules.judge(each, time.time()) is Standing.APPROVED and each.signed is not None:
                said = each.signed.statement
                issued = datetime.fromtimestamp(said.issued, UTC)
                if await self._is_first(sha256, said.reason, issued, said.nonce):
                    return None
        return await self._ask(sha256, reason)

    @staticmethod
    def _asks(filed: Filed, sha256: str) -> bool:
        said = filed.signed.statement if filed.signed is not None else None
        return said is not None and said.action is Kind.DELETE and said.sha256 == sha256

    async def _is_first(self, sha256: str, reason: str, issued: datetime, nonce: str) -> bool:
        """Whether this approval was not used before: its marker has one name."""
        try:
            await self._mark(sha256, Marking.DELETE, reason, issued, nonce)
        except _Exists:
            return False
        return True

    async def _ask(self, sha256: str, reason: str) -> str:
        assert self._signer is not None
        now = int(time.time())
        statement = Statement(
            Kind.DELETE, sha256, self._rules.store, reason, self.author, new_nonce(), now, now + _WAITS
        )
        name = await Actions(self._store).file(Signed.by(self._signer, statement))
        await self.audit("delete asked for", f"{sha256} {name} {reason}")
        return name

    async def _mark(self, sha256: str, what: Marking, reason: str, at: datetime, nonce: str) -> None:
        key, content = new_marker(sha256, what, by=self.author, reason=reason, at=at, nonce=nonce)
        if not await self._store.put(key, content):
            raise _Exists(f"{key}: exists already")
        await self.audit(what, f"{sha256} {reason}")


class _Exists(StoreError):
    """Something has that name."""


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "unknown"
