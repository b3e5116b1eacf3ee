"""What gives verdicts, put together for a command beside the service."""

from __future__ import annotations

import asyncio
import zipfile
from pathlib import Path

import pytest

from scanner.bus import Bus
from scanner.config import Config
from scanner.events import Occasion, Source
from scanner.judge import judging_files
from scanner.media import Sample
from scanner.pipeline import Pipeline
from scanner.verdict import Outcome, Verdict
from tests.archives import zip_of
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


@pytest.mark.real
async def test_what_a_reload_changes_of_archives_is_another_version_of_that_engine_alone(
    tmp_path: Path, clamd: Clamd
) -> None:
    sections: dict[str, dict[str, object]] = {
        "clamav": {"addresses": [f"unix:{clamd.socket}"], "max_signature_age": None},
        "policy": {"blocked_types": ["image/*"]},
    }
    config = configured(tmp_path, sections)
    async with judging_files(config, Bus(()), lambda _: None) as judge:
        locked = zip_of({"a": zip_of({"b": b"letter"}, zipfile.ZIP_LZMA)}, zipfile.ZIP_LZMA)
        first = await judged(judge.pipeline_under(config), locked)
        assert (await judged(judge.pipeline, locked)).versions == first.versions
        for section, change in (("archives", {"depth": 1}), ("policy", {"types_in_archives": True})):
            other = configured(tmp_path, {**sections, section: {**sections.get(section, {}), **change}})
            verdict = await judged(judge.pipeline_under(other), locked)
            assert verdict.outcome is Outcome.CLEAN
            assert changed(first, verdict) == {"archive"}
        too_deep = configured(tmp_path, {**sections, "archives": {"members": 1}})
        several = zip_of({"a": b"a", "b": b"b"}, zipfile.ZIP_LZMA)
        assert (await judged(judge.pipeline_under(too_deep), several)).outcome is Outcome.UNSCANNABLE
        assert (await judged(judge.pipeline, several)).outcome is Outcome.CLEAN


def configured(state: Path, sections: dict[str, dict[str, object]]) -> Config:
    return Config.model_validate({"state_dir": state / "state", **sections})


async def judged(pipeline: Pipeline, content: bytes) -> Verdict:
    body = a_body(content)
    deadline = asyncio.get_running_loop().time() + 10
    occasion = Occasion(None, Source.SCAN, encrypted=False, request_id="")
    try:
        return await pipeline.inspect(occasion, Sample(body), deadline)
    finally:
        body.release()


def changed(one: Verdict, other: Verdict) -> set[str]:
    assert one.versions is not None
    assert other.versions is not None
    return {name for name, version in one.versions.items() if other.versions[name] != version}
