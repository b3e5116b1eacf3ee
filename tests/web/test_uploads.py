"""The homeserver's upload routes, on real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from scanner.events import Answered, Detected, Source
from scanner.verdict import Policy
from tests.fake_homeserver import Heard, Script, Step, head, refusing, until
from tests.raw_client import Reply, connected, request
from tests.real_clamd import EICAR
from tests.web.service import ALICE, FORBIDDEN, LOCKED, MIB, Serve, Service

HEARD = Heard(b"POST / HTTP/1.1", 0)
UPLOAD = "/_matrix/media/v3/upload"
STORED = {"content_uri": "mxc://example.org/stored"}
ROUTES = [
    *(("POST", f"/_matrix/media/{version}/upload") for version in ("v3", "r0", "v1")),
    ("PUT", "/_matrix/media/v3/upload/example.org/abc"),
]


def json_reply(content: object, status: str = "200 OK") -> list[Step]:
    body = json.dumps(content).encode()
    return [head(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]), body]


def storing(limit: int = 50 * MIB, answer: list[Step] | None = None) -> Script:
    """A homeserver that knows everybody and takes everything."""

    def script(heard: Heard) -> Iterable[Step]:
        if heard.target.endswith("/config"):
            return json_reply({"m.upload.size": limit})
        return answer or json_reply(STORED)

    return script


async def upload(
    service: Service,
    body: bytes,
    token: str | None = ALICE,
    route: tuple[str, str] = ROUTES[0],
    **headers: str,
) -> Reply:
    method, target = route
    return await service.ask(request(target, token, method=method, body=body, **headers))


def stored(service: Service) -> list[Heard]:
    """What reached the homeserver."""
    return [heard for heard in service.homeserver.heard if heard.method != "GET"]


@pytest.mark.parametrize("route", ROUTES)
async def test_clean_media_are_forwarded_whole(service: Service, route: tuple[str, str]) -> None:
    service.homeserver.script = storing()
    method, target = route
    reply = await upload(
        service, b"clean" * 100_000, route=(method, f"{target}?filename=a%20b"), Content_Type="image/png"
    )
    assert (reply.status, reply.content) == (200, STORED)
    (heard,) = stored(service)
    assert (heard.method, heard.target) == (method, f"{target}?filename=a%20b")
    assert heard.body == b"clean" * 100_000
    assert heard.header("content-type") == "image/png"
    assert heard.header("content-length") == "500000"
    assert heard.header("transfer-encoding") is None
    assert heard.header("authorization") == f"Bearer {ALICE}"
    await until(lambda: service.idle)


@pytest.mark.parametrize("content", [EICAR, FORBIDDEN, LOCKED])
@pytest.mark.parametrize("route", ROUTES)
async def test_withheld_media_never_reach_the_homeserver(
    service: Service, route: tuple[str, str], content: bytes
) -> None:
    service.homeserver.script = storing()
    assert (await upload(service, content, route=route)).matrix_error == (403, "M_FORBIDDEN")
    assert not stored(service)
    await until(lambda: service.idle)


async def test_an_engine_that_fails_is_to_be_asked_again(service: Service) -> None:
    service.homeserver.script = storing()
    service.engine.problem = RuntimeError("broken")
    reply = await upload(service, b"clean")
    assert reply.matrix_error == (503, "M_UNKNOWN")
    assert reply.header("retry-after") == "5"
    assert not stored(service)


async def test_an_observing_policy_forwards_and_tells(serve: Serve) -> None:
    service = await serve(policy=Policy(observe=True))
    service.homeserver.script = storing()
    assert (await upload(service, EICAR)).status == 200
    assert len(stored(service)) == 1
    (detected,) = service.of(Detected)
    assert (detected.occasion.source, detected.occasion.ref) == (Source.UPLOAD, None)


async def test_a_stranger_is_refused_before_his_upload_is_read(service: Service) -> None:
    service.homeserver.script = refusing("401 Unauthorized", "M_UNKNOWN_TOKEN")
    async with connected(service.port) as client:
        await client.send(request(UPLOAD, "stranger", method="POST", Content_Length=str(MIB)))
        assert (await client.reply()).matrix_error == (401, "M_UNKNOWN_TOKEN")
    assert service.homeserver.lines == ["GET /_matrix/client/v1/media/config"]


async def test_without_a_token_nobody_is_asked(service: Service) -> None:
    assert (await upload(service, b"", None)).matrix_error == (401, "M_MISSING_TOKEN")
    assert not service.homeserver.heard


@pytest.mark.parametrize("limit", [MIB, 50 * MIB])
async def test_what_is_too_large_is_refused_by_its_declared_length(service: Service, limit: int) -> None:
    """Ours is 4 MiB; the homeserver's may be smaller."""
    service.homeserver.script = storing(limit)
    most = min(limit, 4 * MIB)
    async with connected(service.port) as client:
        await client.send(request(UPLOAD, ALICE, method="POST", Content_Length=str(most + 1)))
        assert (await client.reply()).matrix_error == (413, "M_TOO_LARGE")
    assert not stored(service)


