from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanner.config import Config
from scanner.errors import ConfigError
from scanner.migration import Imported, import_config, pickled_secret
from tests.other_scanners import NODE, PYTHON

WEB = "web: {host: a, port: 1}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def imported(file: Path, text: str) -> Imported:
    file.write_text(text)
    return import_config(file)


def python(file: Path, **sections: dict[str, Any]) -> Imported:
    return imported(file, yaml.safe_dump({"web": {"host": "a", "port": 1}, **sections}))


def node(file: Path, **keys: object) -> Imported:
    tree = {"server": {"host": "a", "port": 1}, "scan": {"baseUrl": "https://a"}}
    return imported(file, yaml.safe_dump(tree | keys))


def notes(imported: Imported) -> dict[str, str]:
    return {note.key: note.note for note in imported.notes}


# -- the samples ---------------------------------------------------------------------------------


def test_sample_of_matrix_content_scanner_becomes_ours(file: Path) -> None:
    ours = imported(file, PYTHON)
    assert ours.sections == {
        "server": {"listen": "127.0.0.1:8080"},
        "homeserver": {
            "url": "https://matrix.org",
            "proxy": "http://10.0.0.1:3128",
            "additional_headers": {"user-agent": "matrix-content-scanner"},
            "headers_to_forward": [],
        },
        "crypto": {"secret_file": str(file.with_name("request_secret"))},
        "policy": {"allowed_types": ["image/jpeg"]},
        "verdict_cache": {"clean_ttl": "1d"},
    }
    Config.model_validate(ours.sections)
    assert notes(ours).keys() == {
        "scan.script",
        "scan.temp_directory",
        "scan.removal_command",
        "result_cache.exit_codes_to_ignore",
        "result_cache.max_size",
        "result_cache.max_file_size",
        "download.headers_to_forward",
        "crypto.request_secret_path",
        "limits.media_size",
    }
    assert "must not be Host" in notes(ours)["download.headers_to_forward"]


def test_sample_of_the_node_scanner_becomes_ours(file: Path) -> None:
    ours = imported(file, NODE)
    secret = file.with_name("request_secret")
    assert ours.sections == {
        "server": {"listen": "[::1]:9000"},
        "homeserver": {
            "url": "https://matrix.org",
            "proxy": "http://10.228.1.1:80",
            "additional_headers": {"User-Agent": "matrix-content-scanner"},
        },
        "crypto": {"secret_file": str(secret)},
        "policy": {"allowed_types": ["image/jpeg", "image/jpg", "image/png"]},
    }
    Config.model_validate(ours.sections)
    told = notes(ours)
    assert told.keys() == {
        "scan.script",
        "scan.doNotCacheExitCodes",
        "scan.tempDirectory",
        "altRemovalCmd",
        "requestHeader.xForward",
        "middleware.encryptedBody.pickleKey",
        "middleware.encryptedBody.picklePath",
        "limits.media_size",
    }
    assert told["middleware.encryptedBody.picklePath"].endswith(
        f"media-scanner keys import-pickle {file} {secret}"
    )


# -- key by key ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ("1 week", "7d"),
        ("1d", "1d"),
        ("2.5 hours", "2.5h"),
        ("90 mins", "90m"),
        ("5M", "5m"),
        ("30 secs", "30s"),
        ("250 ms", "250ms"),
        ("1y", "364d"),
        (604800.0, "604800s"),
        (31536000, "31536000s"),
    ],
)
def test_lifetime_in_its_units_becomes_one_in_ours(file: Path, written: object, ours: str) -> None:
    done = python(file, result_cache={"ttl": written})
    assert done.sections["verdict_cache"] == {"clean_ttl": ours}
    Config.model_validate(done.sections)


@pytest.mark.parametrize("written", ["soon", "1 fortnight", "0", "-1d", ""])
def test_lifetime_that_is_none_is_left_out_and_named(file: Path, written: str) -> None:
    done = python(file, result_cache={"ttl": written})
    assert "verdict_cache" not in done.sections
    assert notes(done)["result_cache.ttl"].startswith("left out")


def test_homeserver_that_is_not_named_is_said(file: Path) -> None:
    for done in (python(file), python(file, download={"base_homeserver_url": None})):
        assert "homeserver" not in done.sections
        assert "set homeserver.url" in notes(done)["download.base_homeserver_url"]


def test_limit_that_the_other_scanner_had_not_is_said_with_ours(file: Path) -> None:
    default = Config().limits.media_size // 2**20
    for imported in (python(file), node(file)):
        assert f"{default} MiB unless it is set" in notes(imported)["limits.media_size"]


def test_asking_remote_homeservers_has_no_counterpart(file: Path) -> None:
    scan = {"baseUrl": "https://a", "directDownload": True}
    done = node(file, scan=scan)
    assert done.sections["homeserver"] == {"url": "https://a"}
    assert "never asked" in notes(done)["scan.directDownload"]
    assert "scan.directDownload" not in notes(node(file, scan=scan | {"directDownload": False}))


@pytest.mark.parametrize("url", ["https://a/base", "https://user:hunter2@a", "ftp://a"])
def test_url_that_is_none_here_is_left_out_and_not_shown(file: Path, url: str) -> None:
    done = python(file, download={"base_homeserver_url": url, "proxy": url})
    assert "homeserver" not in done.sections
    assert notes(done)["download.proxy"].startswith("left out: homeserver.proxy must be a URL without a path")
    assert url not in str(done.notes)


