"""The federation's media routes, on real sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scanner.events import Answered, Detected, Rejected, Scanned, Source
from scanner.verdict import Policy
from tests.fake_homeserver import FOREVER, PNG, FakeHomeserver, Then, head, refusing, saying, serving
from tests.multipart import OBJECT, content_of, federated_head, federating, form, part, parts_of
from tests.raw_client import Reply, request
from tests.real_clamd import EICAR
from tests.web.service import FORBIDDEN, LOCKED, MIB, Serve, Service

PATHS = ["download/abc", "thumbnail/abc"]
SIGNED = 'X-Matrix origin="them.example",destination="example.org:8448",key="ed25519:1",sig="AbC+/"'


@pytest.fixture
def homeserver(service: Service) -> FakeHomeserver:
    service.homeserver.script = federating(OBJECT, part(PNG))
    return service.homeserver


async def get(service: Service, path: str, authorization: str | None = SIGNED, method: str = "GET") -> Reply:
    headers = {} if authorization is None else {"Authorization": authorization}
    target = f"/_matrix/federation/v1/media/{path}"
    return await service.ask(request(target, method=method, body=None, **headers))


def received(reply: Reply) -> tuple[dict[str, Any], dict[str, str], bytes]:
    """The object, and the headers and bytes of the media, as Python's own parser sees them."""
    assert reply.status == 200
    metadata, media = parts_of(reply.header("content-type") or "", reply.body)
    assert dict(metadata.items()) == {"Content-Type": "application/json"}
    return json.loads(content_of(metadata)), dict(media.items()), content_of(media)


@pytest.mark.parametrize("path", PATHS)
async def test_clean_media_are_handed_over_as_parts_of_our_own(
    service: Service, homeserver: FakeHomeserver, path: str
) -> None:
    homeserver.script = federating(
        b'Content-Type: application/json\r\n\r\n{"a": 1}',
        part(PNG, "image/PNG; q=1", Content_Disposition="inline; filename=a.png", X_More="1"),
    )
    reply = await get(service, path)
    headers = {"Content-Type": "image/png", "Content-Disposition": "inline; filename*=UTF-8''a.png"}
    assert received(reply) == ({"a": 1}, headers, PNG)
    assert reply.header("cache-control") == "no-store"
    assert reply.header("etag") is None
    assert service.idle
    assert [scanned.source for scanned in service.of(Scanned)] == [Source.FEDERATION]


async def test_synapse_finds_the_boundary(service: Service, homeserver: FakeHomeserver) -> None:
    """It takes all that stands behind `boundary=`, and it is another one each time."""
    replies = [await get(service, "download/abc") for _ in range(2)]
    boundaries = [(reply.header("content-type") or "").split("boundary=")[1] for reply in replies]
    assert all(
        reply.body.startswith(f"--{boundary}\r\n".encode())
        for reply, boundary in zip(replies, boundaries, strict=True)
    )
    assert len(set(boundaries)) == 2


