from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from scanner.config import Config, Origin
from scanner.errors import ConfigError

MIB = 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "scanner.yaml"


def load(file: Path, text: str | bytes, **environ: str) -> Config:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Config.load(file, environ)


def problem(file: Path, text: str | bytes, **environ: str) -> str:
    """The one line that is said."""
    with pytest.raises(ConfigError) as refused:
        load(file, text, **environ)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None or refused.value.__suppress_context__, "it may show values"
    assert len(refused.value.info.splitlines()) == 1
    return refused.value.info


# -- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "---\n", "{}", "null", "server:\n", "server: {}\n"]
)
def test_empty_file_is_the_defaults(file: Path, text: str) -> None:
    assert load(file, text) == Config() == Config.load(None, {})


def test_file_says_what_it_says(file: Path) -> None:
    config = load(
        file,
        """
        server:
          listen: "[::1]:8080"
          request_timeout: 2.5s
          trusted_proxies: [10.0.0.0/8, "fd00::/8", 127.0.0.1]
        state_dir: /srv/state
        homeserver:
          url: https://hs.example.org:8448/
          redirect_hosts: [cdn.example.org, cdn.example.org:8443]
        crypto: {secret_file: /run/secret, retired_secret_files: [/run/old, /run/older]}
        limits: {media_size: 1.5 MiB, memory: 1GiB, queue_wait: 500ms}
        clamav:
          addresses: [embedded, unix:/run/clamd.sock, "tcp:[::1]:3310", tcp:clamd:3310]
          max_signature_age: null
        policy: {allowed_types: [image/*, application/CDFV2], unscannable: deliver}
        verdict_cache: {url: memory, clean_ttl: 1h}
        log: {level: debug}
        """,
    )
    assert config.server.listen == "[::1]:8080"
    assert config.server.request_timeout == 2.5
    assert config.server.trusted_proxies[:2] == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert config.state_dir == Path("/srv/state")
    assert config.homeserver.url == "https://hs.example.org:8448"
    assert config.crypto.retired_secret_files == (Path("/run/old"), Path("/run/older"))
    assert (config.limits.media_size, config.limits.memory) == (MIB * 3 // 2, 1024 * MIB)
    assert config.limits.queue_wait == 0.5
    assert config.clamav.max_signature_age is None
    assert config.policy.allowed_types == ("image/*", "application/CDFV2")
    assert config.verdict_cache.clean_ttl == 3600


def test_effective_tree_is_a_configuration_that_means_the_same(file: Path) -> None:
    config = load(
        file, "limits: {media_size: 1.5MiB}\nserver: {trusted_proxies: [10.0.0.0/8]}\nstate_dir: 'null'"
    )
    assert load(file, yaml.safe_dump(config.model_dump(mode="json"))) == config


def test_configuration_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().limits.memory = 1  # type: ignore[misc]


# -- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("20MiB", 20 * MIB),
        ("20 MiB", 20 * MIB),
        ("20mib", 20 * MIB),
        ("20MB", 20_000_000),
        ("20971520", 20 * MIB),
        ("20971520B", 20 * MIB),
        ("1.5KiB", 1536),
        ("0.001GB", 1_000_000),
        ("'7'", 7),
    ],
)
def test_size_with_a_unit(file: Path, written: str, size: int) -> None:
    assert load(file, f"limits: {{media_size: {written}}}").limits.media_size == size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("25", 25), ("25s", 25), ("2.5s", 2.5), ("250ms", 0.25), ("10m", 600), ("2h", 7200), ("7d", 604800)],
)
def test_duration_with_a_unit(file: Path, written: str, seconds: float) -> None:
    assert load(file, f"limits: {{queue_wait: {written}}}").limits.queue_wait == seconds


