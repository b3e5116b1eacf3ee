from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from scanner.crypto.pk import ServerKeys, generate_secret, parse_secret
from tests.cli.command import media_scanner, refused


def public_key(file: Path) -> str:
    return ServerKeys(parse_secret(file.read_bytes())).public_key


def test_generated_secret_is_its_owners_alone_and_its_public_key_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "secret"
    done = media_scanner("keys", "generate", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{public_key(file)}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]


def test_generated_public_key_is_json_where_asked(tmp_path: Path) -> None:
    done = media_scanner("keys", "generate", tmp_path / "secret", "--json")
    assert json.loads(done.stdout) == {"public_key": public_key(tmp_path / "secret")}


def test_secret_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("precious")
    assert (
        refused(media_scanner("keys", "generate", file))
        == f"{file}: exists already; a secret is never overwritten"
    )
    assert file.read_text() == "precious"


def test_secret_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(media_scanner("keys", "generate", tmp_path / "file" / "a" / "b")).endswith(
        ": Not a directory"
    )
    assert refused(media_scanner("keys", "generate", "/proc/self/secret")).startswith("/proc/self/secret: ")


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_public_key_of_the_named_secret_is_shown(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file, config = tmp_path / "secret", tmp_path / "scanner.yaml"
    file.write_text(generate_secret())
    config.write_text(f"crypto: {{secret_file: {file}}}")
    done = media_scanner("keys", "show-public", "--config", config, *arguments)
    shown = json.loads(done.stdout)["public_key"] if arguments else done.stdout.strip()
    assert (done.returncode, shown) == (0, public_key(file))
    assert file.read_text() not in done.stdout


def test_public_key_of_the_generated_secret_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "request-secret"
    file.write_text(generate_secret())
    done = media_scanner("keys", "show-public", MEDIA_SCANNER__STATE_DIR=str(tmp_path))
    assert done.stdout == f"{public_key(file)}\n"


def test_showing_a_key_that_is_not_there_makes_none(tmp_path: Path) -> None:
    said = refused(media_scanner("keys", "show-public", MEDIA_SCANNER__STATE_DIR=str(tmp_path)))
    assert said == f"{tmp_path}/request-secret: not there yet; it is made at the first start"
    assert list(tmp_path.iterdir()) == []


def test_malformed_secret_is_one_line_that_does_not_show_it(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(generate_secret()[:30])
    said = refused(media_scanner("keys", "show-public", MEDIA_SCANNER__CRYPTO__SECRET_FILE=str(file)))
    assert said == f"crypto.secret_file: {file}: a secret must be 32 bytes in base64"