@pytest.mark.parametrize("size", [0, 1, 128 * 1024 - 300, 128 * 1024, 3 * MIB])
async def test_media_of_every_size_are_handed_over_whole(service: Service, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    service.homeserver.script = federating(OBJECT, part(content))
    assert received(await get(service, "download/abc"))[2] == content


@pytest.mark.parametrize(
    ("content_type", "disposition", "served"),
    [
        ("text/html", "inline; filename=a.html", ("text/html", "attachment; filename*=UTF-8''a.html")),
        (None, None, ("application/octet-stream", "attachment")),
        (
            "x",
            "attachment; filename*=utf-8''%C3%A9",
            ("application/octet-stream", "attachment; filename*=UTF-8''%C3%A9"),
        ),
    ],
)
async def test_the_headers_of_the_media_part_are_built(
    service: Service, content_type: str | None, disposition: str | None, served: tuple[str, str]
) -> None:
    named = {} if disposition is None else {"Content_Disposition": disposition}
    service.homeserver.script = federating(OBJECT, part(PNG, content_type, **named))
    _, headers, _ = received(await get(service, "download/abc"))
    assert (headers["Content-Type"], headers["Content-Disposition"]) == served


@pytest.mark.parametrize("content", [EICAR, FORBIDDEN, LOCKED])
@pytest.mark.parametrize("path", PATHS)
async def test_withheld_media_are_forbidden(service: Service, path: str, content: bytes) -> None:
    service.homeserver.script = federating(OBJECT, part(content))
    assert (await get(service, path)).matrix_error == (403, "M_FORBIDDEN")


async def test_an_observing_policy_hands_over(serve: Serve) -> None:
    service = await serve(policy=Policy(observe=True))
    service.homeserver.script = federating(OBJECT, part(EICAR))
    assert received(await get(service, "download/abc"))[2] == EICAR


# -- what is signed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "download/abc?timeout_ms=20000",
        "download/abc?timeout_ms=99999999&timeout_ms=%31",
        "download/%61bc?a=%2f%zz&&b;c=+&d=%C3%A9&=&allow_redirect=true",
        "thumbnail/abc?width=1&height=2&method=crop&animated=true",
        "thumbnail/abc?a?b=/&c=\"<>{}|^`'\\",
        "download/abc?access_token=x;b",
    ],
)
async def test_what_is_signed_goes_on_byte_for_byte(
    service: Service, homeserver: FakeHomeserver, target: str
) -> None:
    assert (await get(service, target)).status == 200
    assert homeserver.lines == [f"GET /_matrix/federation/v1/media/{target}"]
    assert homeserver.heard[0].header("authorization") == SIGNED
    assert homeserver.heard[0].header("x-forwarded-for") == "127.0.0.1"


async def test_head_is_the_whole_get_without_the_body(service: Service, homeserver: FakeHomeserver) -> None:
    reply = await get(service, "download/abc", method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.length > len(PNG)
    assert homeserver.lines == ["GET /_matrix/federation/v1/media/download/abc"]


@pytest.mark.parametrize(
    "media", ["", "a%2Fb", "%2e%2e", "..", "a.b", "a%00", "a%ff", "x" * 256, "example.org/abc"]
)
async def test_what_can_be_no_media_is_not_asked_for(
    service: Service, homeserver: FakeHomeserver, media: str
) -> None:
    reply = await get(service, f"download/{media}")
    assert reply.status == 404
    assert homeserver.heard == []


@pytest.mark.parametrize("authorization", [None, SIGNED, "X-Matrix nonsense", "Bearer abc"])
@pytest.mark.parametrize(("status", "code"), [(400, "M_UNAUTHORIZED"), (401, "M_UNAUTHORIZED")])
async def test_the_homeserver_judges_the_signature(
    service: Service, authorization: str | None, status: int, code: str
) -> None:
    service.homeserver.script = refusing(f"{status} No", code)
    reply = await get(service, "download/abc?x", authorization)
    assert reply.matrix_error == (status, code)
    assert service.homeserver.heard[0].header("authorization") == authorization


async def test_a_token_in_the_query_of_an_unsigned_request_goes_into_no_url(
    service: Service, homeserver: FakeHomeserver
) -> None:
    await get(service, "download/abc?a=1&access_token=SECRET", None)
    assert homeserver.lines == ["GET /_matrix/federation/v1/media/download/abc?a=1"]


async def test_two_signatures_are_malformed(service: Service, homeserver: FakeHomeserver) -> None:
    twice = f"{SIGNED}\r\nAuthorization: {SIGNED}"
    assert (await get(service, "download/abc", twice)).matrix_error == (400, "M_UNKNOWN")
    assert homeserver.heard == []


# -- whose media, for the audit ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "mxc"),
    [
        (SIGNED, "mxc://example.org:8448/abc"),
        ("X-Matrix origin=a,destination=b,key=k,sig=s", "mxc://b/abc"),
        ('X-Matrix origin="a",key="k",sig="s"', "None"),
        ('X-Matrix origin="a",destination="../b",key="k"', "None"),
        ('X-Matrix origin="a",destination=""', "None"),
        (None, "None"),
    ],
)
async def test_the_media_are_those_of_the_server_that_was_addressed(
    service: Service, authorization: str | None, mxc: str
) -> None:
    service.homeserver.script = federating(OBJECT, part(EICAR))
    await get(service, "download/abc", authorization)
    [detected], [answered] = service.of(Detected), service.of(Answered)
    assert (str(detected.occasion.ref), str(answered.ref)) == (mxc, mxc)
    assert answered.route == "/_matrix/federation/v1/media/download/{media}"