def test_headers_that_only_we_may_set_are_left_out_one_by_one(file: Path) -> None:
    headers = {"X-Gate": "open", "Host": "b", "X-Bad": "é"}
    done = python(
        file, download={"additional_headers": headers, "headers_to_forward": ["Range", "X-Tag", "Cookie"]}
    )
    assert done.sections["homeserver"] == {
        "additional_headers": {"X-Gate": "open"},
        "headers_to_forward": ["X-Tag", "Cookie"],
    }
    told = notes(done)
    assert "must not be Host" in told["download.additional_headers.Host"]
    assert "must be printable ASCII" in told["download.additional_headers.X-Bad"]
    assert "must not be Range" in told["download.headers_to_forward"]


def test_user_agent_of_the_client_is_forwarded(file: Path) -> None:
    done = node(file, requestHeader={"userAgent": "origin", "xForward": "origin"})
    assert done.sections["homeserver"] == {"url": "https://a", "headers_to_forward": ["User-Agent"]}
    assert "always goes along" in notes(done)["requestHeader.xForward"]


def test_absolute_secret_needs_no_word(file: Path) -> None:
    done = python(file, crypto={"request_secret_path": "/keys/secret"})
    assert done.sections["crypto"] == {"secret_file": "/keys/secret"}
    assert "crypto.request_secret_path" not in notes(done)


def test_type_that_is_none_is_left_out_and_the_list_stays_a_list(file: Path) -> None:
    done = python(file, scan={"allowed_mimetypes": ["images"]})
    assert done.sections["policy"] == {"allowed_types": []}
    assert "allowed_types must be a type" in notes(done)["scan.allowed_mimetypes"]


def test_unknown_keys_are_named(file: Path) -> None:
    done = python(file, web={"host": "a", "port": 1, "tls": {"cert": "x"}}, metrics={"port": 9})
    assert notes(done)["web.tls"] == notes(done)["metrics"] == "not a key of matrix-content-scanner; left out"


# -- what is none --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", " no configuration of matrix-content-scanner or of the Node scanner"),
        ("server: {listen: a:1}", " no configuration of matrix-content-scanner or of the Node scanner"),
        ("[]", " must be a mapping of sections"),
        ("web: [", " line 1: not valid YAML"),
        ("web: {host: a, host: b}", " line 1: host is given twice"),
        ("web: 5", " web: must be a section of keys"),
        ("web: {host: a}", " web.port: is missing"),
        ("web: {host: [a], port: 1}", " web.host: must be text"),
        ("web: &web {host: *web, port: 1}", " web.host: must be text"),
        (f"{WEB}scan: {{allowed_mimetypes: x}}", " scan.allowed_mimetypes: must be a list"),
        (f"{WEB}scan: {{allowed_mimetypes: [[x]]}}", " scan.allowed_mimetypes: must be text"),
        (
            f"{WEB}download: {{additional_headers: x}}",
            " download.additional_headers: must be a section of keys",
        ),
        ("server: {host: a, port: 1}\nscan: {baseUrl: {}}", " scan.baseUrl: must be text"),
        ("server: {host: a, port: 1}\nscan: {}\nmiddleware: x", " middleware: must be a section of keys"),
    ],
)
def test_malformed_file_is_refused_in_one_line(file: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        imported(file, text)
    assert refused.value.info == f"{file}:{said}"


def test_absent_file_is_refused_with_its_name(file: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        import_config(file)
    assert refused.value.info == f"{file}: No such file or directory"


def test_address_that_is_none_here_is_left_out(file: Path) -> None:
    done = python(file, web={"host": "*", "port": 8080})
    assert "server" not in done.sections
    assert notes(done)["web.host"].startswith("left out: server.listen must be host:port")


anything: st.SearchStrategy[Any] = st.recursive(
    st.text(max_size=8) | st.none() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["host", "port", "script", "allowed_mimetypes", "base_homeserver_url", "proxy", "additional_headers"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["scan", "download", "crypto", "result_cache"]),
        st.dictionaries(st.sampled_from([*KEYS, "headers_to_forward", "ttl"]), anything),
    )
)
def test_whatever_is_imported_is_valid_here(
    tmp_path_factory: pytest.TempPathFactory, sections: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    try:
        done = python(file, **sections)
    except ConfigError as refused:
        assert refused.info.startswith(f"{file}: ")  # noqa: PT017
    else:
        Config.model_validate(done.sections)


# -- the pickle ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        NODE,
        f"{WEB}crypto: {{pickle_path: ./av_pickled_decryption.key, pickle_key: some_random_secret}}",
    ],
)
def test_pickle_and_its_key_are_found(file: Path, text: str) -> None:
    file.write_text(text)
    assert pickled_secret(file) == (file.with_name("av_pickled_decryption.key"), "some_random_secret")


def test_configuration_without_a_pickle_is_refused(file: Path) -> None:
    file.write_text(PYTHON)
    with pytest.raises(ConfigError) as refused:
        pickled_secret(file)
    assert refused.value.info == f"{file}: crypto.pickle_path: is missing"
