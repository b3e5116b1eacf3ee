"""Where signatures come from, as freshclam wants to be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import urlsplit

from scanner.clamd.database import is_database_file

_OFFICIAL = ("--update-db=main", "--update-db=daily", "--update-db=bytecode")
_CUSTOM = ("--update-db=custom", "--no-dns")
_CLAMAV_MIRROR = "https://database.clamav.net"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Fetch:
    """What one run of freshclam fetches: its arguments, and lines of its configuration."""

    arguments: tuple[str, ...]
    settings: tuple[str, ...]


class Sources:
    """Where signatures come from: URLs of mirrors of ClamAV's own, and of single database files.

    None at all: ClamAV's mirror. What has no scheme is reached by https. `proxy` is a URL.
    """

    def __init__(self, urls: Sequence[str] = (), proxy: str | None = None) -> None:
        complete = [url if "://" in url else f"https://{url}" for url in urls or [_CLAMAV_MIRROR]]
        self._databases = [url for url in complete if is_database_file(urlsplit(url).path)]
        self._mirrors = [url for url in complete if url not in self._databases]
        self.proxy = proxy

    def fetches(self) -> Iterator[list[Fetch]]:
        """All there is to fetch, each with alternatives: freshclam cannot mix ClamAV's mirrors and others."""
        if self._mirrors:
            yield [
                self._fetch(_OFFICIAL, [f"{kind} {url}" for url in urls])
                for kind, urls in groupby(self._mirrors, _kind)
            ]
        for url in self._databases:
            unused = f"DatabaseMirror {_CLAMAV_MIRROR}"  # which freshclam insists on
            yield [self._fetch(_CUSTOM, [unused, f"DatabaseCustomURL {url}"])]

    def _fetch(self, arguments: tuple[str, ...], settings: Sequence[str]) -> Fetch:
        return Fetch(arguments, (*settings, *self._proxy_settings()))

    def _proxy_settings(self) -> Iterator[str]:
        if self.proxy is not None:
            proxy = urlsplit(self.proxy)
            yield f"HTTPProxyServer {proxy.scheme}://{proxy.hostname}"
            yield f"HTTPProxyPort {proxy.port or _PORTS[proxy.scheme]}"


def _kind(url: str) -> str:
    """The setting of a mirror. Of a private one freshclam reads the files' heads, instead of asking DNS."""
    return "DatabaseMirror" if f".{urlsplit(url).hostname}".endswith(".clamav.net") else "PrivateMirror"
