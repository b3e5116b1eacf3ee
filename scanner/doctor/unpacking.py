"""Whether archives can be unpacked here, and by processes that reach nothing else.

Found by unpacking one, in a process as the service has them: what counts is what this machine allows.
"""

from __future__ import annotations

import asyncio
import io
import os
import zipfile
from contextlib import aclosing

from scanner.containers.readers import Reader
from scanner.doctor.finding import Notes
from scanner.errors import EngineError, Unavailable
from scanner.events import Event, ProcessChanged
from scanner.media import BodyWriter
from scanner.unpacking.allowance import FREELY, Allowance, Unreadable
from scanner.unpacking.fork_server import TEMPLATE
from scanner.unpacking.unpacker import Unpacker

_PATIENCE = 10.0
_INSTALL = "install libarchive13 (Debian) and libseccomp2"
_CONFINE = (
    "install libseccomp2; in a container let its profile allow seccomp; else compare your unit with "
    "deploy/systemd/media-scanner.service"
)


async def examine(notes: Notes, template: str = TEMPLATE) -> None:
    """Unpack an archive; `template` is the module that the processes are copies of."""
    told = list[Event]()
    try:
        async with Unpacker(told.append, 1, template) as unpacker:
            await _unpack(unpacker)
    except (EngineError, Unavailable, Unreadable) as problem:
        notes.failed("unpacking", str(problem), _INSTALL)
        return
    state = next(event for event in told if isinstance(event, ProcessChanged))
    if state.state == "ready":
        notes.ok("unpacking", state.detail)
    else:
        found = f"{state.detail}: one that an archive takes over could read the keys in state_dir"
        notes.warning("unpacking", found, _CONFINE)


async def _unpack(unpacker: Unpacker) -> None:
    writer = BodyWriter()
    writer.write(_archive())
    body = writer.seal()
    try:
        allowance = Allowance(1, FREELY, 1, asyncio.get_running_loop().time() + _PATIENCE)
        async with aclosing(unpacker.members(body.fileno(), Reader.LIBARCHIVE, allowance, FREELY)) as members:
            async for member in members:
                os.close(member.fd)
    finally:
        body.release()


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("name", "content")
    return buffer.getvalue()
