"""Bodies on their way to us."""

from __future__ import annotations

import asyncio

import pytest

from scanner.web import reception
from tests.fake_homeserver import until
from tests.raw_client import connected, request
from tests.web.service import ALICE, MIB, Service
from tests.web.test_uploads import UPLOAD, storing


async def test_a_silent_sender_is_given_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "SILENCE", 0.2)
    service.homeserver.script = storing()
    async with connected(service.port) as client:
        await client.send(request(UPLOAD, ALICE, method="POST", Content_Length="100") + b"begin")
        assert (await client.reply()).matrix_error == (408, "M_UNKNOWN")
    await until(lambda: service.idle)


async def test_a_sender_below_the_lowest_rate_is_given_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "SILENCE", 0.3)
    service.homeserver.script = storing()
    async with connected(service.port) as client:
        await client.send(request(UPLOAD, ALICE, method="POST", Content_Length=str(MIB)))
        for _ in range(10):
            await client.send(b"x")
            await asyncio.sleep(0.05)
        assert (await client.reply()).matrix_error == (408, "M_UNKNOWN")
    await until(lambda: service.idle)
