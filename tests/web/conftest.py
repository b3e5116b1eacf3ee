from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from tests.web.service import Serve, Service, Settings, running

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    """What the product runs on; where connections themselves are the matter, asyncio's own loop as well."""
    if item.path.stem in ("test_server", "test_request", "test_wire"):
        return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Makes services with `Settings` of the test's choice."""
    async with AsyncExitStack() as stack:

        async def start(**changes: Any) -> Service:
            return await stack.enter_async_context(running(Settings(**changes)))

        yield start


@pytest.fixture
async def service(serve: Serve) -> Service:
    return await serve()


@pytest.fixture
def discreet(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing that stands in a request may reach a log or stderr, and nothing is worth a warning."""
    caplog.set_level(logging.DEBUG)
    yield
    captured = capfd.readouterr()
    assert "SECRET" not in caplog.text + captured.out + captured.err
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert captured.err == ""
