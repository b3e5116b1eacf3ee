"""The homeserver's download routes, on real sockets."""

from __future__ import annotations

import hashlib

import pytest

from scanner.admission import Reservation, Share, Slot, Slots
from scanner.events import Answered, Detected, Observed, Scanned
from scanner.upstream.connection import Timers
from scanner.verdict import Outcome, Policy
from tests.fake_homeserver import (
    FOREVER,
    PNG,
    FakeHomeserver,
    Script,
    Then,
    head,
    media_head,
    redirecting,
    refusing,
    saying,
    serving,
)
from tests.raw_client import Reply, request
from tests.real_clamd import EICAR
from tests.web.service import ALICE, CIPHERTEXT, FORBIDDEN, LOCKED, MIB, Attachment, Serve, Service
from tests.web.test_uploads import json_reply, stored, storing, upload

PREFIXES = ["client/v1/media", "media/v3", "media/r0", "media/v1"]
DOWNLOAD = "client/v1/media/download/example.org/abc"
PATHS = ["download/example.org/abc", "download/example.org/abc/a.png", "thumbnail/example.org/abc"]
M_FORBIDDEN = (403, "M_FORBIDDEN")


async def get(
    service: Service, path: str, method: str = "GET", token: str | None = ALICE, **headers: str
) -> Reply:
    return await service.ask(request(f"/_matrix/{path}", token, method=method, body=None, **headers))


# -- what is handed over, and what is not --------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prefix", PREFIXES)
async def test_clean_media_are_handed_over_from_where_they_were_asked(
    service: Service, prefix: str, path: str
) -> None:
    reply = await get(service, f"{prefix}/{path}?width=1&allow_remote=false")
    assert (reply.status, reply.body) == (200, PNG)
    assert service.homeserver.lines == [f"GET /_matrix/{prefix}/{path}?width=1&allow_remote=false"]
    assert service.idle


@pytest.mark.parametrize("content", [EICAR, FORBIDDEN, LOCKED])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_withheld_media_are_forbidden(service: Service, method: str, path: str, content: bytes) -> None:
    service.homeserver.script = serving(content)
    reply = await get(service, f"client/v1/media/{path}", method)
    assert reply.status == 403
    assert method == "HEAD" or reply.matrix_error == M_FORBIDDEN
    assert content not in reply.body


async def test_a_failed_engine_hands_over_nothing_and_asks_to_come_back(service: Service) -> None:
    service.engine.problem = RuntimeError("away")
    reply = await get(service, DOWNLOAD)
    assert reply.matrix_error == (503, "M_UNKNOWN")
    assert reply.header("retry-after")


async def test_a_head_runs_the_whole_get_and_leaves_the_body_out(service: Service) -> None:
    got, headed = await get(service, DOWNLOAD), await get(service, DOWNLOAD, "HEAD")
    assert (headed.status, headed.body) == (200, b"")
    assert headed.header("content-length") == str(len(PNG))
    assert headed.header("etag") == got.header("etag")
    assert service.homeserver.lines == [f"GET /_matrix/{DOWNLOAD}"] * 2


async def test_a_thumbnail_is_judged_by_its_own_bytes(service: Service) -> None:
    service.homeserver.script = lambda heard: serving(PNG if "thumbnail" in heard.target else EICAR)(heard)
    assert (await get(service, DOWNLOAD)).status == 403
    assert (await get(service, DOWNLOAD.replace("download", "thumbnail"))).status == 200


async def test_an_observing_policy_hands_over(serve: Serve) -> None:
    service = await serve(policy=Policy(observe=True))
    service.homeserver.script = serving(EICAR)
    assert (await get(service, "media/v3/download/example.org/abc")).body == EICAR
    assert service.of(Observed)


async def test_a_detection_is_told_with_the_media_and_the_route(service: Service) -> None:
    service.homeserver.script = serving(EICAR)
    await get(service, f"{DOWNLOAD}/a%20b")
    (detected,), (answered,) = service.of(Detected), service.of(Answered)
    assert str(detected.occasion.ref) == "mxc://example.org/abc"
    assert answered.route == "/_matrix/client/v1/media/download/{server}/{media}/{filename}"
    assert answered.reason == "M_FORBIDDEN"


