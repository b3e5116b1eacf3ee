"""`media-scanner doctor` as an operator runs it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from scanner.cli.doctor import GROUPS
from scanner.key_files import write_secret
from tests.cli.command import ROOT, media_scanner, refused
from tests.cli.machine import Machine
from tests.doctor.found import clamd_with
from tests.e2e.machine import clamds_of
from tests.real_clamd import Clamd, free_port

ABSENT = "unix:/nonexistent/clamd.sock"


def configuration(directory: Path, *clamds: str, **sections: dict[str, Any]) -> Path:
    """Everything away but for what is named."""
    tree: dict[str, Any] = {
        "state_dir": str(directory / "state"),
        "server": {"ops_listen": f"127.0.0.1:{free_port()}"},
        "homeserver": {"url": f"http://127.0.0.1:{free_port()}"},
        "clamav": {"addresses": list(clamds or [ABSENT]), "max_signature_age": None},
    }
    for name, keys in sections.items():
        tree[name] = {**tree.get(name, {}), **keys}
    file = directory / "scanner.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def examined(*arguments: str | Path, code: int, launcher: Sequence[str] = ()) -> list[dict[str, str]]:
    """The findings of `doctor --json`, in a process of its own."""
    command = [*launcher, sys.executable, "-m", "scanner", "doctor", "--json", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=45, check=False)
    assert (done.returncode, done.stderr) == (code, ""), done
    document = json.loads(done.stdout)
    assert set(document) == {"version", "status", "findings"}
    assert (document["status"] == "failed") is (code == 1)
    findings: list[dict[str, str]] = document["findings"]
    for finding in findings:
        assert set(finding) == {"group", "subject", "name", "status", "found", "advice"}
        assert finding["advice"] or finding["status"] in {"ok", "skipped"}
    return findings


def statuses(findings: list[dict[str, str]], group: str) -> dict[str, str]:
    return {finding["name"]: finding["status"] for finding in findings if finding["group"] == group}


def test_groups_are_the_ones_of_its_help() -> None:
    done = media_scanner("doctor", "--help")
    assert f"[{'|'.join([*GROUPS, 'all'])}]" in "".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_an_unknown_group_is_wrong_usage() -> None:
    done = media_scanner("doctor", "heart")
    assert done.returncode == 2
    assert "is none of clamd, homeserver," in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("text", ["server: {listen: nowhere}", "nothing: true"])
def test_an_unusable_configuration_is_exit_code_2_and_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "scanner.yaml"
    file.write_text(text)
    assert refused(media_scanner("doctor", "--config", file)).startswith(f"{file}: ")


def test_an_absent_token_file_is_exit_code_2_and_one_line(tmp_path: Path) -> None:
    said = refused(media_scanner("doctor", "homeserver", "--access-token-file", tmp_path / "absent"))
    assert said == f"--access-token-file: {tmp_path}/absent: No such file or directory"


def test_warnings_are_exit_code_0_and_nothing_is_written(tmp_path: Path) -> None:
    done = media_scanner("doctor", "keys", "--config", configuration(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "start the service once, which makes it" in " ".join(done.stdout.split())
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert [path.name for path in tmp_path.iterdir()] == ["scanner.yaml"]


def test_the_policy_for_the_bucket_is_printed_and_the_bucket_let_alone(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    s3 = {"store": "s3", "s3": {"bucket": "quarantine", "endpoint_url": url, "prefix": "site/"}}
    done = media_scanner("doctor", "--print-policy", "--config", configuration(tmp_path, quarantine=s3))
    document = json.loads(done.stdout)
    assert set(document) == {"bucket_policy", "lifecycle"}
    assert "arn:aws:s3:::quarantine/site/v1/objects/*" in done.stdout


def test_without_a_bucket_there_is_no_policy_to_print(tmp_path: Path) -> None:
    said = refused(media_scanner("doctor", "--print-policy", "--config", configuration(tmp_path)))
    assert said == "quarantine.store: is local, so that there is no bucket"


@pytest.mark.slow
def test_a_bucket_that_is_away_is_told_at_once(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    s3 = {"store": "s3", "s3": {"bucket": "quarantine", "endpoint_url": url}}
    findings = examined("s3", "--config", configuration(tmp_path, quarantine=s3), code=1)
    assert statuses(findings, "s3") == {"answers": "failed"}


@pytest.mark.slow
def test_everything_away_is_told_at_once_and_completely(tmp_path: Path) -> None:
    findings = examined("--config", configuration(tmp_path), code=1)
    assert statuses(findings, "clamd")["connection"] == "failed"
    assert statuses(findings, "homeserver") == {"answers": "failed"}
    assert statuses(findings, "service") == {"service": "skipped"}
    assert {finding["group"] for finding in findings} == set(GROUPS)


@pytest.mark.real
def test_a_good_clamd_has_no_failures(tmp_path: Path) -> None:
    with clamd_with() as clamd:
        findings = examined("clamd", "--config", configuration(tmp_path, f"unix:{clamd.socket}"), code=0)
    assert set(statuses(findings, "clamd").values()) <= {"ok", "skipped"}


@pytest.mark.real
def test_the_test_set_of_the_embedded_clamd_is_a_failure_until_it_is_accepted(machine: Machine) -> None:
    """No service runs there, so one is started for the check, said, and ended."""
    for accepted, code in ((False, 1), (True, 0)):
        clamav = {"accept_test_signatures": accepted, "freshclam": "off"}
        file = configuration(machine.directory, "embedded", clamav=clamav)
        findings = examined("clamd", "--config", file, code=code, launcher=machine.launcher)
        assert statuses(findings, "clamd")["signatures"] == ("warning" if accepted else "failed")
        [started] = [finding for finding in findings if finding["name"] == "embedded"]
        assert "Starting a clamd" in started["found"]
        assert clamds_of(machine.database) == []


@pytest.mark.real
def test_a_missing_clamd_is_told_with_its_package(machine: Machine) -> None:
    hide = ["sh", "-c", 'mount --bind /dev/null "$(command -v clamd)" && exec "$@"', "sh"]
    file = configuration(machine.directory, "embedded")
    findings = examined("clamd", "--config", file, code=1, launcher=[*machine.launcher, *hide])
    [missing] = [finding for finding in findings if finding["name"] == "embedded"]
    assert missing["advice"]


@pytest.mark.real
def test_stalled_clamd_homeserver_and_service_end_within_30_seconds(tmp_path: Path) -> None:
    """Sockets that take connections and never say a word; and a real clamd that is stopped."""
    began = time.monotonic()
    with clamd_with() as clamd, socket.create_server(("127.0.0.1", 0)) as silent:
        clamd.pause()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        file = configuration(
            tmp_path,
            f"unix:{clamd.socket}",
            f"tcp:{address}",
            homeserver={"url": f"http://{address}"},
            server={"ops_listen": address},
        )
        findings = examined("--config", file, code=1)
        clamd.resume()
    assert time.monotonic() - began < 30
    stuck = [finding for finding in findings if "no answer within" in finding["found"]]
    assert [finding["name"] for finding in stuck] == ["connection", "connection", "answers", "service"]


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """One that another user can enter: pytest's own are closed to them."""
    path = Path(tempfile.mkdtemp(prefix="doctor-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_without_rights_learns_what_he_could_not_see(public_directory: Path) -> None:
    state = public_directory / "state"
    write_secret(state / "request-secret")
    with clamd_with() as clamd:
        clamd.directory.chmod(0o755)
        clamd.socket.chmod(0o600)
        file = configuration(public_directory, f"unix:{clamd.socket}")
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        findings = examined("clamd", "keys", "machine", "--config", file, code=1, launcher=nobody)
    [connection] = [finding for finding in findings if finding["name"] == "connection"]
    assert "Permission denied" in connection["found"]
    assert "let user nobody use the socket" in connection["advice"]
    assert statuses(findings, "keys")["request secret"] == "skipped"
    assert "user ID 65534" in [finding["found"] for finding in findings]


@pytest.mark.real
def test_the_token_is_never_shown(tmp_path: Path, clamd: Clamd) -> None:
    token = tmp_path / "token"
    token.write_text("syt_very_secret\n")
    file = configuration(tmp_path, homeserver={"additional_headers": {"X-Api-Key": "also_secret"}})
    done = media_scanner("doctor", "homeserver", "--config", file, "--access-token-file", token)
    assert done.returncode == 1
    assert "secret" not in done.stdout + done.stderr
