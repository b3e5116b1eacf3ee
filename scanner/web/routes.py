"""Every URL of the product in one table.

Paths are matched as they came, percent-encoding included, and each segment is decoded once, by who
reads it: URL libraries resolve `%2e%2e` and decode `%2F`, so that one media could pass for another.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import unquote

from scanner.errors import InvalidMedia
from scanner.web.content_scanner import ContentScanner
from scanner.web.dialects import FEDERATION, MATRIX, SCANNER, Dialect
from scanner.web.federation import Federation
from scanner.web.homeserver import HomeserverMedia
from scanner.web.inspect import Inspect
from scanner.web.operations import Operations
from scanner.web.request import Request
from scanner.web.scan_file import ScanFile
from scanner.web.uploads import Uploads
from scanner.web.wire import Answer

Handler = Callable[[Request], Awaitable[Answer]]
# Method, template, and a handler that still needs its object.
_Rows = tuple[tuple[str, str, Callable[..., Awaitable[Answer]]], ...]

API = "/_matrix/media_proxy/unstable"
_ABSOLUTE = re.compile(r"\Ahttps?://[^/?#]*", re.IGNORECASE)


@dataclass(frozen=True)
class Route:
    """A method, a path template and who answers, in which dialect; `{name}` stands for one path segment."""

    method: str
    template: str
    handler: Handler
    dialect: Dialect = SCANNER
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        literal = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]*)", re.escape(self.template))
        object.__setattr__(self, "_pattern", re.compile(literal + "/?"))

    def segments(self, path: str) -> Mapping[str, str] | None:
        """What stands for the template's names in `path`, None if the path is not this route's."""
        match = self._pattern.fullmatch(path)
        return None if match is None else match.groupdict()

    def allows(self, method: str) -> bool:
        """HEAD runs the whole GET."""
        return method == self.method or (method == "HEAD" and self.method == "GET")


async def _names_no_media(_: ContentScanner, request: Request) -> Answer:
    raise InvalidMedia("the path must end in a server name and a media ID")


_MEDIA_ROUTES = ("scan", "download", "thumbnail")
_MEDIA_PATH = re.compile(rf"{re.escape(API)}/({'|'.join(_MEDIA_ROUTES)})/.*")

_SCANNER = (
    ("GET", f"{API}/public_key", ContentScanner.public_key),
    ("GET", f"{API}/scan/{{server}}/{{media}}", ContentScanner.scan),
    ("GET", f"{API}/download/{{server}}/{{media}}", ContentScanner.download),
    ("GET", f"{API}/download/{{server}}/{{media}}/{{filename}}", ContentScanner.download),
    ("GET", f"{API}/thumbnail/{{server}}/{{media}}", ContentScanner.thumbnail),
    ("POST", f"{API}/scan_encrypted", ContentScanner.scan_encrypted),
    ("POST", f"{API}/download_encrypted", ContentScanner.download_encrypted),
    *(("GET", f"{API}/{name}", _names_no_media) for name in _MEDIA_ROUTES),
)
_SCAN_FILE = (("POST", f"{API}/scan_file", ScanFile.scan_file),)

# Where Synapse has media, the frozen places (spec v1.11) included.
_FROZEN = ("v3", "r0", "v1")
_PREFIXES = ("client/v1/media", *(f"media/{version}" for version in _FROZEN))
_MEDIA = "{server}/{media}"

_UPLOADS: _Rows = (
    *(
        ("POST", f"/_matrix/media/{version}/upload", partial(Uploads.upload, version=version))
        for version in _FROZEN
    ),
    ("POST", "/_matrix/media/v1/create", Uploads.create),
    ("PUT", f"/_matrix/media/v3/upload/{_MEDIA}", Uploads.put),
)
_DOWNLOADS: _Rows = tuple(
    ("GET", f"/_matrix/{prefix}/{path}", partial(handler, prefix=prefix))
    for prefix in _PREFIXES
    for path, handler in (
        (f"download/{_MEDIA}", HomeserverMedia.download),
        (f"download/{_MEDIA}/{{filename}}", HomeserverMedia.download),
        (f"thumbnail/{_MEDIA}", HomeserverMedia.thumbnail),
        ("config", HomeserverMedia.config),
        ("preview_url", HomeserverMedia.preview_url),
    )
)
_FEDERATION = (
    ("GET", "/_matrix/federation/v1/media/download/{media}", Federation.download),
    ("GET", "/_matrix/federation/v1/media/thumbnail/{media}", Federation.thumbnail),
)
_HEALTH = (
    ("GET", "/health/live", Operations.live),
    ("GET", "/health/ready", Operations.ready_without_reasons),
)
_OPERATIONS = (
    ("GET", "/health/live", Operations.live),
    ("GET", "/health/ready", Operations.ready),
    ("GET", "/metrics", Operations.metrics),
)
_INSPECT = (("POST", "/_media_scanner/v1/inspect", Inspect.inspect),)
ROUTES = tuple(
    (method, template)
    for method, template, _ in (
        *_SCANNER,
        *_SCAN_FILE,
        *_UPLOADS,
        *_DOWNLOADS,
        *_FEDERATION,
        *_OPERATIONS,
        *_INSPECT,
    )
)


def public_routes(
    api: ContentScanner,
    scan_file: ScanFile,
    uploads: Uploads,
    media: HomeserverMedia,
    federation: Federation,
    operations: Operations,
) -> tuple[Route, ...]:
    """The public listener: scanner API, the homeserver's media routes, and whether we are alive and ready."""
    return (
        *(Route(method, template, partial(answer, api)) for method, template, answer in _SCANNER),
        *(Route(method, template, partial(answer, scan_file)) for method, template, answer in _SCAN_FILE),
        *(Route(method, template, partial(answer, uploads), MATRIX) for method, template, answer in _UPLOADS),
        *(Route(method, template, partial(answer, media), MATRIX) for method, template, answer in _DOWNLOADS),
        *(
            Route(method, template, partial(answer, federation), FEDERATION)
            for method, template, answer in _FEDERATION
        ),
        *(Route(method, template, partial(answer, operations)) for method, template, answer in _HEALTH),
    )


def operations_routes(operations: Operations, inspect: Inspect | None = None) -> tuple[Route, ...]:
    """The operations listener: for the operator's network only. Without its secret `inspect` is not there."""
    routes = tuple(
        Route(method, template, partial(answer, operations)) for method, template, answer in _OPERATIONS
    )
    if inspect is None:
        return routes
    inspections = (
        Route(method, template, partial(answer, inspect), MATRIX) for method, template, answer in _INSPECT
    )
    return (*routes, *inspections)


class Router:
    """Finds the route of a path."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    def find(self, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """The route and its segments. Too few or too many segments after a media route name no media."""
        for route in self._routes:
            segments = route.segments(path)
            if segments is not None:
                return route, segments
        if match := _MEDIA_PATH.fullmatch(path):
            return self.find(f"{API}/{match[1]}")
        return None


def split_target(target: str) -> tuple[str, str, str | None]:
    """A request target as it came -> path, query without `access_token`, and that token.

    Both forms of RFC 9112 section 3.2 that a server meets are taken, origin and absolute.
    """
    if not target.startswith("/"):
        target = _ABSOLUTE.sub("", target)
    path, _, query = target.partition("#")[0].partition("?")
    if not query:
        return path, "", None
    kept, token = [], None
    for parameter in re.split("[&;]", query):  # Twisted, and so Synapse, takes both
        name, _, value = parameter.partition("=")
        if unquote(name) == "access_token":
            token = unquote(value)
        elif parameter:
            kept.append(parameter)
    return path, "&".join(kept), token
