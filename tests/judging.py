"""The product's own judgement about bytes: every engine, put together as the service has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from scanner.bus import Bus
from scanner.config import Config
from scanner.events import Occasion, Publish, Source
from scanner.judge import judging_files
from scanner.media import Sample
from scanner.verdict import Verdict
from tests.fakes import a_body
from tests.real_clamd import Clamd

Judge = Callable[[bytes], Awaitable[Verdict]]

_OCCASION = Occasion(None, Source.SCAN, encrypted=False, request_id="")
_PATIENCE = 60.0


@asynccontextmanager
async def judging_bytes(
    clamd: Clamd, state: Path, *sinks: Publish, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[Judge]:
    """What gives the verdict on bytes; `settings` are more sections of the configuration."""
    config = Config.model_validate(
        {
            "state_dir": state,
            "clamav": {"addresses": [f"unix:{clamd.socket}"], "max_signature_age": None},
            **(settings or {}),
        }
    )
    async with judging_files(config, Bus(sinks), lambda _: None) as judge:

        async def judged(data: bytes) -> Verdict:
            body = a_body(data)
            try:
                deadline = asyncio.get_running_loop().time() + _PATIENCE
                return await judge.pipeline.inspect(_OCCASION, Sample(body), deadline)
            finally:
                body.release()

        yield judged
