"""The homeserver's download routes, on real sockets."""

from __future__ import annotations

import pytest

from scanner.verdict import Policy
from tests.fake_homeserver import PNG, refusing, serving
from tests.raw_client import Reply, request
from tests.real_clamd import EICAR
from tests.web.service import ALICE, FORBIDDEN, LOCKED, MIB, Serve, Service
from tests.web.test_uploads import json_reply

PREFIXES = ["client/v1/media", "media/v3", "media/r0", "media/v1"]
PATHS = ["download/example.org/abc", "download/example.org/abc/a.png", "thumbnail/example.org/abc"]


async def get(service: Service, path: str, method: str = "GET", **headers: str) -> Reply:
    return await service.ask(request(f"/_matrix/{path}", ALICE, method=method, body=None, **headers))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prefix", PREFIXES)
async def test_clean_media_are_handed_over_from_where_they_were_asked(
    service: Service, prefix: str, path: str
) -> None:
    reply = await get(
        service, f"{prefix}/{path}?width=1&timeout_ms=99999&allow_redirect=true&allow_remote=false"
    )
    assert (reply.status, reply.body) == (200, PNG)
    assert reply.header("content-security-policy")
    assert service.homeserver.lines == [
        f"GET /_matrix/{prefix}/{path}?width=1&timeout_ms=20000&allow_remote=false"
    ]
    assert service.idle


@pytest.mark.parametrize("content", [EICAR, FORBIDDEN, LOCKED])
@pytest.mark.parametrize("path", PATHS)
async def test_withheld_media_are_forbidden(service: Service, path: str, content: bytes) -> None:
    service.homeserver.script = serving(content)
    assert (await get(service, f"client/v1/media/{path}")).matrix_error == (403, "M_FORBIDDEN")


async def test_the_homeservers_refusal_comes_through(service: Service) -> None:
    service.homeserver.script = refusing("504 Gateway Timeout", "M_NOT_YET_UPLOADED")
    reply = await get(service, "client/v1/media/download/example.org/abc")
    assert reply.matrix_error == (504, "M_NOT_YET_UPLOADED")
    assert reply.content["error"] == "No"


async def test_not_modified_is_answered_under_a_current_verdict_alone(service: Service) -> None:
    path = "client/v1/media/download/example.org/abc"
    etag = (await get(service, path)).header("etag")
    assert etag is not None
    known = await get(service, path, If_None_Match=f'"other", W/{etag}')
    assert (known.status, known.body, known.header("etag")) == (304, b"", etag)
    assert [heard.header("if-none-match") for heard in service.homeserver.heard] == [None, None]
    service.homeserver.script = serving(EICAR)
    assert (await get(service, path, If_None_Match=etag)).status == 403


@pytest.mark.parametrize(("theirs", "smaller"), [(50 * MIB, 4 * MIB), (MIB, MIB), (None, 4 * MIB)])
async def test_config_says_the_smaller_limit(service: Service, theirs: int | None, smaller: int) -> None:
    service.homeserver.script = lambda heard: json_reply({"m.upload.size": theirs, "more": 1})
    reply = await get(service, "client/v1/media/config")
    assert reply.content == {"m.upload.size": smaller, "more": 1}


async def test_a_preview_passes(service: Service) -> None:
    preview = {"og:title": "x", "og:image": "mxc://example.org/abc"}
    service.homeserver.script = lambda heard: json_reply(preview)
    reply = await get(service, "media/v3/preview_url?url=https%3A%2F%2Fexample.org")
    assert reply.content == preview
    assert service.homeserver.lines == ["GET /_matrix/media/v3/preview_url?url=https%3A%2F%2Fexample.org"]


async def test_an_observing_policy_hands_over(serve: Serve) -> None:
    service = await serve(policy=Policy(observe=True))
    service.homeserver.script = serving(EICAR)
    assert (await get(service, "media/v3/download/example.org/abc")).body == EICAR
