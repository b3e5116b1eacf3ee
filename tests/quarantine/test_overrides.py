"""What analysts decided, in force within seconds, until it ends."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scanner.errors import StoreError
from scanner.events import ActionJudged, ActionsUnread
from scanner.ports import Store, Stored
from scanner.quarantine.action_store import Actions
from scanner.quarantine.actions import Approval, Filed, Kind, Rules, Signed, Standing
from scanner.quarantine.layout import NONCES, action_key, nonce_key
from scanner.quarantine.overrides import StoredOverrides
from scanner.stores.local import Local
from scanner.verdict import IndexSecret
from tests.fake_homeserver import until
from tests.fakes import RecordingSink
from tests.quarantine.people import (
    ANALYSTS,
    FOUR_EYES,
    HOUR,
    MALLORY,
    SHA256,
    TWO_EYES,
    approved,
    filed,
    signed,
    statement,
)

INDEX = IndexSecret(bytes(32))
CONTENT = INDEX.content(bytes.fromhex(SHA256))


@dataclass
class Replica:
    """One scanner's overrides, by a clock of its own."""

    store: Store
    rules: Rules = TWO_EYES
    sink: RecordingSink = field(default_factory=RecordingSink)
    notes: list[tuple[str, str]] = field(default_factory=list)
    ahead: float = 0.0
    unwritable: bool = False

    def __post_init__(self) -> None:
        self.overrides = StoredOverrides(
            Actions(self.store),
            self.rules,
            index=INDEX,
            note=self._note,
            publish=self.sink,
            now=lambda: time.time() + self.ahead,
        )

    async def _note(self, action: str, subject: str) -> None:
        if self.unwritable:
            raise StoreError("gone")
        self.notes.append((action, subject))

    @property
    def said(self) -> list[str]:
        return [event.result for event in self.sink.of(ActionJudged)]

    async def allows(self) -> bool | None:
        """Whether the content is handed over or withheld, None where nothing holds."""
        await self.overrides.refresh()
        override = self.overrides.of(CONTENT)
        return None if override is None else override.allow


@asynccontextmanager
async def running(replica: Replica) -> AsyncIterator[None]:
    task = asyncio.create_task(replica.overrides.run(0.01))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(("kind", "allows"), [(Kind.RELEASE, True), (Kind.ALLOW, True), (Kind.DENY, False)])
async def test_what_an_analyst_said_is_in_force_until_it_is_taken_back(
    any_store: Store, kind: Kind, allows: bool
) -> None:
    replica, at = Replica(any_store), int(time.time())
    assert await replica.allows() is None
    await Actions(any_store).file(signed(kind, issued=at))
    assert await replica.allows() is allows
    await Actions(any_store).file(signed(Kind.FORGET, issued=at + 1))
    assert await replica.allows() is None
    assert replica.said == ["approved", "approved"]


@pytest.fixture
def store(tmp_path: Path) -> Local:
    return Local(tmp_path / "store")


async def test_override_says_who_and_why_and_is_about_one_content(store: Local) -> None:
    replica = Replica(store)
    await Actions(store).file(signed())
    await replica.overrides.refresh()
    override = replica.overrides.of(CONTENT)
    assert override is not None
    assert (override.author, override.reason) == ("alice", "a false positive")
    assert replica.overrides.of(INDEX.content(bytes(32))) is None
    assert replica.overrides.count() == 1


async def test_expiry_ends_it_between_two_looks_and_after(store: Local) -> None:
    replica = Replica(store)
    await Actions(store).file(signed())
    assert await replica.allows()
    replica.ahead = HOUR
    assert replica.overrides.of(CONTENT) is None
    assert await replica.allows() is None
    assert replica.said == ["approved", "expired"]


async def test_earlier_word_holds_again_when_a_shorter_one_is_over(store: Local) -> None:
    replica, at = Replica(store), int(time.time())
    await Actions(store).file(signed(Kind.DENY, issued=at - 9, expires=at + 9 * HOUR))
    await Actions(store).file(signed(Kind.ALLOW, issued=at))
    assert await replica.allows() is True
    replica.ahead = 2 * HOUR
    assert await replica.allows() is False


