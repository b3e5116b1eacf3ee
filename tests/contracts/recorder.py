"""What every Recorder keeps to; a test class of its own inherits this, with two fixtures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from scanner.events import Detected, Occasion, Source
from scanner.media import MediaRef
from scanner.ports import Recorder
from tests.contracts.event_sink import made

# Opens one whose files lie below a directory, which need not be there.
Opens = Callable[[Path], AbstractAsyncContextManager[Recorder]]
# How many detections lie in that directory.
Counts = Callable[[Path], int]


def detected(media_id: str = "abc") -> Detected:
    """Malware in a download of this media."""
    occasion = Occasion(MediaRef("example.org", media_id), Source.DOWNLOAD, encrypted=False, request_id="1")
    return made(Detected, "Win.Test", occasion)  # type: ignore[no-any-return]


class RecorderContract:
    """Inherit and be called Test..., with fixtures `opens` and `counts`."""

    @staticmethod
    def make_unwritable(directory: Path) -> None:
        """Take away what it writes to, while it is open."""
        raise NotImplementedError

    async def test_a_detection_is_on_the_disk_when_it_is_recorded(
        self, tmp_path: Path, opens: Opens, counts: Counts
    ) -> None:
        async with opens(tmp_path) as recorder:
            await recorder.record(detected())
            assert counts(tmp_path) == 1

    async def test_repetitions_are_recorded_once_after_a_restart_too(
        self, tmp_path: Path, opens: Opens, counts: Counts
    ) -> None:
        for _ in range(2):
            async with opens(tmp_path) as recorder:
                await asyncio.gather(*(recorder.record(detected()) for _ in range(8)))
        assert counts(tmp_path) == 1

    async def test_other_media_are_recorded_for_themselves(
        self, tmp_path: Path, opens: Opens, counts: Counts
    ) -> None:
        async with opens(tmp_path) as recorder:
            await asyncio.gather(*(recorder.record(detected(str(number))) for number in range(8)))
            assert counts(tmp_path) == 8

    async def test_a_cancelled_wait_takes_the_record_from_nobody(
        self, tmp_path: Path, opens: Opens, counts: Counts
    ) -> None:
        async with opens(tmp_path) as recorder:
            tasks = [asyncio.create_task(recorder.record(detected())) for _ in range(2)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            await tasks[1]
            assert counts(tmp_path) == 1

    async def test_a_disk_that_takes_nothing_is_no_error_and_holds_nobody(
        self, tmp_path: Path, opens: Opens
    ) -> None:
        async with opens(tmp_path) as recorder:
            self.make_unwritable(tmp_path)
            began = time.monotonic()
            await asyncio.gather(*(recorder.record(detected(str(number))) for number in range(8)))
            assert time.monotonic() - began < 5
