from __future__ import annotations

import pytest

from scanner.web.routes import API, Route, Router, split_target
from tests.fake_homeserver import PNG
from tests.raw_client import request
from tests.web.service import Service

MEDIA_ROUTES = ["scan", "download", "thumbnail"]
TARGET = "/_matrix/client/v1/media/download/"


# -- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "split"),
    [
        ("/a/b", ("/a/b", "", None)),
        ("/a/b?c=%41&d", ("/a/b", "c=%41&d", None)),
        ("/a?b?c", ("/a", "b?c", None)),
        ("/a?access_token=x", ("/a", "", "x")),
        ("/a?b=1&access_token=x%2By&c=2", ("/a", "b=1&c=2", "x+y")),
        ("/a?access%5ftoken=x", ("/a", "", "x")),
        ("/a?b=1;access_token=x;c", ("/a", "b=1&c", "x")),
        ("/a?access_token=x&access_token=y", ("/a", "", "y")),
        ("/a?access_token", ("/a", "", "")),
        ("/a?access_tokens=x", ("/a", "access_tokens=x", None)),
        ("/a?b&&c", ("/a", "b&c", None)),
        ("/a#b?c", ("/a", "", None)),
        ("/a?b#c", ("/a", "b", None)),
        ("//evil/a", ("//evil/a", "", None)),
        ("http://host/a?b", ("/a", "b", None)),
        ("HTTPS://user@host:1/a?access_token=x", ("/a", "", "x")),
        ("http://host", ("", "", None)),
        ("http://host/a?url=https://b.example/c", ("/a", "url=https://b.example/c", None)),
        ("xhttp://host/a", ("xhttp://host/a", "", None)),
        ("http://[/a", ("/a", "", None)),
        ("*", ("*", "", None)),
        ("host:443", ("host:443", "", None)),
    ],
)
def test_a_target_is_split_and_not_decoded(target: str, split: tuple[str, str, str | None]) -> None:
    assert split_target(target) == split


# -- the table -----------------------------------------------------------------------------------


async def _nobody(*_: object) -> None:
    raise AssertionError


def test_segments_are_as_they_came() -> None:
    route = Route("GET", "/a.b/{one}/{two}", _nobody)  # type: ignore[arg-type]
    assert route.segments("/a.b/%2F/..") == {"one": "%2F", "two": ".."}
    assert route.segments("/a.b//") == {"one": "", "two": ""}
    assert route.segments("/axb/1/2") is None
    assert route.segments("/a.b/1") is None
    assert route.segments("/a.b/1/2/3") is None
    assert Router([route]).find("/a.b/1/2/") == (route, {"one": "1", "two": "2"})


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path",
    ["/", "/_matrix/client/versions", f"{API}/", f"{API}/scanner", f"{API}/public_key/x", f"{API}/%73can"],
)
async def test_an_unknown_route_is_unrecognized(service: Service, method: str, path: str) -> None:
    reply = await service.ask(request(path, method=method))
    assert reply.status == 404
    assert method == "HEAD" or reply.unrecognized


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path", ["/public_key", "/scan/a/b", "/download/a/b", "/download/a/b/c", "/thumbnail/a/b", "/scan/a"]
)
async def test_another_method_is_not_allowed_on_a_get_route(service: Service, method: str, path: str) -> None:
    reply = await service.get(path, method=method)
    assert reply.status == 405
    assert reply.unrecognized
    assert reply.header("allow") == "GET, HEAD, OPTIONS"
    assert service.homeserver.heard == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/scan_encrypted", "/download_encrypted"])
async def test_another_method_is_not_allowed_on_a_post_route(
    service: Service, method: str, path: str
) -> None:
    reply = await service.get(path, method=method)
    assert reply.status == 405
    assert method == "HEAD" or reply.unrecognized
    assert reply.header("allow") == "POST, OPTIONS"


@pytest.mark.parametrize(
    "path", ["/public_key", "/scan/a/b", "/download/a/b/c", "/thumbnail/a/b", "/scan_encrypted", "/scan/a/b/"]
)
async def test_a_preflight_is_allowed(service: Service, path: str) -> None:
    """What all answers have in common is checked for every reply."""
    reply = await service.get(
        path,
        None,
        method="OPTIONS",
        Origin="https://app.example",
        Access_Control_Request_Method="GET",
        Access_Control_Request_Headers="authorization",
    )
    assert (reply.status, reply.body) == (204, b"")
    assert reply.header("access-control-allow-credentials") is None
    assert service.homeserver.heard == []


