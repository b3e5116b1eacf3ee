"""Waiting for a descriptor that stays the caller's."""

from __future__ import annotations

import asyncio


async def readable(fd: int) -> None:
    """Wait until there is something to read, or the end; raises PermissionError for a file.

    Not a transport: uvloop's closes the number by itself, one turn after it was told to. Whoever closes it,
    too, closes what somebody else has opened in between.
    """
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)  # PermissionError is of epoll, which takes no files
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