async def test_an_encoded_upload_is_refused(service: Service) -> None:
    service.homeserver.script = storing()
    assert (await upload(service, b"x", Content_Encoding="gzip")).matrix_error == (415, "M_UNKNOWN")
    assert not service.homeserver.heard


@pytest.mark.parametrize("encodings", ["identity", "Identity"])
async def test_a_body_that_is_said_to_be_no_other_is_none(service: Service, encodings: str) -> None:
    service.homeserver.script = storing()
    assert (await upload(service, b"x", Content_Encoding=encodings)).status == 200


@pytest.mark.parametrize("content_type", ["image/\x80", "image/p\tng"])
async def test_a_type_that_cannot_be_handed_on_is_refused(service: Service, content_type: str) -> None:
    service.homeserver.script = storing()
    reply = await upload(service, b"x", Content_Type=content_type)
    assert reply.matrix_error == (400, "M_UNKNOWN")
    assert not service.homeserver.heard


@pytest.mark.parametrize(
    ("status", "answered"),
    [("413 Too Large", (413, "M_TOO_LARGE")), ("502 Bad Gateway", (502, "M_UNKNOWN"))],
)
async def test_what_a_proxy_before_the_homeserver_refuses_is_no_missing_media(
    service: Service, status: str, answered: tuple[int, str]
) -> None:
    service.homeserver.script = storing(answer=list(refusing(status)(HEARD)))
    assert (await upload(service, b"clean")).matrix_error == answered


async def test_the_homeservers_refusal_comes_through(service: Service) -> None:
    content = {"errcode": "M_LIMIT_EXCEEDED", "error": "Slow down", "retry_after_ms": 2000}
    service.homeserver.script = storing(answer=json_reply(content, "429 Too Many"))
    reply = await upload(service, b"clean")
    assert reply.matrix_error == (429, "M_LIMIT_EXCEEDED")
    assert reply.content == content


async def test_a_media_id_is_created(service: Service) -> None:
    created = {**STORED, "unused_expires_at": 1}
    service.homeserver.script = lambda heard: json_reply(created)
    reply = await service.ask(request("/_matrix/media/v1/create", ALICE, method="POST", body=b""))
    assert (reply.status, reply.content) == (200, created)
    assert service.homeserver.lines == ["POST /_matrix/media/v1/create"]


@pytest.mark.parametrize("target", [UPLOAD, "/_matrix/media/v1/create"])
async def test_the_audit_says_which_media_the_homeserver_made(service: Service, target: str) -> None:
    service.homeserver.script = storing()
    await upload(service, b"clean", route=("POST", target))
    assert [str(answered.ref) for answered in service.of(Answered)] == ["mxc://example.org/stored"]
