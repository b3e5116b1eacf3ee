from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from scanner.config import Config
from scanner.crypto.pk import generate_secret
from tests.cli.command import ROOT, media_scanner, refused
from tests.crypto.test_olm_pickle import PICKLE, PUBLIC_KEY
from tests.other_scanners import NODE, PYTHON

# -- show ----------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "scanner.yaml"
    file.write_text("limits: {media_size: 1MiB}\nhomeserver: {additional_headers: {X-Gate: let-me-in}}")
    return file


def test_every_setting_is_shown_with_its_origin(file: Path) -> None:
    done = media_scanner("config", "show", "--config", file, MEDIA_SCANNER__LOG__LEVEL="debug")
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split("  #")[0].strip(): line.rpartition("# ")[2] for line in done.stdout.splitlines()}
    assert lines["media_size: 1048576"] == "file"
    assert lines["level: debug"] == "environment"
    assert lines["addresses: [embedded]"] == "default"
    assert lines["state_dir: /var/lib/media-scanner"] == "default"
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_what_is_shown_is_the_effective_tree(file: Path) -> None:
    done = media_scanner("config", "show", "--config", file)
    assert yaml.safe_load(done.stdout) == Config.load(file, {}).model_dump(mode="json")


def test_shown_as_json_each_value_has_its_origin(file: Path) -> None:
    done = media_scanner("config", "show", "--config", file, "--json", MEDIA_SCANNER__STATE_DIR="/s")
    shown = json.loads(done.stdout)
    assert shown["limits"]["media_size"] == {"value": 1048576, "origin": "file"}
    assert shown["state_dir"] == {"value": "/s", "origin": "environment"}
    assert shown["clamav"]["max_signature_age"] == {"value": 604800.0, "origin": "default"}
    assert shown["homeserver"]["additional_headers"]["origin"] == "file"


@pytest.mark.parametrize("arguments", [("config", "show"), ("config", "show", "--json"), ("check-config",)])
def test_values_of_headers_are_not_printed(file: Path, arguments: tuple[str, ...]) -> None:
    done = media_scanner(*arguments, "--config", file)
    assert "X-Gate" in done.stdout
    assert "let-me-in" not in done.stdout + done.stderr


def test_configuration_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    said = refused(media_scanner("config", "show", "--config", tmp_path / "absent"))
    assert said == f"{tmp_path}/absent: No such file or directory"


# -- schema --------------------------------------------------------------------------------------


def test_schema_is_one_that_our_files_are_valid_by(file: Path) -> None:
    schema = json.loads(media_scanner("config", "schema").stdout)
    Draft202012Validator.check_schema(schema)
    valid = Draft202012Validator(schema)
    assert valid.is_valid(yaml.safe_load(file.read_text()))
    assert not valid.is_valid({"limits": {"media_size": "large"}})
    assert schema["$defs"]["Limits"]["properties"]["media_size"]["description"]


@pytest.mark.parametrize("key", Config.model_fields)
def test_section_whose_keys_are_all_comments_is_valid_by_the_schema_as_it_is_here(
    file: Path, key: str
) -> None:
    file.write_text(f"{key}:\n  # nothing\n")
    assert Config.load(file, {}) == Config.load(None, {})
    schema = json.loads(media_scanner("config", "schema").stdout)
    assert Draft202012Validator(schema).is_valid(yaml.safe_load(file.read_text()))


# -- import --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [PYTHON, NODE], ids=["matrix-content-scanner", "node"])
def test_imported_sample_is_a_configuration_that_can_be_used(tmp_path: Path, text: str) -> None:
    theirs, ours = tmp_path / "config.yaml", tmp_path / "scanner.yaml"
    theirs.write_text(text)
    (tmp_path / "request_secret").write_text(generate_secret())
    done = media_scanner("config", "import", theirs)
    assert done.returncode == 0
    ours.write_text(done.stdout)
    assert media_scanner("check-config", "--config", ours).returncode == 0
    assert Config.load(ours, {}).homeserver.url == "https://matrix.org"
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "scanner.yaml", "request_secret"}


def test_what_has_no_counterpart_is_named_on_standard_error(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(PYTHON)
    done = media_scanner("config", "import", file)
    said = dict(line.split(": ", 1) for line in done.stderr.splitlines())
    assert said["scan.script"] == "no script is run: clamd is asked directly, see clamav.addresses"
    assert "exit codes" in said["result_cache.exit_codes_to_ignore"]
    assert said["crypto.request_secret_path"] == f"taken as {tmp_path}/request_secret, beside this file"


def test_import_as_json_is_one_document(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(PYTHON)
    done = media_scanner("config", "import", file, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    Config.model_validate(document["configuration"])
    assert {"key": "scan.script", "note": document["notes"][0]["note"]} == document["notes"][0]


def test_relative_name_of_the_file_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(PYTHON)
    monkeypatch.chdir(tmp_path)
    done = media_scanner("config", "import", "config.yaml")
    assert yaml.safe_load(done.stdout)["crypto"] == {"secret_file": f"{tmp_path}/request_secret"}


def test_file_that_is_none_of_theirs_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("web: {host: [")
    assert refused(media_scanner("config", "import", file)) == f"{file}: line 1: not valid YAML"


def test_names_in_the_file_do_not_move_the_cursor(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text('web: {host: a, port: 1, "\\e[2J\\nx": 5}')
    done = media_scanner("config", "import", file)
    assert "web.\\x1b[2J\\x0ax: not a key of matrix-content-scanner; left out\n" in done.stderr


def test_commands_of_the_migration_guide_lead_to_a_configuration_with_the_old_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(NODE)
    (tmp_path / "av_pickled_decryption.key").write_bytes(PICKLE)
    monkeypatch.chdir(tmp_path)
    guide = (ROOT / "docs" / "migration.md").read_text()
    commands = re.findall(r"^ *media-scanner (.+)$", guide, re.MULTILINE)
    printed = []
    assert len(commands) == 4
    for command in commands:
        words, _, target = command.replace("/etc", str(tmp_path)).partition(" >")
        done = media_scanner(*words.split())
        assert done.returncode == 0, done
        if target:
            Path(target).write_text(done.stdout)
        printed.append(done.stdout)
    assert printed[1] == printed[3] == f"{PUBLIC_KEY}\n"


def test_migration_guide_has_every_key_of_the_samples() -> None:
    guide = (ROOT / "docs" / "migration.md").read_text()
    for text in (PYTHON, NODE):
        for section, keys in yaml.safe_load(text).items():
            names = [f"{section}.{key}:" for key in keys] if isinstance(keys, dict) else [f"{section}:"]
            assert [name for name in names if f"`{name}" not in guide] == []
