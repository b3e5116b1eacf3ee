"""What the homeserver is asked and told in a caller's name."""

from __future__ import annotations

import time

import pytest

from scanner.errors import AccessDenied, Throttled, UpstreamError, UpstreamFailed, UpstreamSilent
from scanner.upstream.relay import Errand, Relay
from scanner.upstream.transport import Caller
from tests.fake_homeserver import FOREVER, Script, head, refusing, saying
from tests.fakes import a_body
from tests.upstream.rig import ALICE, QUICK, Rig, refused, soon
from tests.web.test_uploads import json_reply

ERRAND = Errand("POST", "media/v1/create", Caller(ALICE), "a=1")


async def relay(rig: Rig, script: Script) -> Relay:
    await rig.upstream(script, timers=QUICK)
    return Relay(rig.connection)


async def test_an_answer_is_handed_back(rig: Rig) -> None:
    asked = await relay(rig, lambda heard: json_reply({"content_uri": "x"}))
    assert await asked.ask(ERRAND, soon()) == {"content_uri": "x"}
    assert rig.homeserver.lines == ["POST /_matrix/media/v1/create?a=1"]
    assert rig.homeserver.heard[0].header("authorization") == ALICE


async def test_a_body_goes_whole_and_with_its_length(rig: Rig) -> None:
    asked = await relay(rig, lambda heard: json_reply({}))
    for content in (b"", b"x" * 400_000):
        body = a_body(content)
        await asked.store(ERRAND, body, "image/png", soon())
        body.release()
        assert rig.homeserver.heard[-1].body == content
        assert rig.homeserver.heard[-1].header("content-length") == str(len(content))


async def test_a_refusal_keeps_the_homeservers_words(rig: Rig) -> None:
    asked = await relay(rig, refusing("409 Conflict", "M_CANNOT_OVERWRITE_MEDIA", Retry_After="3"))
    error = await refused(asked.ask(ERRAND, soon()))
    assert isinstance(error, UpstreamError)
    refusal = error.refusal
    assert refusal is not None
    assert refusal.status == 409
    assert refusal.content["errcode"] == "M_CANNOT_OVERWRITE_MEDIA"
    assert refusal.retry_after == 3


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "413 Too Large", "500 Oh", "302 Go"])
async def test_a_refusal_without_a_word_is_not_taken_for_one_about_media(rig: Rig, status: str) -> None:
    asked = await relay(rig, refusing(status))
    error = await refused(asked.ask(ERRAND, soon()))
    assert isinstance(error, UpstreamFailed)
    assert error.refusal is not None
    assert str(error.refusal.status) == status[:3]


@pytest.mark.parametrize(("status", "kind"), [("401 No", AccessDenied), ("429 Slow", Throttled)])
async def test_two_refusals_need_no_word(rig: Rig, status: str, kind: type[UpstreamError]) -> None:
    asked = await relay(rig, refusing(status))
    assert isinstance(await refused(asked.ask(ERRAND, soon())), kind)


async def test_an_answer_that_drips_is_given_up(rig: Rig) -> None:
    drops = [step for _ in range(100) for step in (0.05, b" ")]
    asked = await relay(rig, saying(head(headers=[("Content-Length", "200")]), *drops))
    began = time.monotonic()
    assert isinstance(await refused(asked.ask(ERRAND, soon())), UpstreamSilent)
    assert time.monotonic() - began < 0.4


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"a":' + b" " * 2**20 + b"1}"])
async def test_what_is_no_short_json_object_is_a_failure(rig: Rig, body: bytes) -> None:
    answer = head(headers=[("Content-Length", str(len(body)))])
    asked = await relay(rig, saying(answer, body))
    assert isinstance(await refused(asked.ask(ERRAND, soon())), UpstreamFailed)


@pytest.mark.parametrize("steps", [(FOREVER,), (head(headers=[("Content-Length", "9")]), b"{", FOREVER)])
async def test_a_silent_homeserver_is_given_up(rig: Rig, steps: tuple[bytes | float, ...]) -> None:
    asked = await relay(rig, saying(*steps))
    assert isinstance(await refused(asked.ask(ERRAND, soon())), UpstreamSilent)


async def test_where_authenticated_media_are_unknown_the_frozen_limit_counts(rig: Rig) -> None:
    unknown = refusing("404 Not Found", "M_UNRECOGNIZED")
    asked = await relay(
        rig,
        lambda heard: unknown(heard) if "client/v1" in heard.target else json_reply({"m.upload.size": 9}),
    )
    assert await asked.upload_limit(Caller(ALICE), soon()) == 9
    assert rig.homeserver.asked == ["GET client/v1", "GET v3"]


async def test_nobody_without_a_token_may_upload(rig: Rig) -> None:
    asked = await relay(rig, lambda heard: json_reply({}))
    assert isinstance(await refused(asked.upload_limit(Caller(), soon())), AccessDenied)
    assert not rig.homeserver.heard
