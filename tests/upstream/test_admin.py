"""Synapse's admin API as we call it; the real one answers in e2e/test_homeserver_quarantine.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scanner.errors import AccessDenied, ConfigError, UpstreamFailed, UpstreamSilent
from scanner.media import MediaRef
from scanner.upstream.admin import Admin, Fate
from tests.fake_homeserver import FOREVER, Script, by_method, head, refusing, saying
from tests.upstream.rig import QUICK, Rig, refused

REF = MediaRef("example.org:8448", "abc")


def answering(content: object) -> Script:
    body = json.dumps(content).encode()
    return saying(head(headers=[("Content-Length", str(len(body)))]), body)


def about(**info: Any) -> Script:
    """Yes to a POST, and this about the media."""
    return by_method(POST=answering({}), GET=answering({"media_info": info}))


async def admin(rig: Rig, script: Script, **changes: Any) -> Admin:
    await rig.upstream(script, **changes)
    return Admin(rig.connection, lambda: "s3cret")


async def test_a_media_is_quarantined_and_looked_at_with_the_admins_token(rig: Rig) -> None:
    there = await admin(rig, about(quarantined_by="@admin:example.org"))
    assert await there.quarantine(REF) is Fate.QUARANTINED
    assert rig.homeserver.lines == [
        "POST /_synapse/admin/v1/media/quarantine/example.org:8448/abc",
        "GET /_synapse/admin/v1/media/example.org:8448/abc",
    ]
    assert {heard.header("authorization") for heard in rig.homeserver.heard} == {"Bearer s3cret"}


async def test_a_release_is_one_request(rig: Rig) -> None:
    assert await (await admin(rig, answering({}))).release(REF) is Fate.RELEASED
    assert rig.homeserver.lines == ["POST /_synapse/admin/v1/media/unquarantine/example.org:8448/abc"]


@pytest.mark.parametrize(
    ("found", "fate"),
    [
        (answering({"media_info": {"quarantined_by": None, "safe_from_quarantine": True}}), Fate.PROTECTED),
        (refusing("404 Not Found", "M_NOT_FOUND"), Fate.GONE),
        # An older Synapse cannot be asked, and a proxy may close the route.
        (refusing("404 Not Found", "M_UNRECOGNIZED"), Fate.QUARANTINED),
        (refusing("404 Not Found"), Fate.QUARANTINED),
        (answering({}), Fate.QUARANTINED),
    ],
)
async def test_what_became_of_it_is_asked_for(rig: Rig, found: Script, fate: Fate) -> None:
    there = await admin(rig, by_method(POST=answering({}), GET=found))
    assert await there.quarantine(REF) is fate


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_refused_token_is_said_to_be_that(rig: Rig, status: str) -> None:
    problem = await refused((await admin(rig, refusing(status, "M_FORBIDDEN"))).quarantine(REF))
    assert isinstance(problem, AccessDenied)
    assert "homeserver.admin_token_file" in problem.info
    assert "s3cret" not in problem.info


@pytest.mark.parametrize(
    "script",
    [
        refusing("404 Not Found", "M_UNRECOGNIZED"),
        refusing("429 Too Many Requests", "M_LIMIT_EXCEEDED"),
        refusing("502 Bad Gateway"),
        answering([]),
        about(quarantined_by=None, safe_from_quarantine=False),
    ],
)
async def test_everything_else_is_a_failure(rig: Rig, script: Script) -> None:
    assert isinstance(await refused((await admin(rig, script)).quarantine(REF)), UpstreamFailed)


@pytest.mark.parametrize(
    "stalled", [saying(FOREVER), saying(head(headers=[("Content-Length", "2")]), FOREVER)]
)
async def test_a_silent_homeserver_is_given_up(rig: Rig, stalled: Script) -> None:
    there = await admin(rig, stalled, timers=QUICK)
    assert isinstance(await refused(there.release(REF)), UpstreamSilent)


async def test_a_token_that_cannot_be_read_is_asked_for_again_the_next_time(rig: Rig) -> None:
    tokens: list[str] = []

    def token() -> str:
        if not tokens:
            raise ConfigError("homeserver.admin_token_file: gone")
        return tokens[0]

    await rig.upstream(answering({}))
    there = Admin(rig.connection, token)
    assert isinstance(await refused(there.release(REF)), ConfigError)
    tokens.append("new")
    assert await there.release(REF) is Fate.RELEASED
    assert rig.homeserver.heard[0].header("authorization") == "Bearer new"
