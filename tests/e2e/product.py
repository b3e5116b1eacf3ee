"""The product as an operator starts it: `python -m scanner serve`, in front of a homeserver."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.e2e.process import Child, free_ports


class Product:
    """A running scanner with an embedded clamd, for the length of a `with` block.

    Its files lie in `directory`, which must be empty. Leaving the block asserts that SIGTERM ends it well.
    `settings` are sections of further configuration, `launcher` a program and arguments that run it.
    """

    def __init__(
        self,
        directory: Path,
        homeserver: str,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        public, operations = free_ports(2)
        self.url = f"http://127.0.0.1:{public}"
        self.operations_url = f"http://127.0.0.1:{operations}"
        self.state = directory / "state"
        self._output = directory / "output.log"
        secret = directory / "request_secret"
        secret.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        secret.chmod(0o600)
        tree: dict[str, Any] = {
            "server": {
                "listen": self.url.removeprefix("http://"),
                "ops_listen": self.operations_url.removeprefix("http://"),
            },
            "state_dir": str(self.state),
            "homeserver": {"url": homeserver},
            "crypto": {"secret_file": str(secret)},
            "clamav": {"accept_test_signatures": True, "freshclam": "off"},
        }
        for section, keys in (settings or {}).items():
            tree.setdefault(section, {}).update(keys)
        self.configuration = directory / "media-scanner.yaml"
        self.configuration.write_text(yaml.safe_dump(tree))
        command = [sys.executable, "-m", "scanner", "serve", "--config", str(self.configuration)]
        self.process = Child([*launcher, *command], self._output)

    def __enter__(self) -> Self:
        self.process.start()
        try:
            self.process.wait_until(lambda: self.answers("live"), 30)
            self.process.wait_until(lambda: self.answers("ready"), 120)
        except BaseException:
            self.process.terminate(30)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, which must end it well."""
        status = self.process.terminate(30)
        assert status == 0, f"exit status {status} after SIGTERM:\n{self._output.read_text()}"

    def output(self, until: str = "") -> str:
        """All that it has written, once that holds `until`; it writes its log behind its answers."""
        self.process.wait_until(lambda: until in self._output.read_text(), 10)
        return self._output.read_text()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of `name` (without the prefix) that carry all of `labels`."""
        samples = [sample for sample in self._samples() if labels.items() <= sample.labels.items()]
        return sum(sample.value for sample in samples if sample.name == f"media_scanner_{name}")

    def values(self, *names: str) -> list[float]:
        """All samples of these metrics at one moment."""
        prefixed = {f"media_scanner_{name}" for name in names}
        return [sample.value for sample in self._samples() if sample.name in prefixed]

    def metrics(self) -> str:
        """All of them, as Prometheus reads them."""
        with urllib.request.urlopen(f"{self.operations_url}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def _samples(self) -> list[Sample]:
        families = text_string_to_metric_families(self.metrics())
        return [sample for family in families for sample in family.samples]

    def answers(self, what: str) -> bool:
        """Whether `live` or `ready` is answered with 200."""
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{self.operations_url}/health/{what}", timeout=10) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def reasons(self) -> set[str]:
        """Why it is not ready; empty when it is."""
        return set(self._readiness()["reasons"])

    def warnings(self) -> dict[str, str]:
        """What is not well, ready or not."""
        return dict(self._readiness()["warnings"])

    def _readiness(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"{self.operations_url}/health/ready", timeout=10) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as unready:
            with unready:
                return dict(json.load(unready))
