"""What analysts decided about contents, in memory: the statements in the store that count, polled.

A decision is in force within ten seconds, and until it expires or is taken back. While the store is away the
last ones known stay in force, and whoever watches is told.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from typing import NoReturn, TypeVar

from scanner.errors import StoreError
from scanner.events import ActionJudged, ActionsUnread, Publish
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import (
    Filed,
    Kind,
    Rules,
    Signed,
    Standing,
    Statement,
    without_repeats,
    words_on_contents,
)
from scanner.verdict import ContentId, IndexSecret, Override

_INTERVAL = 5.0
_DEADLINE = 30.0
_AT_ONCE = 64
# Another approval may make one of these count; the worst is the last.
_LACK_APPROVAL = (Standing.SELF_APPROVED, Standing.FORGED, Standing.WAITING)
_MAY_EXPIRE = frozenset({Standing.APPROVED, Standing.WAITING, Standing.SELF_APPROVED})

_Item = TypeVar("_Item")
# Writes into the audit chain: what was done, and to what.
Note = Callable[[str, str], Awaitable[object]]


class StoredOverrides:
    """Overrides from `actions`, by `rules`; `run` it in the background.

    `note` is told once of each statement, by whichever replica is the first to use its nonce.
    """

    def __init__(
        self,
        actions: Actions,
        rules: Rules,
        *,
        index: IndexSecret,
        note: Note,
        publish: Publish,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.problem = ""
        self.read_at = 0.0
        self._actions = actions
        self._rules = rules
        self._index = index
        self._note = note
        self._publish = publish
        self._now = now
        self._in_force: dict[ContentId, Override] = {}
        self._allowed: frozenset[str] = frozenset()
        self._used: set[str] = set()
        self._told: dict[str, Standing] = {}
        self._judged: dict[str, tuple[Filed, Standing]] = {}
        self._to_note: deque[tuple[str, str]] = deque()

    def of(self, content: ContentId) -> Override | None:
        """What holds for this content now."""
        override = self._in_force.get(content)
        return override if override is not None and self._now() < override.expires else None

    def allowed(self) -> frozenset[str]:
        """SHA-256 of the contents that are handed over whatever the engines say."""
        return self._allowed

    def follows_anybody(self) -> bool:
        """Whether there are analysts at all."""
        return bool(self._rules.analysts)

    def set_rules(self, rules: Rules) -> None:
        """From the next look on."""
        self._rules = rules
        self._judged = {}

    def count(self) -> int:
        """How many are in force; a gauge."""
        return len(self._in_force)

    async def run(self, interval: float = _INTERVAL) -> NoReturn:
        """Until cancelled."""
        while True:
            await self._try()
            await asyncio.sleep(interval)

    async def _try(self) -> None:
        problem = ""
        try:
            async with asyncio.timeout(_DEADLINE):
                await self.refresh()
        except StoreError as error:
            problem = error.info
        except TimeoutError:
            problem = "no answer in time"
        if problem != self.problem:
            self._publish(ActionsUnread(problem))
        self.problem = problem

    async def refresh(self) -> None:
        """Read the store and put in force what counts. Raises StoreError."""
        filed = await self._actions.filed() if self.follows_anybody() else []
        judged = [(each, await self._judge(each)) async for each in _in_turns(filed)]
        approved = [each async for each in self._counting(judged)]
        words = words_on_contents(signed.statement for signed in approved)
        self._in_force = {
            self._content(sha256): _override(word) async for sha256, word in _in_turns(words.items())
        }
        self._allowed = frozenset(sha256 for sha256, word in words.items() if word.action is not Kind.DENY)
        self.read_at = self._now()
        await self._note_new(approved)

    async def _counting(self, judged: Iterable[tuple[Filed, Standing]]) -> AsyncIterator[Signed]:
        async for filed, standing in _in_turns(without_repeats(judged)):
            self._tell(filed, standing)
            if standing is Standing.APPROVED and filed.signed is not None:
                yield filed.signed

    async def _judge(self, filed: Filed) -> Standing:
        """Signatures take time, and are looked at once."""
        judged, now = self._judged, self._now()
        known, standing = judged.get(filed.id, (None, Standing.EARLY))
        over = filed.signed is not None and now >= filed.signed.statement.expires
        if known != filed or standing is Standing.EARLY or (over and standing in _MAY_EXPIRE):
            standing = await _judged_in_turns(self._rules, filed, now)
            judged[filed.id] = filed, standing  # of rules that may have been replaced meanwhile
        return standing

    async def _note_new(self, approved: Iterable[Signed]) -> None:
        """They are in force already, whether or not the store takes what is noted."""
        for signed in approved:
            name, said = signed.id, signed.statement
            if name not in self._used:
                if await self._actions.use_nonce(signed):
                    self._to_note.append((f"{said.action} in force", f"{said.sha256} {name}"))
                self._used.add(name)
        while self._to_note:
            await self._note(*self._to_note[0])
            self._to_note.popleft()

    def _tell(self, filed: Filed, standing: Standing) -> None:
        """Once, and again when it changes; what was over before we looked is nothing new."""
        before = self._told.get(filed.id)
        self._told[filed.id] = standing
        if standing is before or (standing is Standing.EXPIRED and before is None):
            return
        statement = filed.signed.statement if filed.signed is not None else None
        self._publish(
            ActionJudged(
                filed.id,
                statement.action if statement else "other",
                standing,
                statement.sha256 if statement else "",
                statement.author if statement else "",
            )
        )

    def _content(self, sha256: str) -> ContentId:
        return self._index.content(bytes.fromhex(sha256))


async def _in_turns(items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """So many at a time: what others have to do is not to wait for all of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)


async def _judged_in_turns(rules: Rules, filed: Filed, now: float) -> Standing:
    """Anybody who may put objects can fill a store with statements, and with approvals of one."""
    best = Standing.WAITING
    for at in range(0, max(len(filed.approvals), 1), _AT_ONCE):
        standing = rules.judge(replace(filed, approvals=filed.approvals[at : at + _AT_ONCE]), now)
        await asyncio.sleep(0)
        if standing not in _LACK_APPROVAL:
            return standing
        best = min(best, standing, key=_LACK_APPROVAL.index)
    return best


def _override(word: Statement) -> Override:
    return Override(word.action is not Kind.DENY, word.reason, word.author, word.expires)
