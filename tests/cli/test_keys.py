from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scanner.crypto.envelope import public_key_of
from scanner.crypto.pk import ServerKeys, generate_secret, parse_secret
from scanner.crypto.signing import Signer, format_public_key
from tests.cli.command import ROOT, media_scanner, refused
from tests.crypto.test_olm_pickle import PICKLE, PUBLIC_KEY
from tests.other_scanners import NODE


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


def test_signing_key_has_a_public_key_of_its_own_kind(tmp_path: Path) -> None:
    file = tmp_path / "analyst.key"
    done = media_scanner("keys", "generate", "--kind", "signing", file)
    signer = Signer(parse_secret(file.read_bytes()))
    assert done.stdout == f"{format_public_key(signer.public_key)}\n"
    assert done.stdout != f"{public_key(file)}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_quarantine_key_is_an_x25519_key(tmp_path: Path) -> None:
    file = tmp_path / "soc.key"
    done = media_scanner("keys", "generate", "--kind", "quarantine", file)
    assert parse_secret(done.stdout) == public_key_of(parse_secret(file.read_bytes()))


def test_public_half_of_what_signs_the_audit_chain_is_shown(tmp_path: Path) -> None:
    environ = {"MEDIA_SCANNER__STATE_DIR": str(tmp_path)}
    said = refused(media_scanner("keys", "show-public", "--kind", "audit", **environ))
    assert said == f"{tmp_path}/audit-key: not there yet; it is made at the first start"
    (tmp_path / "audit-key").write_text(generate_secret())
    done = media_scanner("keys", "show-public", "--kind", "audit", "--json", **environ)
    signer = Signer(parse_secret((tmp_path / "audit-key").read_bytes()))
    assert json.loads(done.stdout) == {"public_key": format_public_key(signer.public_key)}


# -- rotate --------------------------------------------------------------------------------------


def test_rotated_secret_in_the_state_directory_needs_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "request-secret"
    file.write_text(generate_secret())
    before = public_key(file)
    done = media_scanner("keys", "rotate", MEDIA_SCANNER__STATE_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"{public_key(file)}\n")
    [retired] = [path for path in tmp_path.iterdir() if path != file]
    assert public_key(retired) == before != public_key(file)
    assert f"The old secret is {retired}; keep it.\n" in done.stderr
    assert "SIGHUP" in done.stderr
    assert file.read_text() not in done.stdout + done.stderr


def test_rotated_named_secret_stays_where_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(generate_secret())
    environ = {"MEDIA_SCANNER__CRYPTO__SECRET_FILE": str(file), "MEDIA_SCANNER__STATE_DIR": f"{tmp_path}/s"}
    done = media_scanner("keys", "rotate", "--json", **environ)
    told = json.loads(done.stdout)
    assert told == {"public_key": public_key(file), "retired_file": told["retired_file"]}
    assert Path(told["retired_file"]).parent == tmp_path
    assert media_scanner("check-config", **environ).returncode == 0


def test_nothing_is_rotated_before_there_is_a_secret_or_if_it_is_none(tmp_path: Path) -> None:
    environ = {"MEDIA_SCANNER__STATE_DIR": str(tmp_path)}
    said = refused(media_scanner("keys", "rotate", **environ))
    assert said == f"{tmp_path}/request-secret: not there yet; it is made at the first start"
    (tmp_path / "request-secret").write_text("damaged")
    said = refused(media_scanner("keys", "rotate", **environ))
    assert said.endswith("a secret must be 32 bytes in base64")
    assert [path.name for path in tmp_path.iterdir()] == ["request-secret"]


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_secret_that_cannot_be_rotated_in_its_folder_is_one_line_that_says_how(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(generate_secret())
    mount = f"mount --bind -o ro {tmp_path} {tmp_path} && mount -o remount,bind,ro {tmp_path}"
    command = f"{mount} && exec {sys.executable} -m scanner keys rotate"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        cwd=ROOT,
        env={"PATH": os.defpath, "MEDIA_SCANNER__CRYPTO__SECRET_FILE": str(file)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = refused(done)
    assert said.startswith(
        f"crypto.secret_file: {file}: cannot be rotated in its folder: Read-only file system"
    )
    assert "crypto.retired_secret_files" in said


# -- import-pickle -------------------------------------------------------------------------------


@pytest.fixture
def node_config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(NODE)
    (tmp_path / "av_pickled_decryption.key").write_bytes(PICKLE)
    return file


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_pickled_secret_becomes_a_secret_file(
    tmp_path: Path, node_config: Path, arguments: tuple[str, ...]
) -> None:
    secret = tmp_path / "request_secret"
    done = media_scanner("keys", "import-pickle", node_config, secret, *arguments)
    shown = json.loads(done.stdout)["public_key"] if arguments else done.stdout.strip()
    assert (done.returncode, shown) == (0, PUBLIC_KEY)
    assert public_key(secret) == PUBLIC_KEY
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text().strip() not in done.stdout + done.stderr


def test_secret_from_a_pickle_is_never_written_over_another(tmp_path: Path, node_config: Path) -> None:
    secret = tmp_path / "request_secret"
    secret.write_text("precious")
    said = refused(media_scanner("keys", "import-pickle", node_config, secret))
    assert said == f"{secret}: exists already; a secret is never overwritten"
    assert secret.read_text() == "precious"


def test_pickle_that_cannot_be_opened_is_one_line_that_does_not_show_the_key(
    tmp_path: Path, node_config: Path
) -> None:
    pickle, secret = tmp_path / "av_pickled_decryption.key", tmp_path / "secret"
    node_config.write_text(NODE.replace("some_random_secret", "hunter2"))
    said = refused(media_scanner("keys", "import-pickle", node_config, secret))
    assert said == f"{pickle}: is damaged, or was made with another pickle key"
    pickle.unlink()
    said = refused(media_scanner("keys", "import-pickle", node_config, secret))
    assert said == f"{pickle}: No such file or directory"
    assert not secret.exists()
