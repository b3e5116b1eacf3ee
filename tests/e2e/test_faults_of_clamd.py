"""clamd is absent, killed, stopped, busy, lies, or cannot read: facts/security.md, section 4, for real."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.scene import BUSY, MIB, REFUSED, Scene, letter, scene
from tests.real_clamd import EICAR, Clamd

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

TRANSPORTS = pytest.mark.parametrize("transport", ["unix", "tcp"])
_ANYTHING = "Finds.Everything:0:*:" + b" is ".hex()
_NOTHING = "Finds.Nothing:0:*:" + b"what nobody ever writes".hex()


def address(clamd: Clamd, transport: str = "unix") -> str:
    return f"unix:{clamd.socket}" if transport == "unix" else f"tcp:127.0.0.1:{clamd.port}"


@contextmanager
def other_clamd() -> Iterator[Clamd]:
    """A clamd that is not started yet."""
    with tempfile.TemporaryDirectory(prefix="clamd-") as directory:
        clamd = Clamd(Path(directory))
        try:
            yield clamd
        finally:
            clamd.stop()


def is_refusal(reply_status: int, retry_after: str | None) -> bool:
    """503 always says when to come back."""
    return reply_status == 503 and 2 <= int(retry_after or 0) <= 30


async def refused(stage: Scene) -> None:
    """Clean and infected media, plain and encrypted, are answered alike: not now."""
    for reply in (
        await stage.clean(),
        await stage.infected(),
        await stage.scan(stage.upload(letter())),
        await stage.download_encrypted(stage.upload_encrypted(letter())),
        await stage.download_encrypted(stage.upload_encrypted(letter() + EICAR)),
    ):
        assert reply.refusal == BUSY
        assert is_refusal(reply.status, reply.headers.get("Retry-After"))


@TRANSPORTS
async def test_without_clamd_it_starts_refuses_every_file_and_recovers_alone(
    tmp_path: Path, transport: str
) -> None:
    with other_clamd() as clamd:
        async with scene(tmp_path, address(clamd, transport)) as stage:
            assert len(await stage.api.public_key()) == 43
            assert await stage.reasons() == {"engine"}
            await refused(stage)

            await asyncio.to_thread(clamd.start)

            assert await stage.recovers(5) < 2
            await stage.until_ready(5)


@TRANSPORTS
async def test_a_clamd_killed_in_the_middle_of_scans_fails_them_and_recovers_once_restarted(
    tmp_path: Path, private_clamd: Clamd, transport: str
) -> None:
    async with scene(tmp_path, address(private_clamd, transport)) as stage:
        await stage.until_ready()
        private_clamd.pause()
        scans = [asyncio.create_task(ask) for ask in (stage.clean(), stage.infected(), stage.clean())]
        await stage.until(lambda: stage.metric("engine_in_flight") == 3)

        private_clamd.stop()

        for reply in await asyncio.gather(*scans):
            assert reply.refusal == BUSY
        await refused(stage)
        await asyncio.to_thread(private_clamd.start)
        assert await stage.recovers(5) < 2


@TRANSPORTS
async def test_a_stopped_clamd_fails_scans_at_their_deadline_and_recovers_by_itself(
    tmp_path: Path, private_clamd: Clamd, transport: str
) -> None:
    async with scene(tmp_path, address(private_clamd, transport)) as stage:
        assert await stage.well()
        private_clamd.pause()

        began = time.monotonic()
        replies = await asyncio.gather(stage.clean(), stage.infected(), stage.clean())
        assert time.monotonic() - began < 3.5  # scan_timeout is 2 s
        assert {reply.refusal for reply in replies} == {BUSY}
        assert stage.metric("engine_requests_total", result="timeout") >= 3

        private_clamd.resume()
        assert await stage.recovers(5) < 2


async def test_a_verdict_that_is_known_is_given_while_clamd_is_away(
    tmp_path: Path, private_clamd: Clamd
) -> None:
    """It was about exactly these bytes, under signatures that have not changed."""
    async with scene(tmp_path, address(private_clamd)) as stage:
        await stage.until_ready()
        clean, infected = stage.upload(letter()), stage.upload(letter() + EICAR)
        assert (await stage.download(clean)).status == 200
        assert (await stage.download(infected)).refusal == REFUSED

        private_clamd.stop()

        assert (await stage.download(clean)).status == 200
        assert (await stage.download(infected)).refusal == REFUSED
        assert (await stage.clean()).refusal == BUSY


async def test_requests_go_on_while_one_of_two_clamds_is_killed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, second = [stack.enter_context(other_clamd()) for _ in range(2)]
        for clamd in (first, second):
            clamd.start()
        async with scene(tmp_path, address(first), address(second, "tcp")) as stage:
            await stage.until_ready()
            steady = [asyncio.create_task(_stream_of(stage, 40)) for _ in range(4)]
            await asyncio.sleep(0.2)
            first.stop()
            assert sum(await asyncio.gather(*steady)) == 160

            await asyncio.to_thread(first.start)
            second.stop()
            assert await stage.recovers(5) < 2


async def _stream_of(stage: Scene, number: int) -> int:
    return sum([await stage.well() for _ in range(number)])


@pytest.mark.parametrize(("signatures", "transport"), [(_NOTHING, "unix"), (_ANYTHING, "tcp")])
async def test_a_clamd_that_answers_the_canary_wrongly_fails_everybody_until_it_is_right(
    tmp_path: Path, private_clamd: Clamd, signatures: str, transport: str
) -> None:
    right = {path: path.read_text() for path in private_clamd.database.iterdir()}
    for path in right:
        path.unlink()
    wrong = private_clamd.database / "wrong.ndb"
    wrong.write_text(f"{signatures}\n")
    private_clamd.stop()
    private_clamd.start()
    async with scene(tmp_path, address(private_clamd, transport)) as stage:
        await stage.until(lambda: "canary: wrong answer" in stage.product.output())
        await refused(stage)
        assert await stage.reasons() == {"canary"}

        wrong.unlink()
        for path, text in right.items():
            path.write_text(text)
        assert private_clamd.command("RELOAD") == "RELOADING"

        assert await stage.recovers(5) < 3
        await stage.until_ready(5)


async def test_a_clamd_that_comes_back_without_its_signatures_is_caught_by_the_canary(
    tmp_path: Path, private_clamd: Clamd
) -> None:
    async with scene(tmp_path, address(private_clamd)) as stage:
        assert await stage.recovers(10)
        private_clamd.stop()
        for path in private_clamd.database.iterdir():
            path.unlink()
        (private_clamd.database / "other.ndb").write_text(f"{_NOTHING}\n")
        await stage.until(lambda: stage.metric("engine_up") == 0)
        await asyncio.to_thread(private_clamd.start)

        await stage.until(lambda: "canary: wrong answer" in stage.product.output())

        await refused(stage)


async def test_scans_queue_in_the_proxy_and_are_turned_away_after_queue_wait(
    tmp_path: Path, private_clamd: Clamd
) -> None:
    async with scene(tmp_path, address(private_clamd), clamav={"scan_timeout": "4s"}) as stage:
        await stage.until_ready()
        private_clamd.pause()
        began = time.monotonic()
        waiting = [asyncio.create_task(_timed(stage, began)) for _ in range(20)]
        await stage.until(lambda: stage.metric("engine_queue_length") > 0, 2)
        assert stage.metric("engine_in_flight") < 20

        replies = await asyncio.gather(*waiting)

        assert all(is_refusal(status, retry_after) for status, retry_after, _ in replies)
        turned_away = [seconds for *_, seconds in replies if seconds < 2.5]  # queue_wait is 1 s
        assert len(turned_away) == stage.metric("requests_rejected_total", reason="overload") > 0
        private_clamd.resume()
        assert await stage.recovers(5) < 2


async def _timed(stage: Scene, began: float) -> tuple[int, str | None, float]:
    reply = await stage.clean()
    return reply.status, reply.headers.get("Retry-After"), time.monotonic() - began


async def test_a_clamd_that_can_write_no_file_fails_the_scan(tmp_path: Path, private_clamd: Clamd) -> None:
    """A full disk, to clamd: over TCP it writes what it gets to a file first."""
    async with scene(tmp_path, address(private_clamd, "tcp")) as stage:
        assert await stage.recovers(10)
        shutil.rmtree(private_clamd.directory / "tmp")

        await refused(stage)

        (private_clamd.directory / "tmp").mkdir()
        assert await stage.recovers(5) < 2


async def test_a_clamd_that_takes_less_than_our_limit_fails_what_it_did_not_see(
    tmp_path: Path, private_clamd: Clamd
) -> None:
    limits = {"media_size": "30MiB", "memory": "104MiB"}
    async with scene(tmp_path, address(private_clamd, "tcp"), limits=limits) as stage:
        assert await stage.recovers(10)
        large = letter().ljust(26 * MIB, b".")  # StreamMaxLength is 25M

        assert (await stage.download(stage.upload(large + EICAR))).refusal == BUSY

        assert stage.metric("engine_requests_total", result="limit") == 1
        assert await stage.well()
