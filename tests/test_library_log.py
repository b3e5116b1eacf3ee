from __future__ import annotations

import logging

from scanner.events import Event, LibraryWarned
from scanner.library_log import library_log


def test_warnings_are_published_without_their_arguments() -> None:
    events: list[Event] = []
    log = logging.getLogger("aiohttp.server")
    with library_log(events.append):
        log.warning("cannot read %s\nat all", "syt_secret")
        log.info("unheard")
    log.warning("after it")
    assert events == [LibraryWarned("aiohttp.server", "cannot read %s")]