# -- what may be ciphertext ----------------------------------------------------------------------


@pytest.mark.parametrize("deliver", [True, False])
@pytest.mark.parametrize("path", PATHS)
async def test_the_policy_decides_on_opaque_downloads(serve: Serve, path: str, *, deliver: bool) -> None:
    service = await serve(policy=Policy(deliver_opaque_downloads=deliver))
    service.homeserver.script = serving(CIPHERTEXT)
    reply = await get(service, f"client/v1/media/{path}")
    assert (reply.status, reply.body == CIPHERTEXT) == ((200, True) if deliver else (403, False))
    assert deliver or reply.matrix_error == M_FORBIDDEN
    (scanned,) = service.of(Scanned)
    assert (scanned.verdict.outcome, scanned.encrypted) == (Outcome.OPAQUE, False)


@pytest.mark.parametrize("deliver", [True, False])
async def test_the_policy_decides_on_opaque_uploads(serve: Serve, *, deliver: bool) -> None:
    service = await serve(policy=Policy(deliver_opaque_uploads=deliver))
    service.homeserver.script = storing()
    reply = await upload(service, CIPHERTEXT)
    assert (reply.status, len(stored(service))) == ((200, 1) if deliver else (403, 0))


async def test_an_opaque_download_makes_nothing_of_its_content_known(serve: Serve) -> None:
    """Neither here, where the same bytes may be asked as what they are, nor with the key."""
    service = await serve(policy=Policy(deliver_opaque_downloads=True))
    attachment = Attachment.of(EICAR)
    service.homeserver.script = serving(attachment.ciphertext)
    assert (await get(service, DOWNLOAD)).status == 200
    refused = await service.post("/download_encrypted", attachment.json)
    assert refused.refusal == (403, "MCS_MEDIA_NOT_CLEAN")

    service.homeserver.script = serving(CIPHERTEXT)
    assert (await get(service, DOWNLOAD)).status == 200
    scans = service.engine.scans
    assert (await service.get("/download/example.org/abc")).status == 200
    assert service.engine.scans == scans + 1


async def test_an_opaque_thumbnail_is_no_clean_one_for_who_withholds_them(service: Service) -> None:
    service.homeserver.script = serving(CIPHERTEXT)
    assert (await service.get("/thumbnail/example.org/abc")).status == 200  # the scanner API: a plaintext
    reply = await get(service, DOWNLOAD.replace("download", "thumbnail"))
    assert reply.matrix_error == M_FORBIDDEN


# -- what is asked of the homeserver -------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "passed_on"),
    [
        ("timeout_ms=99999", "timeout_ms=20000"),
        ("timeout_ms=5", "timeout_ms=5"),
        ("timeout_ms=%39%39999", "timeout_ms=20000"),
        ("timeout_ms=+99999", "timeout_ms=20000"),
        ("timeout%5fms=99999", "timeout%5fms=20000"),
        ("timeout_ms=" + "9" * 5000, "timeout_ms=" + "9" * 5000),
        ("timeout_ms=x&timeout_ms", "timeout_ms=x&timeout_ms="),
        ("allow_redirect=true&width=1", "width=1"),
        ("%61llow_redirect=true;width=1", "width=1"),
        ("width=%41&&method=crop&animated=true&x", "width=%41&method=crop&animated=true&x"),
        ("access_token=alice&width=1", "width=1"),
    ],
)
async def test_the_query_goes_on_but_for_what_is_ours(service: Service, asked: str, passed_on: str) -> None:
    await get(service, f"{DOWNLOAD}?{asked}")
    assert service.homeserver.lines == [f"GET /_matrix/{DOWNLOAD}?{passed_on}"]


async def test_a_token_in_the_query_becomes_a_header(service: Service) -> None:
    await get(service, f"{DOWNLOAD}?access_token={ALICE}", token=None)
    (heard,) = service.homeserver.heard
    assert (heard.header("authorization"), ALICE in heard.target) == (f"Bearer {ALICE}", False)


