from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from scanner.readiness import Readiness

NOW = 1_800_000_000.0
HOUR, DAY = 3600.0, 86400.0


@dataclass
class Version:
    signature_timestamp: float | None = NOW - HOUR


@dataclass
class Backend:
    """One clamd: well, unless a test says otherwise."""

    version: Version | None = None
    up: bool = True
    test_set: bool = False
    kept: str = ""
    name: str = "embedded"

    @property
    def has_test_signatures(self) -> Callable[[], bool]:
        return lambda: self.test_set


def dated(age: float) -> Backend:
    """Signatures made so many seconds ago; negative: in the future."""
    return Backend(Version(NOW - age))


FRESH, UNDATED = dated(HOUR), Backend(Version(None))
DOWN, UNASKED = Backend(up=False), Backend()
TEST_SET = Backend(Version(None), test_set=True)


def readiness(
    *backends: Backend,
    canary: bool = True,
    homeserver: bool = True,
    max_age: float | None = 7 * DAY,
    accepting: bool = False,
    update_problem: str = "",
    admin_problem: str = "",
    overrides_problem: str = "",
) -> Readiness:
    async def reachable() -> bool:
        return homeserver

    return Readiness(
        backends=backends,
        canary_healthy=lambda: canary,
        homeserver_reachable=reachable,
        max_signature_age=max_age,
        accept_test_signatures=accepting,
        update_problem=lambda: update_problem,
        admin_problem=lambda: admin_problem,
        overrides_problem=lambda: overrides_problem,
        now=lambda: NOW,
    )


async def test_ready_when_all_is_well() -> None:
    assert await readiness(FRESH).reasons() == {}


@pytest.mark.parametrize(
    ("backends", "reasons"),
    [
        ([], {"engine"}),
        ([DOWN], {"engine"}),
        ([DOWN, FRESH], set()),
        ([UNASKED], {"signatures"}),
        ([UNDATED], {"signatures"}),
        ([UNDATED, FRESH], set()),
        ([dated(0)], set()),
        ([dated(7 * DAY - 1)], set()),
        ([dated(7 * DAY)], {"signatures"}),
        ([dated(30 * DAY), dated(HOUR)], set()),
        ([dated(-HOUR + 1)], set()),
        ([dated(-HOUR)], {"signatures"}),
        ([dated(-30 * DAY)], {"signatures"}),
        ([TEST_SET], {"test_signatures"}),
        ([TEST_SET, DOWN], {"test_signatures"}),
        ([TEST_SET, FRESH], set()),
        ([TEST_SET, dated(30 * DAY)], {"signatures"}),
    ],
)
async def test_what_each_set_of_clamds_is_worth(backends: list[Backend], reasons: set[str]) -> None:
    assert (await readiness(*backends).reasons()).keys() == reasons


@pytest.mark.parametrize("backend", [UNDATED, dated(1000 * DAY), dated(-1000 * DAY), UNASKED])
async def test_without_a_greatest_age_any_set_will_do(backend: Backend) -> None:
    assert await readiness(backend, max_age=None).reasons() == {}


@pytest.mark.parametrize("max_age", [None, 7 * DAY])
async def test_the_test_set_will_do_only_where_it_is_accepted(max_age: float | None) -> None:
    assert await readiness(TEST_SET, accepting=True, max_age=max_age).reasons() == {}
    assert (await readiness(TEST_SET, max_age=max_age).reasons()).keys() == {"test_signatures"}


async def test_a_failed_canary_a_homeserver_away_and_a_shutdown_are_reasons() -> None:
    asked = readiness(FRESH, canary=False, homeserver=False)
    asked.stopping = True
    assert (await asked.reasons()).keys() == {"canary", "homeserver", "stopping"}


async def test_without_any_clamd_the_canary_says_nothing_new() -> None:
    assert (await readiness(DOWN, canary=False).reasons()).keys() == {"engine"}


async def test_young_signatures_that_cannot_be_renewed_are_a_warning_and_no_reason() -> None:
    """Else one bad file, or one mirror that is away, would take every replica out of service."""
    clamd = Backend(Version(), kept="own.ndb: Malformed database")
    asked = readiness(clamd, update_problem="Couldn't resolve host name")
    assert await asked.reasons() == {}
    assert asked.warnings().keys() == {"reload", "signature_updates"}
    assert "embedded: own.ndb: Malformed database" in asked.warnings()["reload"]
    assert "Couldn't resolve host name" in asked.warnings()["signature_updates"]
    assert all(len(text.split("; ")) == 2 for text in asked.warnings().values())


async def test_a_homeserver_that_cannot_be_told_is_a_warning_and_no_reason() -> None:
    asked = readiness(FRESH, admin_problem="the homeserver refuses the token")
    assert await asked.reasons() == {}
    assert "refuses the token" in asked.warnings()["homeserver_quarantine"]


async def test_old_signatures_that_cannot_be_renewed_are_a_reason() -> None:
    clamd = Backend(Version(NOW - 30 * DAY), kept="own.ndb: Malformed database")
    assert (await readiness(clamd).reasons()).keys() == {"signatures"}


async def test_there_is_nothing_to_warn_of_when_all_is_well() -> None:
    assert readiness(FRESH).warnings() == {}


async def test_every_reason_says_what_to_do() -> None:
    asked = readiness(TEST_SET, canary=False, homeserver=False)
    asked.stopping = True
    texts = [*(await asked.reasons()).values(), *(await readiness().reasons()).values()]
    texts += (await readiness(UNDATED).reasons()).values()
    assert len(texts) == 6
    assert all(len(text.split("; ")) == 2 for text in texts)


async def test_decisions_that_cannot_be_read_are_a_warning_and_no_reason() -> None:
    asked = readiness(FRESH, overrides_problem="the store did not answer in time")
    assert await asked.reasons() == {}
    assert "did not answer in time" in asked.warnings()["overrides"]