@pytest.mark.parametrize(
    "written",
    [
        *(
            "20TiB",
            "-1",
            "+1",
            "1e3",
            "0x10",
            "1_000",
            "'1,5MiB'",
            "20MiB!",
            ".5MiB",
            "5.",
            "MiB",
            "",
            "true",
        ),
        *(
            "null",
            "~",
            ".inf",
            ".nan",
            "9" * 400,
            "9" * 5000,
            "[1]",
            "{a: 1}",
            "\u0665MiB",
            "1:30",
            "0",
            "0.5",
        ),
    ],
)
def test_what_is_no_size_is_refused_in_one_line(file: Path, written: str) -> None:
    said = problem(file, f"limits: {{media_size: {written}}}")
    number = f"{file}: limits.media_size: must be a number with a unit, like 20MiB"
    assert said in (number, f"{file}: limits.media_size: must be greater than 0")


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        config = Config.load(None, {"MEDIA_SCANNER__LIMITS__QUEUE_WAIT": text})
    except ConfigError as refused:
        assert refused.info.startswith("MEDIA_SCANNER__LIMITS__QUEUE_WAIT: ")  # noqa: PT017
    else:
        assert 0 < config.limits.queue_wait < float("inf")


# -- what is refused -----------------------------------------------------------------------------

REFUSED = {
    "server: {listen: 8080}": "server.listen: must be host:port, like 127.0.0.1:8080",
    "server: {listen: ':8080'}": "server.listen: must be host:port, like 127.0.0.1:8080",
    "server: {listen: 'localhost'}": "server.listen: must be host:port, like 127.0.0.1:8080",
    "server: {listen: 'localhost:65536'}": "server.listen: must be host:port, like 127.0.0.1:8080",
    "server: {listen: 'localhost:http'}": "server.listen: must be host:port, like 127.0.0.1:8080",
    "server: {listen: 'u@localhost:80'}": "server.listen: must be host:port, like 127.0.0.1:8080",
    "server: {listen: 'localhost:80/x'}": "server.listen: must be host:port, like 127.0.0.1:8080",
    'server: {listen: "localhost:80\\n"}': "server.listen: must be host:port, like 127.0.0.1:8080",
    'server: {listen: "localhost:8\\n0"}': "server.listen: must be host:port, like 127.0.0.1:8080",
    "server: {listen: null}": "server.listen: must be text",
    "server: {listen: [a]}": "server.listen: must be text",
    "server: {litsen: a}": "server.litsen: there is no such key",
    "server: {trusted_proxies: 10.0.0.0/8}": "server.trusted_proxies: must be a list",
    "server: {trusted_proxies: [10.0.0.1/8]}": "server.trusted_proxies.0: must be a network like 10.0.0.0/8, "
    "with no bits set beyond its length",
    "server: {trusted_proxies: [127.0.0.1, [1]]}": "server.trusted_proxies.1: must be a network like "
    "10.0.0.0/8, with no bits set beyond its length",
    "server: text": "server: must be a section of keys",
    "server: [a]": "server: must be a section of keys",
    "srever: {}": "srever: there is no such key",
    "state_dir: [a]": "state_dir: must be a path",
    "homeserver: {url: localhost}": "homeserver.url: must be a URL without a path, like http://127.0.0.1:8008",
    "homeserver: {url: 'ftp://h'}": "homeserver.url: must be a URL without a path, like http://127.0.0.1:8008",
    "homeserver: {url: 'http://'}": "homeserver.url: must be a URL without a path, like http://127.0.0.1:8008",
    "homeserver: {url: 'http://h:port'}": "homeserver.url: must be a URL without a path, like http://127.0.0.1:8008",
    "homeserver: {url: 'http://h:99999'}": "homeserver.url: must be a URL without a path, like http://127.0.0.1:8008",
    "homeserver: {url: 'http://h h'}": "homeserver.url: must be a URL without a path, like http://127.0.0.1:8008",
    "homeserver: {url: 'http://h?q'}": "homeserver.url: must be a URL without a path, like http://127.0.0.1:8008",
    "homeserver: {url: 'http://user:pass@h'}": "homeserver.url: must be a URL without a path, like http://127.0.0.1:8008",
    "homeserver: {redirect_hosts: ['https://cdn']}": "homeserver.redirect_hosts.0: must be host or host:port",
    "clamav: {addresses: []}": None,
    "clamav: {addresses: [tcp:clamd]}": "clamav.addresses.0: must be embedded, unix:/path or tcp:host:port",
    "clamav: {addresses: [tcp:clamd:99999]}": "clamav.addresses.0: must be embedded, unix:/path or "
    "tcp:host:port",
    "clamav: {addresses: [unix:run]}": "clamav.addresses.0: must be embedded, unix:/path or tcp:host:port",
    "clamav: {addresses: [tcp:h:1], freshclam: on}": "clamav.freshclam: must not be on without embedded "
    "among clamav.addresses",
    "clamav: {accept_test_signatures: perhaps}": "clamav.accept_test_signatures: must be true or false",
    "policy: {blocked_types: [image]}": "policy.blocked_types.0: must be a type like image/png or image/*",
    "policy: {encrypted_archives: no}": "policy.encrypted_archives: must be 'deliver' or 'withhold'",
    "verdict_cache: {url: redis://h}": "verdict_cache.url: must be 'sqlite' or 'memory'",
    "limits: {memory: 1MiB}": "limits.memory: must be at least 69MiB to hold one limits.media_size",
    "limits: {media_size: 1GiB}": "limits.memory: must be at least 3511MiB to hold one limits.media_size",
    "limits: {media_size: 1, memory: 7MiB}": "limits.memory: must be at least 8MiB to hold one "
    "limits.media_size",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items())
