"""Who does something to a quarantine, and that it stands there for everybody."""

from __future__ import annotations

import getpass
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from scanner.analysts import signing_analyst
from scanner.cli.scan_output import note
from scanner.cli.statements import noted
from scanner.crypto.signing import Signer
from scanner.errors import ConfigError, StoreError
from scanner.key_files import read_secret
from scanner.ports import Store
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import (
    NEVER,
    Approval,
    Kind,
    Rules,
    Signed,
    Standing,
    Statement,
    new_nonce,
)
from scanner.quarantine.catalogue import SealedSample
from scanner.quarantine.chain import Chain
from scanner.quarantine.markers import KINDS, counting, new_marker
from scanner.quarantine.reading import markers_of

# How long a colleague may take to approve.
_WAITS = 7 * 86_400
_SHOWN = 16


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

    async def mark(self, sha256: str, what: Kind, reason: str) -> None:
        """For everybody who looks at this content, and in the audit chain."""
        said = counting(await markers_of(self._store, self._rules, sha256), *KINDS)
        after = said[-1].issued if said else 0
        await self._mark(self._signed(self._statement(what, sha256, reason, after, NEVER)))

    async def mark_deleted(self, copies: Sequence[SealedSample], reason: str) -> str | None:
        """Of all copies that there are of one content; what was approved deletes no later one."""
        newest = int(max(copy.stored for copy in copies))
        return await self._mark_together(copies[0].sha256, Kind.DELETE, reason, newest)

    async def end_hold(self, sha256: str, reason: str) -> str | None:
        """What was approved ends no later one."""
        holds = counting(await markers_of(self._store, self._rules, sha256), Kind.HOLD)
        return await self._mark_together(sha256, Kind.UNHOLD, reason, holds[-1].issued if holds else 0)

    async def _mark_together(self, sha256: str, what: Kind, reason: str, after: int) -> str | None:
        """As `mark`; with four eyes only if a colleague approved what was said after that.

        Returns the name of what now waits for approval, None where nothing does.
        """
        if not self._rules.four_eyes:
            await self.mark(sha256, what, reason)
            return None
        judged = self._rules.judge_all(await Actions(self._store).filed(), time.time())
        for filed, standing in judged:
            if standing is Standing.APPROVED and filed.signed is not None:
                said = filed.signed.statement
                if (said.action, said.sha256) == (what, sha256) and said.issued > after:
                    await self._mark(filed.signed, self._rules.approval_of(filed))
                    return None
        return await self._ask(self._statement(what, sha256, reason, after, int(time.time()) + _WAITS))

    async def _ask(self, statement: Statement) -> str:
        await self.audit(f"{statement.action} asked for", noted(statement))
        return await Actions(self._store).file(self._signed(statement))

    async def _mark(self, signed: Signed, approval: Approval | None = None) -> None:
        await self.audit(signed.statement.action, noted(signed.statement))
        key, content = new_marker(signed, approval)
        if not await self._store.put(key, content):
            raise StoreError(f"{key}: exists already; try again")

    def _statement(self, action: Kind, sha256: str, reason: str, after: int, expires: int) -> Statement:
        """Later than what was before, whatever our clock says. Raises ConfigError."""
        issued, store = max(int(time.time()), after + 1), self._rules.store
        try:
            return Statement(action, sha256, store, reason, self.author, new_nonce(), issued, expires)
        except ValueError as problem:
            raise ConfigError(f"--reason, --as: {problem}") from None

    def _signed(self, statement: Statement) -> Signed:
        return Signed(statement, "") if self._signer is None else Signed.by(self._signer, statement)


def opened_samples(sha256s: Sequence[str]) -> str:
    """What an audit record says of them, which stays small."""
    shown = " ".join(sha256s[:_SHOWN])
    return f"samples: {len(sha256s)}: {shown}{' ...' if len(sha256s) > _SHOWN else ''}"


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "unknown"
