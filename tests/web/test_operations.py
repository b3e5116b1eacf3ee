from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from scanner.web.routes import operations_routes
from scanner.web.server import Site
from tests.raw_client import Reply, connected, request
from tests.web.service import WARNINGS, Service, networks, operations

REASONS = {"engine": "clamd does not answer: is it running?"}


class OperationsListener:
    """What an operator asks."""

    def __init__(self, port: int, readiness: dict[str, str]) -> None:
        self._port = port
        self.readiness = readiness

    async def get(self, path: str, **headers: str) -> Reply:
        async with connected(self._port) as client:
            return await client.ask(request(path, body=None, **headers))


@pytest.fixture
async def listener() -> AsyncIterator[OperationsListener]:
    readiness: dict[str, str] = {}
    site = Site(
        operations_routes(operations(readiness)),
        publish=lambda event: None,
        request_timeout=5,
        reader_timeout=5,
        trusted_proxies=networks(),
    )
    yield OperationsListener(await site.listen("127.0.0.1", 0), readiness)
    await site.drain(0)


async def test_a_live_process_says_so(service: Service, listener: OperationsListener) -> None:
    service.readiness.update(REASONS)
    assert (await service.ask(request("/health/live"))).content == {"live": True}
    assert (await listener.get("/health/live")).content == {"live": True}


async def test_without_reasons_to_the_contrary_we_are_ready_and_the_mode_is_none(
    service: Service, listener: OperationsListener
) -> None:
    public, private = await service.ask(request("/health/ready")), await listener.get("/health/ready")
    assert (public.status, public.content) == (200, {"ready": True})
    told = {"ready": True, "mode": "observe", "reasons": {}, "warnings": WARNINGS}
    assert (private.status, private.content) == (200, told)


async def test_only_operators_learn_the_mode_and_why_we_are_not_ready(
    service: Service, listener: OperationsListener
) -> None:
    service.readiness.update(REASONS)
    listener.readiness.update(REASONS)
    public, private = await service.ask(request("/health/ready")), await listener.get("/health/ready")
    assert (public.status, public.content) == (503, {"ready": False})
    told = {"ready": False, "mode": "observe", "reasons": REASONS, "warnings": WARNINGS}
    assert (private.status, private.content) == (503, told)
    assert public.header("retry-after") == private.header("retry-after") == "5"


async def test_metrics_are_what_the_scraper_accepts(listener: OperationsListener) -> None:
    reply = await listener.get("/metrics", Accept="application/openmetrics-text")
    assert reply.status == 200
    assert reply.body == b"accept application/openmetrics-text\n"
    assert reply.header("content-type") == "text/plain; version=0.0.4"


async def test_metrics_are_no_business_of_the_public(service: Service) -> None:
    assert (await service.ask(request("/metrics"))).unrecognized


async def test_the_scanner_api_is_not_on_the_operations_listener(listener: OperationsListener) -> None:
    reply = await listener.get("/_matrix/media_proxy/unstable/public_key")
    assert reply.status == 404
    assert reply.unrecognized