def test_what_cannot_be_used_is_refused_with_file_key_and_problem(
    file: Path, text: str, said: str | None
) -> None:
    """And without the value."""
    assert problem(file, text).startswith(f"{file}: {said or ''}")


def test_several_problems_are_the_first_and_a_number(file: Path) -> None:
    said = problem(file, "server: {a: 1, b: 2}\nlog: {level: loud}")
    assert re.fullmatch(r".*: server\.a: there is no such key \(and 2 more\)", said)


def test_value_is_never_shown(file: Path) -> None:
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ"
    for section, model in Config.model_fields.items():
        keys = getattr(model.annotation, "model_fields", None)
        for key in keys or [None]:
            for value in (
                secret,
                f"[{secret}]",
                f"{{a: {secret}}}",
                f"[[{secret}]]",
                f"*{secret}",
                f"'{secret}",
            ):
                text = f"{section}: {{{key}: {value}}}" if key else f"{section}: {value}"
                file.write_text(text)
                try:
                    Config.load(file, {})
                except ConfigError as refused:
                    assert secret not in refused.info, text  # noqa: PT017
                    assert f"{file}:" in refused.info  # noqa: PT017


def test_unreadable_file_is_refused_with_its_name(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "absent", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as refused:
            Config.load(path, {})
        assert refused.value.info == f"{path}: {why}"


# -- YAML's traps --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {listen: a:1}\nserver: {listen: b:2}", " line 2: server is given twice"),
        ("server:\n  listen: a:1\n  listen: b:2", " line 3: listen is given twice"),
        ("server:\n\tlisten: a:1", " line 2: not valid YAML"),
        ("server: {listen: a:1", " line 1: not valid YAML"),
        ("- server", " must be a mapping of sections"),
        ("server", " must be a mapping of sections"),
        ("5", " must be a mapping of sections"),
        ("---\n{}\n---\n{}", " line 3: not valid YAML"),
        ("server: *unknown", " line 1: not valid YAML"),
        ("? [a]\n: b", " line 1: not valid YAML"),
        ("? {a: b}\n: b", " line 1: not valid YAML"),
        ("5: 5", " 5: there is no such key"),
        ("null: 5", " None: Keys should be strings"),
        ("<<: {server: {}}", " <<: there is no such key"),
        ("state_dir: !!python/object/apply:os.system [x]", " line 1: not valid YAML"),
        ("state_dir: !!timestamp x", " line 1: not valid YAML"),
        ("state_dir: !!int x", " line 1: not valid YAML"),
        ("state_dir: !!binary x", " line 1: not valid YAML"),
        ("[" * 1_000, " not valid YAML"),
        (b"\xff\xff", " not valid YAML"),
        (b"\0", " not valid YAML"),
        ("server: &a {x: *a}", " server.x: there is no such key"),
    ],
)
def test_trap_is_refused_in_one_line(file: Path, text: str | bytes, said: str) -> None:
    assert problem(file, text) == f"{file}:{said}"


@pytest.mark.parametrize("name", ["2024-02-30", "2024-01-01", "1:30", "0777", "1e3", "no", "007", "=", "<<"])
def test_text_is_what_was_written(file: Path, name: str) -> None:
    """No dates, no base 60, no octal numbers and no Norway."""
    assert load(file, f"state_dir: {name}").state_dir == Path(name)


