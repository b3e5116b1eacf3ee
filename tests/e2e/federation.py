"""Two homeservers that federate on loopback; before one of them stands the product."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack
from ssl import SSLContext
from typing import Self

import aiohttp
from aiohttp import web
from signedjson.key import read_signing_keys
from signedjson.sign import sign_json
from yarl import URL

from tests.certificates import Authority
from tests.e2e.synapse import Synapse, User

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host"}
_MEDIA = re.compile(r"/_matrix/(client/v1/media|media|federation/v1/media)/")


class FederatingSynapse(Synapse):
    """A homeserver that the world knows at a port of loopback; it believes `authority` alone.

    It serves media without authentication, too, in the places where older servers ask.
    """

    def __init__(self, port: int, authority: Authority) -> None:
        self.server_name = f"localhost:{port}"
        super().__init__(
            {
                "server_name": self.server_name,
                "federation_domain_whitelist": None,
                "federation_custom_ca_list": [str(authority.certificate)],
                "ip_range_blacklist": [],
                "suppress_key_server_warning": True,
                "enable_authenticated_media": False,
            }
        )

    def signed(self, uri: str, destination: str) -> str:
        """The Authorization header of a GET in this server's name."""
        with (self._directory / "signing.key").open() as file:
            [key] = read_signing_keys(file)
        names = {"origin": self.server_name, "destination": destination}
        content = sign_json({"method": "GET", "uri": uri, **names}, self.server_name, key)
        [(key_id, signature)] = content["signatures"][self.server_name].items()
        named = {**names, "key": key_id, "sig": signature}
        return "X-Matrix " + ",".join(f'{name}="{value}"' for name, value in named.items())

    async def thinks_down(self, server_name: str, admin: User) -> bool:
        """Whether it sends nothing to another server, for now."""
        path = f"/_synapse/admin/v1/federation/destinations/{server_name}"
        async with (
            aiohttp.ClientSession(self.url, headers=admin.headers) as session,
            session.get(path) as answer,
        ):
            return bool((await answer.json()).get("retry_interval"))

    async def thinks_up(self, server_name: str, admin: User) -> None:
        """Let it send again."""
        path = f"/_synapse/admin/v1/federation/destinations/{server_name}/reset_connection"
        async with aiohttp.ClientSession(self.url, headers=admin.headers, raise_for_status=True) as session:
            await session.post(path, json={})


class Front:
    """A reverse proxy with TLS, for the length of a `with` block: media go to `scanner`, all else past it.

    While it is `old`, it knows no media of the federation, as no server did until 2024.
    """

    def __init__(self, port: int, tls: SSLContext, homeserver: str, scanner: str) -> None:
        self.old = False
        self._port = port
        self._tls = tls
        self._homeserver = homeserver
        self._scanner = scanner
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._stack = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> AsyncExitStack:
        async with AsyncExitStack() as stack:
            self._session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
            server = web.Server(self._pass)
            runner = web.ServerRunner(server, shutdown_timeout=1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            stack.callback(_abort_all, server)
            await web.TCPSite(runner, "localhost", self._port, ssl_context=self._tls).start()
            return stack.pop_all()

    async def _pass(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        if self.old and target.startswith("/_matrix/federation/v1/media/"):
            return web.json_response(
                {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}, status=404
            )
        there = self._scanner if _MEDIA.match(target) else self._homeserver
        async with self._session.request(
            request.method,
            URL(there + target, encoded=True),
            headers=_end_to_end(request.headers),
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            return web.Response(
                status=answer.status, headers=_end_to_end(answer.headers), body=await answer.read()
            )


def _abort_all(server: web.Server) -> None:
    """Idle connections would wait for their peers to say goodbye."""
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.abort()


def _end_to_end(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP]
