from __future__ import annotations

import pytest

from scanner.clamd.sources import Sources

PROXY = ("HTTPProxyServer http://proxy.test", "HTTPProxyPort 3128")


def settings(*urls: str, proxy: str | None = None) -> list[list[tuple[str, ...]]]:
    return [[fetch.settings for fetch in fetches] for fetches in Sources(urls, proxy).fetches()]


def test_without_any_source_it_is_clamavs_own_mirror() -> None:
    assert settings() == [[("DatabaseMirror https://database.clamav.net",)]]


def test_a_mirror_of_ones_own_is_a_private_one_reached_by_https() -> None:
    assert settings("mirror.test/clamav") == [[("PrivateMirror https://mirror.test/clamav",)]]
    assert settings("http://10.0.0.7:8000") == [[("PrivateMirror http://10.0.0.7:8000",)]]


def test_clamavs_mirror_can_stand_in_for_ones_own() -> None:
    """What freshclam cannot mix are two runs."""
    assert settings("one.test", "two.test", "database.clamav.net") == [
        [
            ("PrivateMirror https://one.test", "PrivateMirror https://two.test"),
            ("DatabaseMirror https://database.clamav.net",),
        ]
    ]


def test_a_file_of_signatures_is_fetched_for_itself() -> None:
    official, own = settings("database.clamav.net", "https://soc.test/x/own.ndb")
    assert official == [("DatabaseMirror https://database.clamav.net",)]
    assert own[0][-1] == "DatabaseCustomURL https://soc.test/x/own.ndb"


def test_with_nothing_but_files_no_mirror_is_asked() -> None:
    only = list(Sources(["https://soc.test/own.ndb", "https://soc.test/more.hdb"]).fetches())
    assert [fetch.arguments for (fetch,) in only] == [("--update-db=custom", "--no-dns")] * 2


@pytest.mark.parametrize("host", ["mirror.info", "https://mirror.db", "clamav.cat/path"])
def test_a_host_that_is_named_like_a_file_of_signatures_is_a_mirror(host: str) -> None:
    assert settings(host)[0][0][0].startswith("PrivateMirror ")


def test_only_clamavs_own_hosts_are_asked_as_clamavs_own() -> None:
    assert settings("notclamav.net")[0][0][0].startswith("PrivateMirror ")


def test_a_proxy_stands_in_every_run() -> None:
    for fetches in settings("mirror.test", "https://soc.test/own.ndb", proxy="http://proxy.test:3128"):
        assert fetches[0][-2:] == PROXY


@pytest.mark.parametrize(("proxy", "port"), [("http://proxy.test", 80), ("https://proxy.test", 443)])
def test_a_proxy_without_a_port_has_the_one_of_its_scheme(proxy: str, port: int) -> None:
    assert settings(proxy=proxy)[0][0][-2:] == (f"HTTPProxyServer {proxy}", f"HTTPProxyPort {port}")
