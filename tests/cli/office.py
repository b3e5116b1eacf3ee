"""Analysts at their workstations: a store, a configuration that lists them, and each one's key."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import yaml

from scanner.stores.local import Local
from tests.cli.command import media_scanner
from tests.quarantine.people import configured_analysts


@dataclass(frozen=True)
class Office:
    """Below `directory`; its commands are run here, by whoever is named."""

    directory: Path
    four_eyes: bool = False
    people: Sequence[str] = ()

    def __post_init__(self) -> None:
        analysts = [{**each, "role": str(each["role"])} for each in configured_analysts(*self.people)]
        named = {"name": str(self.directory / "quarantine")}
        quarantine = {**named, "analysts": analysts, "four_eyes": self.four_eyes}
        self.config.write_text(yaml.safe_dump({"state_dir": str(self.directory), "quarantine": quarantine}))
        for name in ("alice", "bob", "carol", "dave", "mallory"):
            self.key(name).write_text(b64encode(hashlib.sha256(name.encode()).digest()).decode())

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def store(self) -> Local:
        return Local(self.directory / "quarantine")

    def key(self, name: str) -> Path:
        return self.directory / f"{name}.key"

    def run(self, *arguments: str | Path, by: str = "") -> CompletedProcess[str]:
        signed = ("--key", self.key(by)) if by else ()
        return media_scanner(*arguments, *signed, "--config", self.config)

    def told(self, *arguments: str | Path, by: str = "") -> Any:
        """The JSON document that a command prints."""
        done = self.run(*arguments, "--json", by=by)
        assert (done.returncode, done.stderr) == (0, ""), done
        return json.loads(done.stdout)

    def standings(self) -> dict[str, str]:
        """Of everything that was said, by the action."""
        done = self.run("verdict", "list", "--all", "--json")
        listed = [json.loads(line) for line in done.stdout.splitlines()]
        return {each["action"]: each["standing"] for each in listed}
