"""What gives verdicts, put together for a command beside the service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scanner.config import Config
from scanner.events import Bus, Occasion, Source
from scanner.judge import judging_files
from scanner.media import Sample
from scanner.verdict import Outcome
from tests.fakes import a_body
from tests.real_clamd import EICAR, Clamd


@pytest.mark.real
@pytest.mark.parametrize(("content", "outcome"), [(EICAR, Outcome.INFECTED), (b"clean", Outcome.CLEAN)])
async def test_files_are_judged_without_a_secret_and_nothing_is_left(
    tmp_path: Path, clamd: Clamd, content: bytes, outcome: Outcome
) -> None:
    state = tmp_path / "state"
    config = Config.model_validate(
        {"state_dir": state, "clamav": {"addresses": [f"unix:{clamd.socket}"], "max_signature_age": None}}
    )
    notes: list[str] = []
    body = a_body(content)
    async with judging_files(config, Bus(()), notes.append) as judge:
        deadline = asyncio.get_running_loop().time() + 10
        occasion = Occasion(None, Source.SCAN, encrypted=False, request_id="")
        assert (await judge.pipeline.inspect(occasion, Sample(body), deadline)).outcome is outcome
    body.release()
    assert not state.exists()
    assert not notes
