"""An Upstream in front of a fake homeserver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from scanner.admission import Budget
from scanner.errors import ScannerError
from scanner.events import Event, UpstreamAnswered
from scanner.media import MediaRef
from scanner.upstream.connection import Connection, Timers
from scanner.upstream.fetch import Endpoint, MediaRequest, Upstream, paths_to
from scanner.upstream.transport import Caller, Forwarded, Transport
from tests.fake_homeserver import FakeHomeserver, Script, refusing

MIB = 1024 * 1024
SIZE = 2 * MIB
ALICE, BOB = "Bearer alice", "Bearer bob"
NOT_FOUND = refusing("404 Not Found", "M_NOT_FOUND")
UNKNOWN_ENDPOINT = refusing("400 Bad Request", "M_UNRECOGNIZED")
QUICK = Timers(first_byte=0.3, idle=0.2, total=0.5)


def wanted(
    authorization: str | None = ALICE,
    *,
    origin: str = "example.org",
    endpoint: Endpoint = Endpoint.DOWNLOAD,
    query: str = "",
    filename: str | None = None,
    client_ip: str | None = None,
    forwarded: Forwarded = (),
) -> MediaRequest:
    paths = paths_to(endpoint, MediaRef(origin, "abc"), filename, authenticated=bool(authorization))
    return MediaRequest(paths, Caller(authorization, client_ip, forwarded), query)


@dataclass
class Rig:
    """An Upstream in front of a fake homeserver."""

    homeserver: FakeHomeserver
    stack: AsyncExitStack
    connection: Connection = field(init=False)
    events: list[Event] = field(default_factory=list)
    budget: Budget = field(default_factory=lambda: Budget(32 * MIB, 0.2))

    async def upstream(
        self,
        script: Script | None = None,
        *,
        url: str | None = None,
        timers: Timers | None = None,
        redirect_hosts: frozenset[str] = frozenset(),
        transport: Transport | None = None,
    ) -> Upstream:
        if script is not None:
            self.homeserver.script = script
        self.connection = await self.stack.enter_async_context(
            Connection(
                url or self.homeserver.url,
                transport=transport or Transport(),
                redirect_hosts=redirect_hosts,
                publish=self.events.append,
                timers=timers or Timers(5, 5, 5),
            )
        )
        return Upstream(self.connection, budget=self.budget, media_size=SIZE, publish=self.events.append)

    def codes(self) -> list[str]:
        return [event.code for event in self.events if isinstance(event, UpstreamAnswered)]


def soon(seconds: float = 5) -> float:
    return asyncio.get_running_loop().time() + seconds


async def fetched(upstream: Upstream, request: MediaRequest | None = None, seconds: float = 5) -> bytes:
    async with upstream.fetch(request or wanted(), soon(seconds)) as media:
        return media.body.read(0, media.body.size)


async def refused(work: Awaitable[object]) -> ScannerError:
    with pytest.raises(ScannerError) as caught:
        await work
    return caught.value