# -- refusals: whatever makes Synapse think that we are down is not used ------------------------


async def test_the_homeservers_refusal_comes_through(service: Service) -> None:
    service.homeserver.script = refusing("504 Gateway Timeout", "M_NOT_YET_UPLOADED")
    assert (await get(service, "download/abc")).matrix_error == (504, "M_NOT_YET_UPLOADED")
    service.homeserver.script = refusing("429 Too Many Requests", "M_LIMIT_EXCEEDED", Retry_After="7")
    reply = await get(service, "download/abc")
    assert (reply.matrix_error, reply.header("retry-after")) == ((429, "M_LIMIT_EXCEEDED"), "7")


async def test_media_over_the_limit_are_no_failure_of_the_whole_server(service: Service) -> None:
    service.homeserver.script = saying(federated_head(5 * MIB), FOREVER)
    assert (await get(service, "download/abc")).matrix_error == (413, "M_TOO_LARGE")
    assert [event.cause for event in service.of(Rejected)] == ["too_large"]


async def test_failed_engines_are_no_failure_of_the_whole_server(
    service: Service, homeserver: FakeHomeserver
) -> None:
    service.engine.problem = ValueError()
    reply = await get(service, "download/abc")
    assert (reply.matrix_error, reply.header("retry-after")) == ((403, "M_UNKNOWN"), "5")


async def test_overload_is_no_failure_of_the_whole_server(serve: Serve) -> None:
    service = await serve(queue_wait=0.1)
    service.homeserver.script = federating(OBJECT, part(PNG))
    share = service.budget.small
    with_all = await share.reserve(share.capacity, "somebody")
    reply = await get(service, "download/abc")
    assert (reply.matrix_error, reply.header("retry-after")) == ((403, "M_UNKNOWN"), "5")
    with_all.close()


@pytest.mark.parametrize(
    "script",
    [
        serving(EICAR, "text/plain"),
        federating(part(EICAR), OBJECT),
        federating(OBJECT, part(PNG), part(EICAR)),
        federating(OBJECT),
        federating(OBJECT, part(PNG, Content_Transfer_Encoding="base64")),
        saying(federated_head(10_000), form(OBJECT, part(EICAR)), Then.HANG_UP),
        saying(head("302 Found", [("Location", "http://192.0.2.1/abc"), ("Content-Length", "0")])),
        federating(OBJECT, part(EICAR, Location="http://192.0.2.1/abc")),
    ],
)
async def test_what_is_no_form_of_media_is_not_handed_over(service: Service, script: Any) -> None:
    service.homeserver.script = script
    reply = await get(service, "download/abc")
    assert reply.matrix_error == (403, "M_UNKNOWN")
    assert EICAR not in reply.body


async def test_media_at_a_listed_host_are_judged_and_handed_over_as_bytes(serve: Serve) -> None:
    async with FakeHomeserver() as cdn:
        service = await serve(redirect_hosts=frozenset({f"127.0.0.1:{cdn.port}"}))
        service.homeserver.script = federating(OBJECT, part(b"", None, Location=f"{cdn.url}/x"))
        cdn.script = serving(PNG)
        reply = await get(service, "download/abc")
        assert received(reply)[2] == PNG
        assert cdn.url.encode() not in reply.body
        cdn.script = serving(EICAR)
        assert (await get(service, "download/abc")).matrix_error == (403, "M_FORBIDDEN")


# -- servers that know no such route -------------------------------------------------------------


async def test_older_servers_ask_without_a_signature_where_users_did(service: Service) -> None:
    service.homeserver.script = serving(EICAR)
    target = "/_matrix/media/v3/download/example.org/abc?allow_remote=false&timeout_ms=20000"
    assert (await service.ask(request(target))).matrix_error == (403, "M_FORBIDDEN")
    assert service.homeserver.lines == [f"GET {target}"]
    assert service.homeserver.heard[0].header("authorization") is None
