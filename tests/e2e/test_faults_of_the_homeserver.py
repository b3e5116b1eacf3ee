"""The homeserver is gone, breaks off, is silent, or sends what is no use (facts/security.md, section 4)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.scanner_api import Reply
from tests.e2e.scene import MIB, Scene, letter, scene
from tests.e2e.test_faults_of_clamd import address
from tests.fake_homeserver import (
    CHUNKED_HEAD,
    FOREVER,
    FakeHomeserver,
    Script,
    Step,
    Then,
    chunk,
    head,
    media_head,
    redirecting,
    refusing,
    saying,
    serving,
)
from tests.real_clamd import Clamd

pytestmark = [pytest.mark.real, pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]

LIMIT = 2 * MIB
BODY = b"nothing but a text " * 1000
FAILED, SILENT = (502, "MCS_MEDIA_REQUEST_FAILED"), (504, "MCS_MEDIA_REQUEST_FAILED")
TOO_LARGE = (413, "MCS_MEDIA_REQUEST_FAILED")
ZIPPED = {"Content_Encoding": "gzip"}
TWO_TYPES = head(
    headers=[("Content-Type", "image/png"), ("Content-Type", "text/html"), ("Content-Length", str(len(BODY)))]
)


def drips(first: bytes, pause: float) -> Script:
    steps: list[Step] = [first]
    for _ in range(100):
        steps += [pause, b"."]
    return saying(*steps)


FAULTS: dict[str, tuple[Script, tuple[int, str]]] = {
    "reset at once": (saying(Then.RESET), FAILED),
    "closed at once": (saying(Then.HANG_UP), FAILED),
    "no HTTP": (saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Then.HANG_UP), FAILED),
    "cut in its head": (saying(b"HTTP/1.1 200 OK\r\nContent-", Then.HANG_UP), FAILED),
    "cut in its body": (saying(media_head(len(BODY)), BODY[:500], Then.HANG_UP), FAILED),
    "reset in its body": (saying(media_head(len(BODY)), BODY[:500], 0.05, Then.RESET), FAILED),
    "cut between chunks": (saying(CHUNKED_HEAD, chunk(BODY), Then.HANG_UP), FAILED),
    "bad chunk length": (saying(CHUNKED_HEAD + b"zz\r\n" + BODY), FAILED),
    "two lengths": (
        saying(head(headers=[("Content-Length", "5"), ("Content-Length", "6")]), BODY[:6]),
        FAILED,
    ),
    "negative length": (saying(head(headers=[("Content-Length", "-1")]), BODY), FAILED),
    "500": (refusing("500 Internal Server Error", "M_UNKNOWN"), FAILED),
    "502 in HTML": (refusing("502 Bad Gateway"), FAILED),
    "504 of a proxy": (refusing("504 Gateway Timeout"), FAILED),
    "Content-Encoding": (serving(BODY, **ZIPPED), FAILED),
    "two Content-Types": (saying(TWO_TYPES, BODY), FAILED),
    "redirect elsewhere": (redirecting("http://127.0.0.1:9/x"), FAILED),
    "redirect to a file": (redirecting("file:///etc/passwd"), FAILED),
    "204": (saying(head("204 No Content")), FAILED),
    "206": (saying(head("206 Partial Content", [("Content-Length", "3")]), b"abc"), FAILED),
    "silent": (saying(FOREVER), SILENT),
    "dripping head": (drips(b"HTTP/1.1 200 OK\r\nX-Slow: ", 0.2), SILENT),
    "stalled body": (saying(media_head(len(BODY)), BODY[:500], FOREVER), SILENT),
    "dripping body": (drips(media_head(len(BODY)), 0.2), SILENT),
    "not yet uploaded": (refusing("504 Gateway Timeout", "M_NOT_YET_UPLOADED"), SILENT),
    "401": (refusing("401 Unauthorized", "M_UNKNOWN_TOKEN"), (401, "M_UNKNOWN_TOKEN")),
    "401 no token": (refusing("401 Unauthorized", "M_MISSING_TOKEN"), (401, "M_MISSING_TOKEN")),
    "403": (refusing("403 Forbidden", "M_FORBIDDEN"), (404, "M_NOT_FOUND")),
    "404": (refusing("404 Not Found", "M_NOT_FOUND"), (404, "M_NOT_FOUND")),
    "declared over the limit": (saying(media_head(LIMIT + 1), FOREVER), TOO_LARGE),
    "over the limit": (
        saying(CHUNKED_HEAD, *[chunk(bytes(MIB)) for _ in range(40)], FOREVER),
        TOO_LARGE,
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_stage(clamd: Clamd, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(tmp_path_factory.mktemp("homeserver"), address(clamd)) as stage:
        await stage.until_ready()
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def stage(shared_stage: Scene) -> AsyncIterator[Scene]:
    """All is well before each fault and after it, and nothing is held any longer."""
    assert await shared_stage.well()
    try:
        yield shared_stage
    finally:
        shared_stage.homeserver.script = shared_stage.media
        await shared_stage.until(lambda: shared_stage.metric("buffer_bytes") == 0, 2)
        assert await shared_stage.well()
        shared_stage.check()


async def asked(stage: Scene, route: str) -> Reply:
    """A request for media that the product has never seen."""
    if route == "plain":
        return await stage.download(stage.upload(letter()))
    content = stage.upload_encrypted(letter())
    if route == "scan":
        return await stage.api.scan_encrypted(content, stage.user)
    return await stage.download_encrypted(content)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_homeserver_that_fails_gets_its_own_answer(stage: Scene, name: str) -> None:
    script, expected = FAULTS[name]
    for route in ("plain", "encrypted") if expected is not SILENT else ("plain",):
        stage.but(script)
        began = time.monotonic()
        assert (await asked(stage, route)).refusal == expected
        assert time.monotonic() - began < 4


async def test_framing_that_breaks_in_the_middle_is_a_failure_and_no_silence(stage: Scene) -> None:
    stage.but(saying(CHUNKED_HEAD, 0.1, b"zz\r\n" + BODY))
    assert (await asked(stage, "plain")).refusal == FAILED


async def test_a_homeserver_that_asks_to_slow_down_is_passed_on_with_its_time(stage: Scene) -> None:
    stage.but(refusing("429 Too Many Requests", "M_LIMIT_EXCEEDED", Retry_After="7"))
    reply = await asked(stage, "scan")
    assert (*reply.refusal, reply.headers["Retry-After"]) == (429, "MCS_MEDIA_REQUEST_FAILED", "7")


async def test_at_most_a_little_of_an_endless_body_is_taken(stage: Scene) -> None:
    """What lies in sockets comes on top of the 64 KiB that we may keep."""
    before = stage.homeserver.sent
    stage.but(saying(CHUNKED_HEAD, *[chunk(bytes(64 * 1024)) for _ in range(2000)], FOREVER))
    assert (await asked(stage, "plain")).refusal == TOO_LARGE
    assert stage.homeserver.sent - before < LIMIT + 16 * MIB


async def test_media_of_exactly_the_limit_are_served_and_one_byte_more_is_not(stage: Scene) -> None:
    assert (await stage.download(stage.upload(letter().ljust(LIMIT, b".")))).status == 200
    assert (await stage.download(stage.upload(letter().ljust(LIMIT + 1, b".")))).refusal == TOO_LARGE


async def test_a_refused_caller_gets_nothing_of_what_is_known_to_be_clean(stage: Scene) -> None:
    content = stage.upload_encrypted(letter())
    assert (await stage.download_encrypted(content)).status == 200
    stage.but(refusing("401 Unauthorized", "M_UNKNOWN_TOKEN"))
    assert (await stage.download_encrypted(content)).refusal == (401, "M_UNKNOWN_TOKEN")
    assert (await stage.api.scan_encrypted(content, stage.user)).refusal == (401, "M_UNKNOWN_TOKEN")


async def test_a_homeserver_that_is_away_at_the_start_is_found_when_it_comes(
    clamd: Clamd, tmp_path: Path
) -> None:
    async with scene(tmp_path, address(clamd)) as stage:
        port = stage.homeserver.port
        await stage.homeserver.__aexit__()
        await stage.until(lambda: stage.product.reasons() == {"homeserver"}, 20)
        assert len(await stage.api.public_key()) == 43
        assert (await stage.clean()).refusal == FAILED

        async with FakeHomeserver(port) as back:
            back.script = stage.media
            assert await stage.recovers(5) < 2
            await stage.until_ready(15)
