"""Ways to write a path, for who wants to get around the product."""

from __future__ import annotations

from collections.abc import Iterator

from tests.e2e.reverse_proxy import HOST


def ways_around(media: str) -> Iterator[str]:
    """Every path to `media`, written in every way that something could read as that path."""
    media_id = media.partition("/")[2]
    for path in (
        f"/_matrix/client/v1/media/download/{media}",
        f"/_matrix/media/v3/download/{media}",
        f"/_matrix/media/r0/download/{media}",
        f"/_matrix/media/v1/download/{media}",
        f"/_matrix/federation/v1/media/download/{media_id}",
        f"/_matrix/client/unstable/org.matrix.msc3916/media/download/{media}",
        f"/_matrix/federation/unstable/org.matrix.msc3916.v2/media/download/{media_id}",
    ):
        yield path
        yield from _misspelt(path)
        yield from _with_detours(path)
    yield f"/_matrix/client/api/v1/media/download/{media}"
    yield f"/_matrix/client/unstable/media/download/{media}"
    yield f"/_matrix/media/unstable/download/{media}"


def _misspelt(path: str) -> Iterator[str]:
    for letters in ("m", "M", "e", "a"):
        encoded = f"%{ord(letters):02x}"
        yield path.replace(f"/{letters.lower()}edia/", f"/{encoded}edia/")
        yield path.replace("/media/", "/media/".replace(letters, encoded))
    for old, new in (
        ("/media/", "/%256dedia/"),
        ("/media/", "/%c1%ad%65dia/"),
        ("/media/", "/MEDIA/"),
        ("/media/", "/Media/"),
        ("/media/", "/media;x=y/"),
        ("/media/", "/media%00/"),
        ("/media/", "/media%20/"),
        ("/media/", "/media%2f"),
        ("/media/", "%2fmedia/"),
        ("/media/", "/media\\"),
        ("/media/", "/media%5c"),
        ("/download/", "/d%6fwnload/"),
        ("/download/", "/DOWNLOAD/"),
        ("_matrix", "%5Fmatrix"),
        ("_matrix", "_%6datrix"),
        ("_matrix", "_MATRIX"),
        ("/_matrix/", "/_matrix%2f"),
        ("/_matrix/", "/_matrix;/"),
        ("/_matrix/", "\\_matrix\\"),
        ("/client/", "/CLIENT/"),
        ("/client/", "/cl%69ent/"),
        ("/federation/", "/federation;/"),
        ("/v1/", "/%761/"),
        ("/v1/", "/v1;x/"),
        ("/unstable/", "/UNSTABLE/"),
    ):
        yield path.replace(old, new)


def _with_detours(path: str) -> Iterator[str]:
    segments = path.split("/")
    detours = ("", ".", "%2e", "x/..", "x/%2e%2e", "x/.%2E", "x/..;", "x/..;y=z", "x/..%3b", "x%2f..", ";")
    for at in range(1, len(segments)):
        for detour in detours:
            yield "/".join([*segments[:at], detour, *segments[at:]])
    for ending in ("//", "/.", "/..;/", ";x", "%2f", "%00", "#", "%23", "%3f"):
        yield path + ending
    for start in (
        "/_matrix/client/v3/sync/../../../..",
        "/_synapse/client/../..",
        "/_synapse/client/..;/..;",
    ):
        yield start + path
        yield start.replace("..", "%2e%2e") + path
        yield start.replace("/..", "%2f..") + path
    yield f"https://{HOST}{path}//"
    yield f"http://127.0.0.1:8008{path.replace('media', '%6dedia')}"
