"""curl, which sends request targets exactly as they are given, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.reverse_proxy import HOST, ReverseProxy


@dataclass(frozen=True)
class Answer:
    """What came; `status` 0: the connection was closed instead."""

    status: int
    version: str
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object in it."""
        return dict(json.loads(self.body))

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and errcode."""
        return self.status, self.content["errcode"]


@dataclass(frozen=True)
class Curl:
    """A client of one port of a proxy; `address` is the client's own, `version` that of HTTP: 1.1 or 2."""

    proxy: ReverseProxy
    port: int
    version: str = "2"
    address: str = "127.0.0.2"

    def ask(self, target: str, headers: Mapping[str, str] | None = None, *options: str) -> Answer:
        """One request; `options` are those of curl's configuration file."""
        [answer] = self.ask_all([target], headers, *options)
        return answer

    def ask_all(
        self, targets: Sequence[str], headers: Mapping[str, str] | None = None, *options: str
    ) -> list[Answer]:
        """One request for each target, one after the other."""
        common = [*self._options(), *options]
        common += [f"header = {_quoted(f'{name}: {value}')}" for name, value in (headers or {}).items()]
        with tempfile.TemporaryDirectory(prefix="curl-") as directory:
            bodies = [Path(directory, str(number)) for number in range(len(targets))]
            blocks = [
                "\n".join([*common, f"request-target = {_quoted(target)}", f'output = "{body}"'])
                for target, body in zip(targets, bodies, strict=True)
            ]
            done = subprocess.run(
                ["curl", "--config", "-"],
                input="\nnext\n".join(blocks).encode(),
                capture_output=True,
                check=False,
            )
            lines = done.stdout.decode().splitlines()
            assert len(lines) == len(targets), done.stderr.decode()
            return [_answer(line, body) for line, body in zip(lines, bodies, strict=True)]

    def _options(self) -> list[str]:
        server = "[::1]" if ":" in self.address else "127.0.0.1"
        return [
            f'url = "https://{HOST}:{self.port}/"',
            f'connect-to = "::{server}:{self.port}"',
            f'interface = "{self.address}"',
            f'cacert = "{self.proxy.authority.certificate}"',
            "http2" if self.version == "2" else "http1.1",
            "max-time = 15",
            "silent",
            "globoff",
            r'write-out = "%{http_code} %{http_version}\n"',
        ]


def _answer(line: str, body: Path) -> Answer:
    status, version = line.split()
    return Answer(int(status), version, body.read_bytes() if body.exists() else b"")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