@pytest.mark.parametrize(
    ("written", "meant"), [("true", True), ("yes", True), ("False", False), ("off", False)]
)
def test_truth_has_its_usual_names(file: Path, written: str, meant: bool) -> None:
    config = load(file, f"clamav: {{accept_test_signatures: {written}}}")
    assert config.clamav.accept_test_signatures is meant


def test_utf_16_and_byte_order_marks_are_understood(file: Path) -> None:
    for encoding in ("utf-16", "utf-8-sig"):
        assert load(file, "state_dir: /é".encode(encoding)).state_dir == Path("/é")


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_file_is_a_configuration_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    try:
        load(file, data)
    except ConfigError as refused:
        assert refused.info.startswith(f"{file}:")  # noqa: PT017


# -- the environment -----------------------------------------------------------------------------


def test_environment_is_above_the_file(file: Path) -> None:
    config = load(
        file,
        "server: {listen: a:1, ops_listen: a:2}",
        MEDIA_SCANNER__SERVER__LISTEN="b:3",
        MEDIA_SCANNER__STATE_DIR="/srv",
        MEDIA_SCANNER__CLAMAV__ADDRESSES="[embedded, tcp:h:1]",
        MEDIA_SCANNER__CLAMAV__MAX_SIGNATURE_AGE="null",
        MEDIA_SCANNER="x",
        media_scanner__server__listen="c:4",
        PATH="/bin",
    )
    assert (config.server.listen, config.server.ops_listen) == ("b:3", "a:2")
    assert config.state_dir == Path("/srv")
    assert config.clamav.addresses == ("embedded", "tcp:h:1")
    assert config.clamav.max_signature_age is None


@pytest.mark.parametrize("text", ["[::1]:8080", "127.0.0.1:8080", "'h:1'"])
def test_address_in_the_environment_needs_no_quotes(text: str) -> None:
    assert Config.load(None, {"MEDIA_SCANNER__SERVER__LISTEN": text}).server.listen == text.strip("'")


def test_environment_of_the_process_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIA_SCANNER__LOG__LEVEL", "error")
    assert Config.load(None).log.level == "error"


def test_one_variable_may_hold_a_section_and_another_a_key_of_it(file: Path) -> None:
    config = load(
        file,
        "limits: {queue_wait: 1}",
        MEDIA_SCANNER__LIMITS="{queue_wait: 2, memory: 1GiB}",
        MEDIA_SCANNER__LIMITS__QUEUE_WAIT="3",
    )
    assert (config.limits.queue_wait, config.limits.memory) == (3, 1024 * MIB)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SERVER__LISTEN", "", "server.listen: must be text"),
        ("SERVER__LISTEN", "80", "server.listen: must be host:port"),
        ("SERVER__LISTEN__PORT", "80", "server.listen: must be text"),
        ("STATE_DIR__X", "80", "state_dir: must be a path"),
        ("SERVER", "80", "server: must be a section of keys"),
        ("SERVER__LITSEN", "80", "server.litsen: there is no such key"),
        ("SREVER__LISTEN", "80", "srever: there is no such key"),
        ("", "80", ": there is no such key"),
        ("__", "80", ": there is no such key"),
        ("SERVER", "{listen: a:1, listen: b:2}", "server: must be a section of keys"),
        ("CLAMAV__ADDRESSES", "[embedded", "clamav.addresses: must be a list"),
        ("LIMITS__MEMORY", "1MiB", "limits.memory: must be at least 69MiB"),
        ("CLAMAV__ADDRESSES", "embedded", "clamav.addresses: must be a list"),
        ("CLAMAV__ADDRESSES", "[embedded, x]", "clamav.addresses.1: must be embedded"),
    ],
)
def test_variable_that_cannot_be_used_is_named(file: Path, variable: str, value: str, said: str) -> None:
    name = f"MEDIA_SCANNER__{variable}"
    assert problem(file, "", **{name: value}).startswith(f"{name}: {said}")


def test_problem_of_the_file_is_not_blamed_on_a_variable(file: Path) -> None:
    said = problem(file, "server: {listen: x}", MEDIA_SCANNER__SERVER__OPS_LISTEN="a:1")
    assert said.startswith(f"{file}: server.listen:")