# -- paths that name media -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "relayed"),
    [
        ("example.org/abc", "example.org/abc"),
        ("example.org/abc/", "example.org/abc"),
        ("example.org/abc/a.png", "example.org/abc/a.png"),
        ("example.org/abc/a.png/", "example.org/abc/a.png"),
        ("example.org/abc/a%20b%2F%2e%2e", "example.org/abc/a%20b%2F.."),
        ("example.org/abc/%2e%2e%2e", "example.org/abc/..."),
        ("example.org/abc/%FF", "example.org/abc/%EF%BF%BD"),
        ("example.org%3A8448/abc", "example.org:8448/abc"),
        ("example.org%3a8448/%41bc", "example.org:8448/Abc"),
        ("[2001:db8::1]:8448/abc", "[2001:db8::1]:8448/abc"),
        ("%5B2001:db8::1%5D/abc", "[2001:db8::1]/abc"),
        ("example.org/" + "a" * 255, "example.org/" + "a" * 255),
    ],
)
async def test_media_are_asked_for_under_one_name(service: Service, path: str, relayed: str) -> None:
    reply = await service.get(f"/download/{path}")
    assert reply.body == PNG
    assert service.homeserver.heard[0].target == TARGET + relayed


@pytest.mark.parametrize("form", ["http://scanner.example{}", "https://other.example:1{}"])
async def test_a_target_in_absolute_form_is_ours(service: Service, form: str) -> None:
    reply = await service.ask(request(form.format(f"{API}/download/example.org/abc")))
    assert reply.body == PNG


INVALID = [
    "..%2F..%2Fetc/passwd",
    "../abc",
    "%2e%2e/abc",
    "%2E./abc",
    ".example.org/abc",
    "./abc",
    "%252e%252e/abc",
    "example.org%253A8448/abc",
    "example.org/%2e%2e",
    "example.org/..",
    "example.org/.",
    "example.org/a%2Fb",
    "example.org/a%5Cb",
    "example.org/a%00",
    "example.org%00/abc",
    "example.org/a%0Ab",
    "example.org/abc%20",
    "example.org/%FF",
    "example.org/%",
    "example.org/abc%",
    "ex%E9mple.org/abc",
    "bad_server!/abc",
    "example.org:/abc",
    "example.org:123456/abc",
    "[::1/abc",
    "user@example.org/abc",
    "example.org/",
    "/abc",
    "//",
    "example.org/" + "a" * 256,
    "a" * 256 + "/abc",
    "example.org",
    "",
    "example.org/abc/a/b",
    "example.org/abc/a/b/c",
    "//example.org/abc",
]


@pytest.mark.parametrize("route", MEDIA_ROUTES)
async def test_a_path_that_names_no_media_is_not_found(service: Service, route: str) -> None:
    refusals = {path: (await service.get(f"/{route}/{path}")).refusal for path in INVALID}
    assert refusals == dict.fromkeys(INVALID, (404, "M_NOT_FOUND"))
    assert service.homeserver.heard == []


@pytest.mark.parametrize("route", ["scan", "thumbnail"])
async def test_only_a_download_has_a_file_name(service: Service, route: str) -> None:
    assert (await service.get(f"/{route}/example.org/abc/a.png")).refusal == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("name", [".", "..", "%2e%2e", "%2e"])
async def test_a_dot_segment_is_no_file_name(service: Service, name: str) -> None:
    assert (await service.get(f"/download/example.org/abc/{name}")).refusal == (404, "M_NOT_FOUND")
    assert service.homeserver.heard == []


@pytest.mark.parametrize("route", MEDIA_ROUTES)
async def test_nothing_behind_a_media_route_names_no_media(service: Service, route: str) -> None:
    assert (await service.get(f"/{route}")).refusal == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("path", ["/public_key/", "/scan/example.org/abc/", "/thumbnail/example.org/abc/"])
async def test_a_trailing_slash_makes_no_difference(service: Service, path: str) -> None:
    assert (await service.get(path)).status == 200