async def test_what_a_browser_asks_of_caches_and_ranges_is_not_passed_on(service: Service) -> None:
    conditions = {"If_None_Match": '"1"', "If_Modified_Since": "x", "Range": "bytes=0-3", "Cookie": "a=b"}
    reply = await get(service, DOWNLOAD, **conditions)
    assert (reply.status, reply.body) == (200, PNG)
    (heard,) = service.homeserver.heard
    assert not {name for name, _ in heard.headers} & {"if-none-match", "if-modified-since", "range", "cookie"}


async def test_a_percent_encoded_name_is_asked_decoded(service: Service) -> None:
    await get(service, "media/v3/download/example.org%3A8448/%61bc/r%C3%A9sum%c3%a9%2F.png")
    assert service.homeserver.lines == [
        "GET /_matrix/media/v3/download/example.org:8448/abc/r%C3%A9sum%C3%A9%2F.png"
    ]


@pytest.mark.parametrize(
    "path",
    [
        "client/v1/media/download/example.org/..",
        "client/v1/media/download/example.org/%2e%2e",
        "client/v1/media/download/example.org/%252e%252e",
        "client/v1/media/download/example.org/..%2f..%2f..%2fv3%2faccount",
        "client/v1/media/download/../abc",
        "client/v1/media/download/.example.org/abc",
        "client/v1/media/download/example.org%2f..%2f/abc",
        "client/v1/media/download/example.org/a%00b",
        "client/v1/media/download/example.org/abc/..",
        "client/v1/media/download/example.org/abc/%2E%2e",
        "client/v1/media/download/bad_server!/abc",
        "client/v1/media/download/[::1/abc",
        "client/v1/media/download//abc",
        "client/v1/media/thumbnail/example.org/" + "a" * 256,
        "media/v3/download/example.org/a%3fb",
    ],
)
async def test_a_path_that_names_no_media_is_not_asked(service: Service, path: str) -> None:
    assert (await get(service, path)).matrix_error == (404, "M_NOT_FOUND")
    assert service.homeserver.heard == []