async def test_with_four_eyes_it_holds_once_another_person_approved(any_store: Store) -> None:
    replica, what = Replica(any_store, FOUR_EYES), signed()
    name = await Actions(any_store).file(what)
    assert await replica.allows() is None
    await Actions(any_store).approve(name, approved(what, "bob"))
    assert await replica.allows() is True
    assert replica.said == ["waiting", "approved"]


async def refused(replica: Replica, what: Signed) -> list[str]:
    await Actions(replica.store).file(what)
    assert await replica.allows() is None
    return replica.said


async def test_forged_statement_is_refused(store: Local) -> None:
    assert await refused(Replica(store), Signed.by(MALLORY, statement())) == [Standing.FORGED]


async def test_statement_for_another_store_is_refused(store: Local) -> None:
    assert await refused(Replica(store), signed(store="elsewhere")) == [Standing.OTHER_STORE]


async def test_expired_statement_is_refused_and_old_ones_are_no_news(store: Local) -> None:
    at = int(time.time())
    assert await refused(Replica(store), signed(issued=at - 9, expires=at - 1)) == []


async def test_self_approved_statement_is_refused(store: Local) -> None:
    replica, what = Replica(store, FOUR_EYES), signed(author="bob")
    await Actions(store).approve(await Actions(store).file(what), approved(what, "bob"))
    assert await replica.allows() is None
    assert replica.said == [Standing.SELF_APPROVED]


async def test_what_is_no_statement_is_refused(store: Local) -> None:
    replica = Replica(store)
    await store.put(action_key("x"), b"{}")
    assert await replica.allows() is None
    assert [(event.action, event.result) for event in replica.sink.of(ActionJudged)] == [
        ("other", "malformed")
    ]


async def test_replayed_statement_is_refused_by_whoever_sees_it(any_store: Store) -> None:
    """Put again under another name, when the first one is gone."""
    what = signed()
    name = await Actions(any_store).file(what)
    witness = Replica(any_store)
    assert await witness.allows()
    await any_store.delete(action_key(name))
    await any_store.put(action_key(f"{name}-again"), what.to_json())
    await witness.allows()
    assert witness.said == [Standing.APPROVED, Standing.REPLAYED]
    another = Replica(any_store)
    assert await another.allows() is None
    assert another.said == [Standing.REPLAYED]


async def test_nobody_keeps_a_statement_from_counting_who_takes_its_nonce_first(any_store: Store) -> None:
    """Whoever may put could do that: a `deny` must hold all the same, and be noted."""
    what = signed(Kind.DENY)
    await any_store.put(nonce_key(what.statement.nonce), b"20260101T000000Z-00000000")
    await any_store.put(action_key("20260101T000000Z-00000000"), signed_by_nobody(what).to_json())
    replica = Replica(any_store)
    name = await Actions(any_store).file(what)
    assert await replica.allows() is False
    assert replica.said == [Standing.FORGED, Standing.APPROVED]
    assert replica.notes == [("deny in force", f"{SHA256} {name}")]


def signed_by_nobody(what: Signed) -> Signed:
    return Signed.by(MALLORY, what.statement)


async def test_what_counts_is_in_force_although_nonces_cannot_be_written(tmp_path: Path) -> None:
    store = Unusable(tmp_path / "store")
    replica = Replica(store)
    await Actions(store).file(signed(Kind.DENY))
    with pytest.raises(StoreError):
        await replica.overrides.refresh()
    assert replica.overrides.count() == 1


class Unusable(Local):
    """Takes no nonces."""

    async def put(self, key: str, content: Path | bytes) -> bool:
        if key.startswith(NONCES):
            raise StoreError("denied")
        return await super().put(key, content)


async def test_each_statement_is_noted_once_by_all_replicas_together(any_store: Store) -> None:
    replicas = [Replica(any_store), Replica(any_store)]
    name = await Actions(any_store).file(signed())
    assert await asyncio.gather(*(replica.allows() for replica in replicas)) == [True, True]
    assert [await replica.allows() for replica in replicas] == [True, True]
    assert [*replicas[0].notes, *replicas[1].notes] == [("release in force", f"{SHA256} {name}")]


async def test_other_rules_hold_from_the_next_look_on(store: Local) -> None:
    replica = Replica(store)
    await Actions(store).file(signed())
    assert await replica.allows()
    replica.overrides.set_rules(FOUR_EYES)
    assert await replica.allows() is None
    replica.overrides.set_rules(Rules(TWO_EYES.store, {"bob": ANALYSTS["bob"]}))
    assert await replica.allows() is None
    assert replica.said == ["approved", "waiting", "forged"]


