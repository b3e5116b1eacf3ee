from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from scanner.config import Config
from scanner.crypto.pk import generate_secret
from tests.certificates import Authority
from tests.cli.command import media_scanner, media_scanner_process, refused


def test_defaults_are_the_effective_tree_of_nothing() -> None:
    done = media_scanner("check-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout) == Config().model_dump(mode="json")


def test_what_is_printed_is_a_configuration_that_means_the_same(tmp_path: Path) -> None:
    file, printed = tmp_path / "scanner.yaml", tmp_path / "printed.yaml"
    file.write_text("limits: {media_size: 1.5MiB}\nclamav: {max_signature_age: null, addresses: [unix:/c]}")
    done = media_scanner("check-config", "--config", file, MEDIA_SCANNER__SERVER__LISTEN="[::1]:9")
    assert done.returncode == 0
    printed.write_text(done.stdout)
    effective = Config.load(printed, {})
    assert effective == Config.load(file, {"MEDIA_SCANNER__SERVER__LISTEN": "[::1]:9"})
    assert effective.server.listen == "[::1]:9"


def test_json_is_the_same_tree() -> None:
    done = media_scanner("check-config", "--json")
    assert json.loads(done.stdout) == Config().model_dump(mode="json")


def test_every_named_file_is_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(generate_secret())
    for key, value in (
        ("secret_file", f"{tmp_path}/absent"),
        ("index_secret_file", f"{tmp_path}/absent"),
        ("retired_secret_files", f"[{secret}, {tmp_path}/absent]"),
    ):
        variable = f"MEDIA_SCANNER__CRYPTO__{key.upper()}"
        said = refused(media_scanner("check-config", **{variable: value}))
        assert said == f"crypto.{key}: {tmp_path}/absent: No such file or directory"


def test_the_secret_of_the_inspection_route_is_opened(tmp_path: Path) -> None:
    said = refused(media_scanner("check-config", MEDIA_SCANNER__SERVER__INSPECT_SECRET_FILE=str(tmp_path)))
    assert said == f"server.inspect_secret_file: {tmp_path}: Is a directory"


def test_token_of_an_admin_is_opened_and_not_shown(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("syt_admin")
    done = media_scanner("check-config", MEDIA_SCANNER__HOMESERVER__ADMIN_TOKEN_FILE=str(token))
    assert done.returncode == 0
    assert "syt_admin" not in done.stdout
    token.write_text("")
    said = refused(media_scanner("check-config", MEDIA_SCANNER__HOMESERVER__ADMIN_TOKEN_FILE=str(token)))
    assert said == f"homeserver.admin_token_file: {token}: holds no access token"


def test_secret_that_was_rotated_away_is_opened(tmp_path: Path) -> None:
    secret, retired = tmp_path / "secret", tmp_path / "secret.retired-20260101T000000Z"
    secret.write_text(generate_secret())
    retired.write_text("damaged")
    said = refused(media_scanner("check-config", MEDIA_SCANNER__CRYPTO__SECRET_FILE=str(secret)))
    assert said == f"crypto.secret_file: {retired}: a secret must be 32 bytes in base64"


def test_certificates_are_opened(tmp_path: Path) -> None:
    file = Authority(tmp_path).certificate
    assert media_scanner("check-config", MEDIA_SCANNER__HOMESERVER__CA_FILE=str(file)).returncode == 0
    file.write_text("no PEM")
    said = refused(media_scanner("check-config", MEDIA_SCANNER__HOMESERVER__CA_FILE=str(file)))
    assert said == f"homeserver.ca_file: {file}: holds no certificate in PEM"


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    secret, damaged = tmp_path / "secret", tmp_path / "damaged"
    secret.write_text(generate_secret())
    damaged.write_text(generate_secret()[:-8])
    done = media_scanner("check-config", MEDIA_SCANNER__CRYPTO__SECRET_FILE=str(secret))
    assert done.returncode == 0
    assert secret.read_text() not in done.stdout
    said = refused(media_scanner("check-config", MEDIA_SCANNER__CRYPTO__SECRET_FILE=str(damaged)))
    assert said == f"crypto.secret_file: {damaged}: a secret must be 32 bytes in base64"


def test_nothing_is_written_and_no_state_is_needed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = media_scanner("check-config", MEDIA_SCANNER__STATE_DIR=str(state))
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_absent_file_is_one_line(tmp_path: Path) -> None:
    said = refused(media_scanner("check-config", "--config", tmp_path / "absent.yaml"))
    assert said == f"{tmp_path}/absent.yaml: No such file or directory"


@pytest.mark.slow
def test_traps_of_yaml_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "scanner.yaml"
    for text, said in (
        ("server:\n\tlisten: x", " line 2: not valid YAML"),
        ("[" * 5000, " not valid YAML"),
        ("log: {}\nlog: {}", " line 2: log is given twice"),
        ('"a\\nb": 1', " a\\x0ab: there is no such key"),
    ):
        file.write_text(text)
        assert refused(media_scanner_process("check-config", "--config", file)) == f"{file}:{said}"


@pytest.mark.parametrize("key", ["public_key_file", "s3.ca_file"])
def test_files_of_the_quarantine_are_opened(tmp_path: Path, key: str) -> None:
    absent = tmp_path / "absent"
    named = f"s3: {{bucket: b, ca_file: {absent}}}" if key == "s3.ca_file" else f"{key}: {absent}"
    file = tmp_path / "scanner.yaml"
    file.write_text(f"quarantine: {{store: {'s3' if key == 's3.ca_file' else 'local'}, {named}}}")
    said = refused(media_scanner("check-config", "--config", file))
    assert said == f"quarantine.{key}: {absent}: No such file or directory"
