"""The machine that README and docs speak of: their commands, on files and servers of a test.

A command is run in bash with its own words, but for names that mean something else on every machine: `RULES`.
Directories of the system lie in one of the test; our address, the homeserver's and the media are those of its
service and its Synapse; placeholders (FILE, DIR, ...) are files that are there, and $TOKEN is a user's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import yaml

from scanner.crypto.pk import generate_secret
from tests.documented import ROOT
from tests.e2e.product import Product
from tests.e2e.samples import eicar, text
from tests.e2e.synapse import Synapse, User
from tests.other_scanners import PYTHON
from tests.quarantine.stock import SOC, a_record, digest, envelope, record_key, sample_key

# What stands in the docs -> what it is here, of `Machine.names`.
RULES: tuple[tuple[str, str], ...] = (
    (r"(?<![\w.])/(etc|opt|usr/local|var/lib)/", r"{root}/\1/"),
    (r"-o media-scanner\b", "-o {user}"),
    (r"\bREPOSITORY\b", "{repository}"),
    (r"https://matrix\.example\.org", "{homeserver}"),
    (r"(?:HOMESERVER|https://SERVER)/_matrix/", "{homeserver}/_matrix/"),
    (r"https://ADDRESS/", "{service}/"),
    (r"http://127\.0\.0\.1:8080\b", "{service}"),
    (r"http://127\.0\.0\.1:8081\b", "{operations}"),
    (r"(?<= :)8080\b", "{port}"),
    (r"\bSERVER/MEDIA\b", "{media}"),
    (r"--access-token-file FILE\b", "--access-token-file {token_file}"),
    (r"--config FILE\b", "--config {configuration}"),
    (r"\bimport FILE\b", "import {other}"),
    (r"\bFILE\b", "{letter}"),
    (r"\bDIR\b", "{folder}"),
    (r"\bSECRET\b", "{root}/secret"),
    (r"\bSHA256\b", "{sample}"),
    (r"\bSOC_KEY\b", "{soc_key}"),
    (r"\bSIGNATURE\b", "Win.Test.Signature-1"),
    (r"\bCOMMAND\b", "scan"),
    (r"\bsome-command\b", "cat {letter}"),
)

# Of programs that want a person or an init: what they would have done, or nothing.
_PROGRAMS = {
    "editor": 'sed -i "s|^  url: .*|  url: $HOMESERVER|" "$1"',
    "systemctl": ":",
}
_FOLDERS = (
    "etc/clamav",
    "etc/systemd/system",
    "etc/apparmor.d/local",
    "opt",
    "usr/local/bin",
    "var/lib/clamav",
    "bin",
    "inbox",
)


class Machine:
    """An empty `root` with what the commands expect to be there.

    They run one after the other: each begins in the folder in which the one before ended. `repository` is
    what can be cloned, `user` may download `mxc`.
    """

    def __init__(
        self, root: Path, product: Product, synapse: Synapse, repository: Path, user: User, mxc: str
    ) -> None:
        self.root = root
        self._folder = root
        self._token = user.token
        self._homeserver = synapse.url
        for name in _FOLDERS:
            (root / name).mkdir(parents=True)
        for name, body in _PROGRAMS.items():
            _write(root / "bin" / name, f"#!/bin/sh\n{body}\n", 0o755)
        (root / "deploy").symlink_to(ROOT / "deploy")
        self._tree = self._configuration(product, synapse)
        self.names = {
            "root": str(root),
            "user": str(os.geteuid()),
            "homeserver": synapse.url,
            "service": product.url,
            "operations": product.operations_url,
            "port": product.url.rpartition(":")[2],
            "media": mxc.removeprefix("mxc://"),
            "repository": str(repository),
            "configuration": _write(root / "etc/media-scanner.yaml", yaml.safe_dump(self._tree)),
            "token_file": _write(root / "token", user.token),
            "other": _write(root / "config.yaml", PYTHON),
            "letter": _write(root / "letter.txt", text().decode()),
            "folder": str(root / "inbox"),
            "sample": digest(eicar()),
            "soc_key": _write(root / "soc-key", b64encode(SOC).decode(), 0o600),
        }
        _detect_eicar(root / "var/lib/media-scanner/quarantine")
        _write(root / "inbox" / "invoice.com", eicar().decode())
        _write(root / "inbox" / "letter.txt", text().decode())

    def words(self, command: str) -> str:
        """A documented command as it is run here."""
        for pattern, here in RULES:
            command = re.sub(pattern, here.format_map(self.names), command)
        return command

    def run(self, command: str) -> CompletedProcess[str]:
        """Run one documented command."""
        end = self.root / "ended-in"
        script = f"{self.words(command)}\ncode=$?\npwd >{end}\nexit $code"
        ran = subprocess.run(
            ["bash", "-c", script],
            cwd=self._folder,
            env=self._environment(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self._folder = Path(end.read_text().strip())
        return ran

    def _environment(self, command: str) -> Mapping[str, str]:
        """Where no file is named, the environment says what stands in /etc/media-scanner.yaml."""
        programs = f"{self.root}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
        ours = {"PATH": programs, "HOME": str(self.root), "SHELL": "/bin/bash", "LC_ALL": "C.UTF-8"}
        ours |= {"TOKEN": self._token, "HOMESERVER": self._homeserver}
        if "--config" not in command:
            ours |= {f"MEDIA_SCANNER__{name.upper()}": _flow(value) for name, value in self._tree.items()}
        return ours

    def _configuration(self, product: Product, synapse: Synapse) -> dict[str, Any]:
        """The running service's, with a state and secrets of our own."""
        tree: dict[str, Any] = yaml.safe_load(product.configuration.read_text())
        state = self.root / "var/lib/media-scanner"
        state.mkdir(mode=0o700)
        for name in ("request-secret", "index-secret"):
            _write(state / name, generate_secret(), 0o600)
        return {**tree, "state_dir": str(state), "crypto": {}}


def _detect_eicar(quarantine: Path) -> None:
    """As a scanner keeps it; and a record of something else, from long ago."""
    now = datetime.now(UTC)
    names: dict[str, Any] = {"signatures": ("Win.Test.EICAR_HDB-1",), "mime_type": "text/plain"}
    old = a_record(b"old", at=now - timedelta(days=100), sample=None, missing="hash_only")
    recent = a_record(eicar(), at=now, **names)
    contents = {record_key(record): record.to_json() for record in (old, recent)}
    for name, content in {**contents, sample_key(eicar()): envelope(eicar())}.items():
        (quarantine / name).parent.mkdir(parents=True, exist_ok=True)
        (quarantine / name).write_bytes(content)


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _write(file: Path, content: str, mode: int = 0o644) -> str:
    file.write_text(content)
    file.chmod(mode)
    return str(file)


def make_repository(folder: Path) -> Path:
    """Of what the commands need of this checkout, in `folder`; with what `make run` makes there."""
    folder.mkdir()
    for name in ("deploy", "docker-compose.yml", "Makefile"):
        subprocess.run(["cp", "-r", ROOT / name, folder], check=True)
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "--all"], [*author, "commit", "-qm", "All"]):
        subprocess.run(["git", "-C", folder, *arguments], check=True)
    return folder