@pytest.mark.parametrize(
    "path",
    [
        "client/v1/media/download/example.org",
        "client/v1/media/download/example.org/abc/a/b",
        "client/v1/media/download/../../../../v3/account/whoami",
        "client//v1/media/download/example.org/abc",
        "client/v1/media/..;/download/example.org/abc",
        "client/v1/%6dedia/download/example.org/abc",
        "client/unstable/org.matrix.msc3916/media/download/example.org/abc",
        "client/v1/media/upload",
        "client/v3/sync",
        "media/v4/download/example.org/abc",
        "media/v3/thumbnail/example.org/abc/a.png",
    ],
)
async def test_what_is_not_ours_is_never_relayed(service: Service, path: str) -> None:
    reply = await get(service, path)
    assert (reply.status, reply.unrecognized) == (404, True)
    assert service.homeserver.heard == []
    assert [answered.route for answered in service.of(Answered)] == ["unknown"]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_another_token_is_no_other_turn_where_nobody_looks_at_tokens(
    service: Service, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else anybody could be as many callers as he likes."""
    for_room, for_slots = set[str](), set[str]()
    reserve_at_once, take = Share.reserve_at_once, Slots.take

    def reserving(share: Share, size: int, caller: str = "") -> Reservation | None:
        for_room.add(caller)
        return reserve_at_once(share, size, caller)

    async def scanning(slots: Slots, size: int, caller: str = "") -> Slot:
        for_slots.add(caller)
        return await take(slots, size, caller)

    monkeypatch.setattr(Share, "reserve_at_once", reserving)
    monkeypatch.setattr(Slots, "take", scanning)
    for token in "12":
        service.homeserver.script = serving(token.encode())
        reply = await get(service, f"{prefix}/download/example.org/{token}", token=token)
        assert reply.status == 200

    checked = prefix == "client/v1/media"
    assert for_room == for_slots == ({"Bearer 1", "Bearer 2"} if checked else {"127.0.0.1"})


async def test_a_redirect_to_a_listed_host_is_followed_without_the_token(serve: Serve) -> None:
    async with FakeHomeserver() as cdn:
        service = await serve(redirect_hosts=frozenset({f"127.0.0.1:{cdn.port}"}))
        service.homeserver.script = redirecting(f"{cdn.url}/file?signature=1")
        assert (await get(service, f"{DOWNLOAD}?allow_redirect=true")).body == PNG
        cdn.script = serving(EICAR)
        assert (await get(service, DOWNLOAD)).matrix_error == M_FORBIDDEN
        assert [heard.header("authorization") for heard in cdn.heard] == [None, None]
        assert cdn.lines == ["GET /file?signature=1"] * 2


@pytest.mark.parametrize("status", ["301 M", "302 F", "307 T", "308 P"])
async def test_a_redirect_to_any_other_host_is_neither_followed_nor_handed_on(
    service: Service, status: str
) -> None:
    async with FakeHomeserver() as stranger:
        service.homeserver.script = redirecting(f"{stranger.url}/file", status)
        reply = await get(service, DOWNLOAD)
        assert reply.matrix_error == (502, "M_UNKNOWN")
        assert reply.header("location") is None
        assert stranger.heard == []


# -- what the homeserver says --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "content"),
    [
        ("400 Bad Request", {"errcode": "M_INVALID_PARAM", "error": "No"}),
        ("401 Unauthorized", {"errcode": "M_UNKNOWN_TOKEN", "error": "No", "soft_logout": True}),
        ("403 Forbidden", {"errcode": "ORG_EXAMPLE_NO", "error": "No"}),
        ("404 Not Found", {"errcode": "M_NOT_FOUND", "error": "No"}),
        ("413 Too Large", {"errcode": "M_TOO_LARGE", "error": "No"}),
        ("429 Slow", {"errcode": "M_LIMIT_EXCEEDED", "error": "No", "retry_after_ms": 2000}),
        ("500 Oops", {"errcode": "M_UNKNOWN", "error": "No"}),
        ("502 Bad Gateway", {"errcode": "M_TOO_LARGE", "error": "No"}),
        ("504 Gateway Timeout", {"errcode": "M_NOT_YET_UPLOADED", "error": "No"}),
    ],
)
@pytest.mark.parametrize("path", [DOWNLOAD, "media/v3/thumbnail/example.org/abc", "media/r0/config"])
async def test_the_homeservers_refusal_comes_through_in_its_own_words(
    service: Service, path: str, status: str, content: dict[str, object]
) -> None:
    service.homeserver.script = lambda heard: json_reply(content, f"{status}\r\nRetry-After: 2")
    reply = await get(service, path)
    assert (reply.status, reply.content) == (int(status[:3]), content)
    assert reply.header("retry-after") == "2"
    assert len(service.homeserver.heard) == 1


@pytest.mark.parametrize(
    ("script", "refusal"),
    [
        (refusing("404 Not Found"), (404, "M_NOT_FOUND")),
        (refusing("502 Bad Gateway"), (502, "M_UNKNOWN")),
        (refusing("504 Gateway Timeout"), (502, "M_UNKNOWN")),
        (refusing("429 Slow"), (429, "M_LIMIT_EXCEEDED")),
        (saying(media_head(100) + b"too short", Then.HANG_UP), (502, "M_UNKNOWN")),
        (saying(head(headers=[("Content-Length", "9"), ("Content-Encoding", "gzip")])), (502, "M_UNKNOWN")),
        (saying(media_head(5 * MIB)), (502, "M_TOO_LARGE")),
        (saying(FOREVER), (504, "M_UNKNOWN")),
    ],
)
async def test_what_the_homeserver_does_wrong_is_said_in_ours(
    serve: Serve, script: Script, refusal: tuple[int, str]
) -> None:
    service = await serve(timers=Timers(0.3, 0.3, 0.3))
    service.homeserver.script = script
    assert (await get(service, DOWNLOAD)).matrix_error == refusal


async def test_a_request_ends_at_its_deadline_whatever_it_waits_for(serve: Serve) -> None:
    service = await serve(request_timeout=0.3)
    service.homeserver.script = saying(FOREVER)
    assert (await get(service, DOWNLOAD)).matrix_error == (504, "M_UNKNOWN")
    service.homeserver.script = serving(PNG)
    service.engine.gate.clear()
    late = await get(service, DOWNLOAD)
    assert late.matrix_error == (503, "M_UNKNOWN")
    assert late.header("retry-after")
    service.engine.gate.set()


# -- headers -------------------------------------------------------------------------------------


async def test_headers_are_built_and_not_relayed(service: Service) -> None:
    hostile = {"Set_Cookie": "a=b", "ETag": "1", "Server": "x", "Content_Security_Policy": "none"}
    service.homeserver.script = serving(
        PNG, "text/html", Content_Disposition='inline; filename="a.html"', **hostile
    )
    reply = await get(service, DOWNLOAD)
    assert reply.header("set-cookie") is None
    assert reply.header("content-disposition") == "attachment; filename*=UTF-8''a.html"
    assert (reply.header("content-security-policy") or "").startswith("sandbox;")
    assert reply.header("cross-origin-resource-policy") == "cross-origin"
    assert reply.header("x-robots-tag") == "noindex, nofollow, noarchive, noimageindex"


async def test_not_modified_is_answered_under_a_current_verdict_alone(service: Service) -> None:
    etag = (await get(service, DOWNLOAD)).header("etag")
    assert etag is not None
    for tags in (etag, f'"other", W/{etag}', f'"other"\r\nIf-None-Match: {etag}'):
        known = await get(service, DOWNLOAD, If_None_Match=tags)
        assert (known.status, known.body, known.header("etag")) == (304, b"", etag)
    assert (await get(service, DOWNLOAD, If_None_Match=etag.strip('"'))).status == 200
    assert len(service.homeserver.heard) == 5
    service.homeserver.script = serving(PNG + b"changed")
    assert (await get(service, DOWNLOAD, If_None_Match=etag)).status == 200
    assert service.idle


async def test_not_modified_is_not_said_of_what_is_withheld(service: Service) -> None:
    """Not even to somebody who has it since it was clean."""
    etag = (await get(service, DOWNLOAD)).header("etag")
    assert etag is not None
    service.homeserver.script = refusing("401 Unauthorized", "M_UNKNOWN_TOKEN")
    assert (await get(service, DOWNLOAD, If_None_Match=etag)).matrix_error == (401, "M_UNKNOWN_TOKEN")
    service.homeserver.script = serving(EICAR)
    known = hashlib.sha256(EICAR).hexdigest()[:32]
    assert (await get(service, DOWNLOAD, If_None_Match=f'"{known}"')).matrix_error == M_FORBIDDEN


async def test_a_preflight_allows_what_these_routes_take(service: Service) -> None:
    reply = await get(service, DOWNLOAD, "OPTIONS")
    assert (reply.status, reply.header("access-control-allow-methods")) == (204, "GET, POST, PUT, OPTIONS")
    assert service.homeserver.heard == []


# -- what is no media ----------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("theirs", "smaller"), [(50 * MIB, 4 * MIB), (MIB, MIB), (None, 4 * MIB)])
async def test_config_says_the_smaller_limit(
    service: Service, prefix: str, theirs: int | None, smaller: int
) -> None:
    service.homeserver.script = lambda heard: json_reply({"m.upload.size": theirs, "more": 1})
    reply = await get(service, f"{prefix}/config")
    assert reply.content == {"m.upload.size": smaller, "more": 1}
    assert service.homeserver.lines == [f"GET /_matrix/{prefix}/config"]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_preview_passes_and_its_picture_is_judged(service: Service, prefix: str) -> None:
    preview = {"og:title": "x", "og:image": "mxc://example.org/2026-11-21_abc"}
    service.homeserver.script = lambda heard: json_reply(preview)
    reply = await get(service, f"{prefix}/preview_url?url=https%3A%2F%2Fexample.org&ts=1")
    assert reply.content == preview
    assert service.homeserver.lines == [
        f"GET /_matrix/{prefix}/preview_url?url=https%3A%2F%2Fexample.org&ts=1"
    ]
    service.homeserver.script = serving(EICAR)
    picture = preview["og:image"].removeprefix("mxc://")
    assert (await get(service, f"{prefix}/download/{picture}")).matrix_error == M_FORBIDDEN


async def test_a_preview_that_is_no_json_is_not_handed_on(service: Service) -> None:
    service.homeserver.script = serving(b"<html>", "text/html")
    assert (await get(service, "client/v1/media/preview_url?url=x")).matrix_error == (502, "M_UNKNOWN")
