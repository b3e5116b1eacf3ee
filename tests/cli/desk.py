"""An analyst's desk: a local quarantine with something in it, keys, and the command line."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Coroutine
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TypeVar

from scanner.quarantine.catalogue import Content
from scanner.quarantine.reading import read_catalogue
from scanner.stores.local import Local
from tests.cli.command import media_scanner
from tests.quarantine.people import NOBODY
from tests.quarantine.stock import OTHER, SOC, put_record, put_sample

_Result = TypeVar("_Result")


class Desk:
    """Below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.folder = directory / "store"
        self.folder.mkdir()
        self.store = Local(self.folder)
        self.soc = self.secret("soc", SOC)
        self.other = self.secret("other", OTHER)

    def secret(self, name: str, secret: bytes) -> Path:
        file = self.directory / name
        file.write_text(b64encode(secret).decode())
        return file

    def keep(self, content: bytes = b"sample", **record: Any) -> None:
        """As the scanner does: a sample, and its record."""
        self.do(put_sample(self.store, content))
        self.do(put_record(self.store, content, **record))

    @staticmethod
    def do(work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run(work)

    def quarantine(self, *arguments: str | Path, **environ: str) -> CompletedProcess[str]:
        return media_scanner("quarantine", *arguments, "--store", self.folder, **environ)

    def lines(self, *arguments: str | Path) -> list[Any]:
        """What a command prints as JSON, line by line."""
        return [json.loads(line) for line in self.quarantine(*arguments, "--json").stdout.splitlines()]

    def contents(self) -> tuple[Content, ...]:
        return self.do(read_catalogue(self.store, NOBODY)).contents
