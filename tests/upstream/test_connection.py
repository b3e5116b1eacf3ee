"""The connections to the homeserver."""

from __future__ import annotations

import pytest

from scanner.upstream.transport import Transport
from tests.fake_homeserver import (
    PNG,
    FakeHomeserver,
    Step,
    Then,
    head,
    in_turn,
    redirecting,
    refusing,
    saying,
    serving,
)
from tests.upstream.rig import Rig

# -- is it there? --------------------------------------------------------------------------------


async def test_whether_the_homeserver_is_there_is_asked_every_10_s_at_most(rig: Rig) -> None:
    await rig.upstream(refusing("404 Not Found"))
    assert await rig.connection.reachable()
    assert await rig.connection.reachable()
    assert rig.homeserver.lines == ["GET /_matrix/client/versions"]


@pytest.mark.parametrize("steps", [(Then.HANG_UP,), (head("502 Bad Gateway", [("Content-Length", "0")]),)])
async def test_a_homeserver_that_fails_is_not_reachable(rig: Rig, steps: tuple[Step, ...]) -> None:
    await rig.upstream(saying(*steps))
    assert not await rig.connection.reachable()


# -- elsewhere -----------------------------------------------------------------------------------


async def test_what_is_asked_elsewhere_has_nothing_of_the_homeservers(rig: Rig) -> None:
    async with FakeHomeserver() as cdn:
        headers = {"X-Gate": "open"}
        hosts = frozenset({f"127.0.0.1:{cdn.port}"})
        await rig.upstream(transport=Transport(additional_headers=headers), redirect_hosts=hosts)
        async with rig.connection.elsewhere(f"{cdn.url}/a?b=%41") as response:
            assert await response.read() == PNG
        assert cdn.lines == ["GET /a?b=%41"]
        assert cdn.heard[0].header("x-gate") is None
    assert (rig.homeserver.heard, rig.codes()) == ([], ["200"])


@pytest.mark.parametrize("most", [3, 4])
async def test_elsewhere_may_redirect_three_times(rig: Rig, most: int) -> None:
    async with FakeHomeserver() as cdn:
        await rig.upstream(redirect_hosts=frozenset({f"127.0.0.1:{cdn.port}"}))
        cdn.script = in_turn(*[redirecting(f"{cdn.url}/there")] * most, serving(PNG))
        async with rig.connection.elsewhere(f"{cdn.url}/here") as response:
            assert response.status == (200 if most == 3 else 307)
    assert rig.codes() == ["200" if most == 3 else "307"]