class Flaky(Local):
    """A store that is away while `away`."""

    away = False

    async def listing(self, prefix: str) -> AsyncIterator[Stored]:
        if self.away:
            raise StoreError("gone")
        async for stored in super().listing(prefix):
            yield stored


async def test_rules_that_come_while_others_are_applied_count_the_next_time(store: Local) -> None:
    replica = Replica(store)
    await Actions(store).file(signed())
    listed = Listed(store)
    await listed.filed()
    replica.overrides._actions = listed  # noqa: SLF001 - so that only judging gives others their turn
    looking = asyncio.create_task(replica.overrides.refresh())
    await asyncio.sleep(0)
    replica.overrides.set_rules(Rules(TWO_EYES.store, {"bob": ANALYSTS["bob"]}))
    await looking
    assert await replica.allows() is None


async def test_while_the_store_is_away_the_last_ones_known_stay_in_force(tmp_path: Path) -> None:
    store = Flaky(tmp_path / "store")
    replica = Replica(store)
    await Actions(store).file(signed())
    async with running(replica):
        await until(lambda: replica.overrides.count() == 1)
        store.away = True
        await until(lambda: replica.overrides.problem == "gone")
        assert replica.overrides.of(CONTENT) is not None
        replica.ahead = HOUR
        assert replica.overrides.of(CONTENT) is None
        store.away = False
        await until(lambda: replica.overrides.problem == "")
    assert [event.problem for event in replica.sink.of(ActionsUnread)] == ["gone", ""]


async def test_statement_that_is_deleted_stays_in_force(store: Local, tmp_path: Path) -> None:
    replica = Replica(store)
    await Actions(store).file(signed(Kind.DENY))
    assert await replica.allows() is False
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    assert await replica.allows() is False


async def test_note_that_could_not_be_written_is_written_later(store: Local) -> None:
    replica = Replica(store, unwritable=True)
    await Actions(store).file(signed())
    with pytest.raises(StoreError):
        await replica.overrides.refresh()
    assert replica.overrides.of(CONTENT) is not None
    replica.unwritable = False
    await replica.overrides.refresh()
    assert len(replica.notes) == 1


async def test_without_analysts_nothing_is_asked_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    replica = Replica(Local(tmp_path / "file"), Rules(TWO_EYES.store, {}))
    assert await replica.allows() is None


class Listed(Actions):
    """Everything was read before: to list it anew gives others their turn, and is not what is measured."""

    known: Sequence[Filed] = ()

    async def filed(self) -> list[Filed]:
        self.known = self.known or await super().filed()
        return list(self.known)


async def test_many_approvals_do_not_hold_up_the_event_loop(store: Local) -> None:
    """Whoever may put objects can put as many as he likes beside a statement."""
    what = signed()
    junk = [Approval("bob", b64encode(number.to_bytes(64, "big")).decode()) for number in range(640)]
    actions = Listed(store)
    actions.known = [filed(what, *junk, approved(what, "carol"))]
    replica = Replica(store, FOUR_EYES)
    overrides = StoredOverrides(
        actions,
        FOUR_EYES,
        index=INDEX,
        note=replica._note,  # noqa: SLF001
        publish=replica.sink,
    )
    turns = await turns_during(overrides.refresh())
    assert overrides.count() == 1
    assert turns >= 10


@pytest.mark.slow
@pytest.mark.alone
async def test_many_statements_do_not_hold_up_the_event_loop(store: Local) -> None:
    """A site has thousands of them after some years, and they are gone through every few seconds."""
    for number in range(300):
        await Actions(store).file(signed(Kind.DENY, sha256=f"{number:064x}"))
    replica = Replica(store)
    overrides = StoredOverrides(
        Listed(store),
        TWO_EYES,
        index=INDEX,
        note=replica._note,  # noqa: SLF001
        publish=replica.sink,
    )
    await overrides.refresh()
    turns = await turns_during(overrides.refresh())
    assert overrides.count() == 300
    assert turns >= 3


async def turns_during(work: Coroutine[None, None, None]) -> int:
    """How often others could do something meanwhile."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    await work
    others.cancel()
    return turns
