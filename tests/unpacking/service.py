"""A service with a container that is never read to its end; it says so when it is at it."""

from __future__ import annotations

import asyncio
import os

from tests.unpacking.scene import PROBING, scene


async def main() -> None:
    async with scene(template=PROBING) as stage:
        await stage.unpacked(b"nothing")
        await stage.idle()
        async with asyncio.TaskGroup() as group:
            group.create_task(stage.unpacked(b"sleep"))
            os.write(1, b"%d %d\n" % (stage.template(), await stage.working()))


if __name__ == "__main__":
    asyncio.run(main())
