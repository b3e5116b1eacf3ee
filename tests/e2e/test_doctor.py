"""`doctor` beside a real Synapse and a running service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.command import media_scanner_process
from tests.e2e.product import Product
from tests.e2e.synapse import Synapse, User

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


def findings(config: Path, *arguments: str) -> dict[str, dict[str, str]]:
    done = media_scanner_process("doctor", *arguments, "--json", "--config", config)
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


async def test_a_real_synapse_is_told_with_its_upload_limit(
    synapse: Synapse, alice: User, tmp_path: Path
) -> None:
    config, token = tmp_path / "scanner.yaml", tmp_path / "token"
    config.write_text(yaml.safe_dump({"homeserver": {"url": synapse.url}}))
    token.write_text(alice.token)
    found = findings(config, "homeserver", "--access-token-file", str(token))
    assert found["answers"]["found"].startswith("Synapse/")
    assert [found[name]["status"] for name in ("answers", "clock", "authenticated media")] == ["ok"] * 3
    assert found["upload limit"]["status"] == "warning"
    assert "users may upload 50 MiB" in found["upload limit"]["found"]

    token.write_text("syt_wrong")
    assert (
        findings(config, "homeserver", "--access-token-file", str(token))["upload limit"]["status"]
        == "failed"
    )


def test_the_clamd_of_the_running_service_is_asked(product: Product) -> None:
    found = findings(product.configuration, "clamd", "service")
    assert found["service"]["found"] == "runs, and is ready"
    assert "clamd of the service that runs here" in found["embedded"]["found"]
    assert found["test virus"]["status"] == "ok"