def test_the_more_exact_of_two_variables_is_named(file: Path) -> None:
    said = problem(file, "", MEDIA_SCANNER__SERVER="{ops_listen: a:1}", MEDIA_SCANNER__SERVER__LISTEN="x")
    assert said.startswith("MEDIA_SCANNER__SERVER__LISTEN:")


def test_every_key_says_what_it_is_for() -> None:
    """The documentation is made of these."""
    for name, section in Config.model_fields.items():
        for key, field in getattr(section.annotation, "model_fields", {name: section}).items():
            assert field.description, f"{name}.{key}"


# -- headers, origins, schema --------------------------------------------------------------------


def test_header_that_only_the_scanner_sets_is_named(file: Path) -> None:
    said = problem(file, "homeserver: {headers_to_forward: [X-Tag, Host]}")
    assert (
        said
        == f"{file}: homeserver.headers_to_forward.1: must not be Host: the scanner alone decides about it"
    )
    said = problem(file, "homeserver: {additional_headers: {X-Tag: a, Range: b}}")
    assert said == (
        f"{file}: homeserver.additional_headers.Range: must not be Range: the scanner alone decides about it"
    )
    assert problem(file, "homeserver: {additional_headers: x}") == (
        f"{file}: homeserver.additional_headers: must be a section of keys"
    )


def test_values_of_headers_are_masked(file: Path) -> None:
    config = load(file, "homeserver: {additional_headers: {X-Gate: let-me-in}}")
    assert config.homeserver.additional_headers["X-Gate"].get_secret_value() == "let-me-in"
    assert "let-me-in" not in repr(config) + str(config.model_dump(mode="json"))


def test_every_setting_has_its_origin(file: Path) -> None:
    file.write_text("server: {listen: a:1}\nlog: {level: debug}\nlimits: {queue_wait: 5s}\nstate_dir: /s")
    environ = {
        "MEDIA_SCANNER__LOG": "{level: info}",
        "MEDIA_SCANNER__LIMITS__MEDIA_SIZE": "1MiB",
        "MEDIA_SCANNER__HOMESERVER__ADDITIONAL_HEADERS__X-TAG": "a",
    }
    config, origins = Config.load_with_origins(file, environ)
    assert config == Config.load(file, environ)
    given = {key: origin for key, origin in origins.items() if origin is not Origin.DEFAULT}
    assert given == {
        "server.listen": Origin.FILE,
        "state_dir": Origin.FILE,
        "limits.queue_wait": Origin.FILE,
        "limits.media_size": Origin.ENVIRONMENT,
        "log.level": Origin.ENVIRONMENT,
        "homeserver.additional_headers": Origin.ENVIRONMENT,
    }
    assert len(origins) > 30


def test_problem_with_one_setting_is_told_in_words() -> None:
    assert Config.problem_with("server", "listen", "a:1") is None
    assert Config.problem_with("server", "listen", "a") == "must be host:port, like 127.0.0.1:8080"
    assert Config.problem_with("server", "port", "1") == "there is no such key"


def test_schema_knows_every_setting() -> None:
    schema = Config.model_json_schema()
    Draft202012Validator.check_schema(schema)
    valid = Draft202012Validator(schema)
    assert valid.is_valid({"limits": {"media_size": "1.5MiB"}, "server": {"trusted_proxies": ["10.0.0.0/8"]}})
    for wrong in ({"limits": {"media_size": "big"}}, {"limits": {"size": 1}}, {"log": {"level": "all"}}):
        assert not valid.is_valid(wrong)


def test_a_bucket_is_asked_over_plain_http_only_where_the_homeserver_is(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for homeserver, allowed in (("http", True), ("https", False)):
        file.write_text(
            f"homeserver: {{url: '{homeserver}://hs'}}\n"
            "quarantine: {store: s3, s3: {bucket: b, endpoint_url: 'http://s3'}}"
        )
        if allowed:
            assert Config.load(file, {}).quarantine.s3.endpoint_url == "http://s3"
        else:
            with pytest.raises(ConfigError, match=r"quarantine: s3\.endpoint_url must be https"):
                Config.load(file, {})
