"""Uploads when clients, clamd or the homeserver fail (facts/security.md, section 4), caused for real."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from scanner.web.routes import API
from tests.e2e.machine import memory_of
from tests.e2e.scene import MIB, Scene, letter, scene
from tests.e2e.test_faults_of_clamd import address, other_clamd
from tests.e2e.test_faults_of_room import idle, port_of
from tests.e2e.test_stopping import terminate, until_ended
from tests.fake_homeserver import FOREVER, FakeHomeserver, Heard, Step, Then, head, serving
from tests.raw_client import RawClient, Reply, connected, request
from tests.real_clamd import EICAR, Clamd
from tests.web.test_uploads import STORED, UPLOAD, json_reply

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

FORBIDDEN, BUSY, FAILED, SILENT = (
    (403, "M_FORBIDDEN"),
    (503, "M_UNKNOWN"),
    (502, "M_UNKNOWN"),
    (504, "M_UNKNOWN"),
)
LIMIT = 2 * MIB
MB = 1_000_000
_PIECE = bytes(MB)
TYPE = ("Content-Type", "application/json")


class Uploads:
    """A scene whose homeserver takes uploads from everybody; it keeps what it got, but for what is large."""

    def __init__(self, stage: Scene) -> None:
        self.stage = stage
        self.answer: Sequence[Step] = json_reply(STORED)
        self.received: list[bytes] = []
        stage.homeserver.script = self.script

    def script(self, heard: Heard) -> Iterable[Step]:
        target = heard.target.partition("?")[0]
        if target.endswith("/config"):
            return json_reply({"m.upload.size": 50 * MIB})
        if heard.method == "GET":
            content = self.stage.library.get(target.rpartition("/")[2])
            return (serving(b"{}") if content is None else serving(content))(heard)
        self.received.append(heard.body[: LIMIT + 1])
        self.stage.homeserver.heard.clear()
        return self.answer

    async def upload(self, content: bytes, who: str = "alice") -> Reply:
        async with connected(port_of(self.stage)) as client:
            await client.send(request(UPLOAD, who, method="POST", body=content))
            return await client.reply(within=50)

    async def upload_large(self, who: str) -> Reply:
        """20 MB, of which no more is in our own memory than is on its way."""
        first = letter()
        async with connected(port_of(self.stage)) as client:
            await client.send(request(UPLOAD, who, method="POST", Content_Length=str(20 * MB)))
            await client.send(first + _PIECE[len(first) :])
            for _ in range(19):
                await client.send(_PIECE)
            return await client.reply(within=100)

    @asynccontextmanager
    async def begun(self, content: bytes, sent: int, who: str = "alice") -> AsyncIterator[RawClient]:
        """An upload of which `sent` bytes are on their way, and its room is reserved."""
        before = self.stage.metric("buffer_bytes")
        async with connected(port_of(self.stage)) as client:
            head = request(UPLOAD, who, method="POST", Content_Length=str(len(content)))
            await client.send(head + content[:sent])
            await self.stage.until(lambda: self.stage.metric("buffer_bytes") == before + len(content))
            yield client

    async def well(self) -> bool:
        """Whether clean files get to the homeserver, and infected ones do not."""
        clean = letter()
        infected = await self.upload(letter() + EICAR)
        assert infected.matrix_error in (FORBIDDEN, BUSY)
        delivered = (await self.upload(clean)).status == 200
        assert delivered == (clean in self.received)
        return delivered and infected.matrix_error == FORBIDDEN

    def check(self) -> None:
        """Nothing infected ever got to the homeserver, nor more than engines have called clean."""
        assert not [content for content in self.received if EICAR in content]
        assert len(set(self.received)) <= self.stage.metric("scans_total", source="upload", verdict="clean")


@asynccontextmanager
async def uploads(directory: Path, clamd: Clamd, **sections: Mapping[str, Any]) -> AsyncIterator[Uploads]:
    """Ready, and checked at the end."""
    async with scene(directory, address(clamd), **sections) as stage:  # type: ignore[arg-type]
        taking = Uploads(stage)
        await stage.until_ready()
        yield taking
        if not stage.product.process.ended:
            assert await idle(stage)
            taking.check()


# -- the homeserver ------------------------------------------------------------------------------


def drips(first: bytes) -> list[Step]:
    return [first, *(step for _ in range(50) for step in (0.2, b" "))]


ANSWER = head(headers=[TYPE, ("Content-Length", "200")])
FAULTS: dict[str, tuple[Sequence[Step], tuple[int, str]]] = {
    "reset": ([Then.RESET], FAILED),
    "closed": ([Then.HANG_UP], FAILED),
    "no HTTP": ([b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Then.HANG_UP], FAILED),
    "cut in its head": ([ANSWER[:20], Then.HANG_UP], FAILED),
    "cut in its answer": ([ANSWER, b"{", Then.HANG_UP], FAILED),
    "no JSON": ([head(headers=[("Content-Length", "6")]), b"<html>"], FAILED),
    "204": ([head("204 No Content")], FAILED),
    "redirect": (
        [head("307 Elsewhere", [("Location", "http://127.0.0.1:9/x"), ("Content-Length", "0")])],
        FAILED,
    ),
    "503": (json_reply({"errcode": "M_UNKNOWN", "error": "Oh"}, "503 Oh"), BUSY),
    "quota": (
        json_reply({"errcode": "M_RESOURCE_LIMIT_EXCEEDED", "error": "Full"}, "403 Full"),
        (403, "M_RESOURCE_LIMIT_EXCEEDED"),
    ),
    "silent": ([FOREVER], SILENT),
    "dripping head": (drips(b"HTTP/1.1 200 OK\r\nX-Slow: "), SILENT),
    "stalled answer": ([ANSWER, b"{", FOREVER], SILENT),
    "dripping answer": (drips(ANSWER), SILENT),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(clamd: Clamd, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Uploads]:
    async with uploads(tmp_path_factory.mktemp("uploads"), clamd) as taking:
        yield taking


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", FAULTS)
async def test_a_homeserver_that_fails_after_the_scan_gets_its_own_answer(shared: Uploads, name: str) -> None:
    shared.answer, expected = FAULTS[name]
    began = time.monotonic()

    reply = await shared.upload(letter().ljust(MIB, b"."))

    assert reply.matrix_error == expected
    assert time.monotonic() - began < 4
    await mended(shared)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "name",
    [name for name, (steps, _) in FAULTS.items() if not any(isinstance(step, float) for step in steps)],
)
async def test_a_homeserver_that_hangs_up_without_reading_is_a_failure_whatever_it_said(
    shared: Uploads, name: str
) -> None:
    steps, expected = FAULTS[name]
    shared.answer, shared.stage.homeserver.reads_bodies = [*steps, Then.HANG_UP], False

    assert (await shared.upload(letter().ljust(LIMIT, b"."))).matrix_error in (expected, FAILED)

    await mended(shared)


async def mended(taking: Uploads) -> None:
    """Nothing is held any longer, and all is well as soon as the homeserver is."""
    taking.answer, taking.stage.homeserver.reads_bodies = json_reply(STORED), True
    assert await idle(taking.stage)
    assert await taking.well()


async def test_a_homeserver_that_is_gone_after_the_scan_is_a_failure_and_may_come_back(
    tmp_path: Path, private_clamd: Clamd
) -> None:
    async with uploads(tmp_path, private_clamd) as taking:
        stage = taking.stage
        private_clamd.pause()
        uploading = asyncio.create_task(taking.upload(letter()))
        await stage.until(lambda: stage.metric("engine_in_flight") == 1)
        await stage.homeserver.__aexit__()

        private_clamd.resume()

        assert (await uploading).matrix_error == FAILED
        assert (await taking.upload(letter())).matrix_error == FAILED
        async with FakeHomeserver(stage.homeserver.port) as back:
            back.script = taking.script
            assert await taking.well()


# -- clamd ---------------------------------------------------------------------------------------

PATIENT: Mapping[str, Mapping[str, Any]] = {
    "server": {"request_timeout": "25s"},
    "homeserver": {"first_byte_timeout": "20s", "idle_timeout": "20s", "total_timeout": "20s"},
    "clamav": {"scan_timeout": "20s"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Uploads, Clamd]]:
    """With a clamd that may be stopped and paused."""
    with other_clamd() as clamd:
        clamd.start()
        async with uploads(tmp_path_factory.mktemp("patient"), clamd, **PATIENT) as taking:
            yield taking, clamd


@pytest.mark.asyncio(loop_scope="module")
async def test_a_clamd_killed_between_reading_and_scanning_lets_nothing_through(
    patient: tuple[Uploads, Clamd],
) -> None:
    taking, clamd = patient
    taking.received.clear()
    clean, infected = letter(), letter() + EICAR
    async with taking.begun(clean, 10) as one, taking.begun(infected, 10) as other:
        clamd.stop()
        for client, content in ((one, clean), (other, infected)):
            reply = await client.ask(content[10:])
            assert (reply.matrix_error, reply.header("retry-after")) == (BUSY, "5")
    assert taking.received == []

    await asyncio.to_thread(clamd.start)
    await recovers(taking)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_clamd_killed_in_the_middle_of_scans_lets_nothing_through(
    patient: tuple[Uploads, Clamd],
) -> None:
    taking, clamd = patient
    taking.received.clear()
    await taking.stage.until_no_canary_is_due()
    clamd.pause()
    scans = [asyncio.create_task(taking.upload(letter() + end)) for end in (b"", EICAR, b"")]
    await taking.stage.until(lambda: taking.stage.metric("engine_in_flight") == 3)

    clamd.stop()

    assert {reply.matrix_error for reply in await asyncio.gather(*scans)} == {BUSY}
    assert taking.received == []
    await asyncio.to_thread(clamd.start)
    await recovers(taking)


async def recovers(taking: Uploads) -> None:
    async with asyncio.timeout(5):
        while not await taking.well():  # noqa: ASYNC110 - it is another process's event
            await asyncio.sleep(0.05)


# -- clients -------------------------------------------------------------------------------------

# What the work of a client that leaves is at, and the gauge that shows it.
WORK = {
    "arriving": "buffer_bytes",
    "scan": "engine_in_flight",
    "scan queue": "engine_queue_length",
    "store": "http_requests_in_flight",
}


@pytest.mark.alone
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("work", WORK)
async def test_clients_that_are_gone_give_back_slots_and_memory_within_a_second(
    patient: tuple[Uploads, Clamd], work: str
) -> None:
    taking, clamd = patient
    stage = taking.stage
    if work == "store":
        taking.answer = [FOREVER]
    elif work != "arriving":
        await stage.until_no_canary_is_due()
        clamd.pause()
    before = len(taking.received)
    async with AsyncExitStack() as stack:
        for number in range(12):
            client = await stack.enter_async_context(connected(port_of(stage)))
            stack.callback(client.vanish)
            content = letter().ljust(MIB // 8, b".")
            asked = request(UPLOAD, f"user{number}", method="POST", body=content)
            await client.send(asked[:-1] if work == "arriving" else asked)
        await stage.until(lambda: stage.metric(WORK[work]) > 0)
        if work == "store":
            await stage.until(lambda: len(taking.received) == before + 12)

    assert await idle(stage)
    clamd.resume()
    await mended(taking)


@pytest.mark.alone
async def test_the_deadline_starts_at_the_last_byte(tmp_path: Path, private_clamd: Clamd) -> None:
    """An upload may take longer than a request may, its scan may not."""
    async with uploads(
        tmp_path, private_clamd, server={"request_timeout": "1s"}, clamav={"scan_timeout": "20s"}
    ) as taking:
        content = letter().ljust(1000, b".")
        async with taking.begun(content, 400) as client:
            for offset in (400, 600, 800):
                await asyncio.sleep(0.4)
                await client.send(content[offset : offset + 200])
            assert (await client.reply()).status == 200
        private_clamd.pause()
        began = time.monotonic()
        reply = await taking.upload(letter())
        assert (reply.matrix_error, reply.header("retry-after")) == (BUSY, "5")
        assert 0.9 < time.monotonic() - began < 2
        private_clamd.resume()


@pytest.mark.alone
async def test_slow_clients_are_cut_while_others_wait_for_their_room(tmp_path: Path, clamd: Clamd) -> None:
    """Two of them hold all of the share for uploads, which is 4 MiB."""
    async with uploads(tmp_path, clamd, limits={"queue_wait": "20s"}) as taking:
        large = letter().ljust(LIMIT, b".")
        async with taking.begun(large, 100_000, "slow") as slow, taking.begun(large, 10, "slower") as slower:
            began = time.monotonic()
            assert (await taking.upload(letter().ljust(LIMIT, b"."), "quick")).status == 200
            assert 4 < time.monotonic() - began < 9
            assert (await slower.reply()).matrix_error == (408, "M_UNKNOWN")
            assert (await slow.ask(large[100_000:])).status == 200


async def test_one_caller_does_not_get_all_of_the_room(tmp_path: Path, clamd: Clamd) -> None:
    """Half of it is for others, and those who wait are told so after a second."""
    async with uploads(tmp_path, clamd) as taking:
        large = letter().ljust(LIMIT, b".")
        async with taking.begun(large, 10, "greedy") as client:
            refused, served = await asyncio.gather(
                taking.upload(large, "greedy"), taking.upload(letter(), "other")
            )
            assert refused.matrix_error == BUSY
            assert served.status == 200
            assert (await client.ask(large[10:])).status == 200


async def test_uploads_under_way_are_finished_when_the_service_stops(tmp_path: Path, clamd: Clamd) -> None:
    async with uploads(tmp_path, clamd) as taking:
        content = letter()
        async with taking.begun(content, 10) as client:
            terminate(taking.stage)
            await taking.stage.until(lambda: "stopping" in taking.stage.product.reasons(), 1)
            assert (await client.ask(content[10:])).status == 200
        await until_ended(taking.stage, 5)
        assert taking.received == [content]


@pytest.mark.long
async def test_uploads_that_do_not_end_are_refused_when_the_service_stops(
    tmp_path: Path, clamd: Clamd
) -> None:
    async with uploads(tmp_path, clamd) as taking, taking.begun(letter(), 10) as client:
        began = time.monotonic()
        terminate(taking.stage)
        reply = await client.reply(within=25)
        assert (reply.matrix_error, reply.header("retry-after")) == (BUSY, "5")
        await until_ended(taking.stage, 5)
        assert time.monotonic() - began < 25


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_silent_clients_and_those_that_drip_are_given_up_after_a_minute(
    tmp_path: Path, clamd: Clamd
) -> None:
    async with uploads(tmp_path, clamd) as taking:
        content = letter().ljust(MIB, b".")
        async with taking.begun(content, 0, "silent") as silent, taking.begun(content, 0, "drips") as drip:
            began = time.monotonic()
            dripping = asyncio.create_task(_drip(drip))
            for client in (silent, drip):
                assert (await client.reply(within=70)).matrix_error == (408, "M_UNKNOWN")
                assert 59 < time.monotonic() - began < 63
            dripping.cancel()


async def _drip(client: RawClient) -> None:
    while True:
        await client.send(b"x")
        await asyncio.sleep(1)


# -- many at once --------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize(
    ("number", "memory"),
    [
        pytest.param(12, 69, id="12"),
        pytest.param(60, 256, id="60", marks=[pytest.mark.long, pytest.mark.timeout(180)]),
    ],
)
async def test_many_large_uploads_stay_within_the_budget_while_downloads_go_on(
    tmp_path: Path, clamd: Clamd, number: int, memory: int
) -> None:
    limits = {"media_size": "20MiB", "memory": f"{memory}MiB", "queue_wait": "100s"}
    times = {"first_byte_timeout": "20s", "idle_timeout": "20s", "total_timeout": "20s"}
    async with uploads(
        tmp_path,
        clamd,
        limits=limits,
        homeserver=times,
        clamav={"scan_timeout": "20s"},
        server={"request_timeout": "28s"},
    ) as taking:
        stage = taking.stage
        pid = stage.product.process.pid
        before, most, beside = memory_of(pid), 0, list[float]()
        asked = [asyncio.create_task(taking.upload_large(f"user{n}")) for n in range(number)]
        while not all(task.done() for task in asked):
            beside.append(await timed(download(stage, "bob")))
            most = max(most, memory_of(pid) - before)
            await asyncio.sleep(0.05)

        assert {reply.status for reply in await asyncio.gather(*asked)} == {200}
        assert most < (max(memory // 4, 20) + 100) * MIB  # the share for uploads, and nothing of them twice
        assert statistics.median(beside) < 0.5
        assert max(beside) < 3


@pytest.mark.alone
async def test_hundreds_of_files_of_one_caller_do_not_delay_those_of_another(
    tmp_path: Path, clamd: Clamd
) -> None:
    """Alice's wait for each other."""
    patience = {"limits": {"queue_wait": "60s"}, "server": {"request_timeout": "60s"}}
    async with uploads(tmp_path, clamd, **patience) as taking:
        alone = [await timed(download(taking.stage, "bob")) for _ in range(20)]
        greedy = [asyncio.create_task(timed(download(taking.stage, "alice"))) for _ in range(500)]
        await taking.stage.until(lambda: taking.stage.metric("engine_queue_length") > 100)
        beside = []
        while not all(task.done() for task in greedy):
            beside.append(await timed(download(taking.stage, "bob")))
        hundreds = await asyncio.gather(*greedy)
        assert len(beside) > 5
        assert statistics.median(beside) < statistics.median(hundreds) / 5
        assert max(beside) < 100 * statistics.median(alone)


@pytest.mark.alone
async def test_small_downloads_without_end_do_not_hold_up_uploads(tmp_path: Path, clamd: Clamd) -> None:
    async with uploads(tmp_path, clamd) as taking:
        ended = asyncio.Event()

        async def ask_on(who: str) -> float:
            longest = 0.0
            while not ended.is_set():
                longest = max(longest, await timed(download(taking.stage, who)))
            return longest

        asking = [asyncio.create_task(ask_on(f"user{number}")) for number in range(8)]
        for _ in range(5):
            assert await timed(taking.upload(letter().ljust(LIMIT, b"."))) < 2
        ended.set()
        assert max(await asyncio.gather(*asking)) < 1


async def download(stage: Scene, who: str) -> Reply:
    target = f"{API}/download/{stage.upload(letter() * 100).removeprefix('mxc://')}"
    async with connected(port_of(stage)) as client:
        await client.send(request(target, who))
        return await client.reply(within=50)


async def timed(work: Awaitable[Reply]) -> float:
    """Seconds until the answer is there."""
    began = time.monotonic()
    assert (await work).status == 200
    return time.monotonic() - began
