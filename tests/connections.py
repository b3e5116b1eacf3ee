"""The connections of a fake server, none of which outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_TURNS = 3  # of the event loop, from a connection that the kernel has to the call of `accept`


class Connections:
    """Each is served by a task of its own. `accept` is for `asyncio.start_server`.

    No coroutine: a task that is cancelled before its first turn never gets to close its connection.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._until_closed(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._open.pop)

    async def close(self) -> None:
        """Break off all of them, those that are just being made, too."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        broken = dict(self._open)
        for task, writer in broken.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*broken, return_exceptions=True)

    async def _until_closed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
