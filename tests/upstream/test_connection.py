"""The connections to the homeserver."""

from __future__ import annotations

import pytest

from tests.fake_homeserver import Step, Then, head, refusing, saying
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
