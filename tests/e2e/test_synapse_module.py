"""A real Synapse with the module, in an environment that has what Synapse needs, and the whole product."""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from scanner.crypto.pk import generate_secret
from tests.cli.command import media_scanner_process
from tests.e2e import samples, synapse_environment
from tests.e2e.machine import memory_of
from tests.e2e.process import free_ports
from tests.e2e.product import Product
from tests.e2e.synapse import Synapse, User
from tests.e2e.test_faults_of_clamd import address
from tests.real_clamd import Clamd

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

MIB = 1024 * 1024
MEDIA = 20 * MIB
# The least that holds one media in each share: 3 x 20 MiB and an eighth.
MEMORY = 69 * MIB
BAD = (400, "M_UNKNOWN", "Bad content")
# Synapse makes previews only with beautifulsoup4, which is no dependency of its own.
PREVIEWS = {"url_preview_enabled": True, "url_preview_ip_range_blacklist": []} if find_spec("bs4") else {}


@dataclass
class Reply:
    """An answer in JSON."""

    status: int
    content: dict[str, Any]
    retry_after: str | None = None

    @property
    def refusal(self) -> tuple[int, str, str]:
        return self.status, self.content["errcode"], self.content["error"]


@dataclass
class Stage:
    """Synapse, its module, and the product that both stands before it and is asked by it."""

    directory: Path
    clamd: Clamd
    secret: Path
    python: Path
    synapse: Synapse
    public: str
    operations: str

    def product(self, **settings: Mapping[str, Any]) -> Product:
        """A product on the ports that the module knows."""
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        tree: dict[str, Mapping[str, Any]] = {
            "server": {
                "listen": self.public,
                "ops_listen": self.operations,
                "inspect_secret_file": str(self.secret),
            },
            "limits": {"media_size": MEDIA, "memory": MEMORY, "queue_wait": "20s"},
            "clamav": {"addresses": [address(self.clamd)], "max_signature_age": None},
            **settings,
        }
        product = Product(directory, self.synapse.url, tree)
        product.url, product.operations_url = f"http://{self.public}", f"http://{self.operations}"
        return product

    @contextmanager
    def other(self, product: Product, **settings: Mapping[str, Any]) -> Iterator[Product]:
        """For a while another product in the place of `product`."""
        product.stop()
        try:
            with self.product(**settings) as other:
                yield other
        finally:
            product.__enter__()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("module")
    python = synapse_environment.make(directory)
    secret = directory / "inspect-secret"
    secret.write_text(generate_secret())
    public, operations = (f"127.0.0.1:{port}" for port in free_ports(2))
    modules = [module(operations, secret)]
    with tempfile.TemporaryDirectory(prefix="clamd-") as home:
        clamd = Clamd(Path(home))
        clamd.start()
        try:
            with Synapse({"modules": modules, **PREVIEWS}, python) as synapse:
                yield Stage(directory, clamd, secret, python, synapse, public, operations)
        finally:
            clamd.stop()


def module(operations: str, secret: Path, **config: object) -> dict[str, Any]:
    """As it stands in homeserver.yaml."""
    named = {"url": f"http://{operations}", "secret_file": str(secret), **config}
    return {"module": "scanner.synapse_module.MediaScanner", "config": named}


@pytest.fixture(scope="module")
def product(stage: Stage) -> Iterator[Product]:
    with stage.product() as running:
        yield running


@pytest.fixture
async def alice(stage: Stage) -> User:
    return await stage.synapse.register(f"alice-{secrets.token_hex(4)}")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def upload(
    session: aiohttp.ClientSession,
    base: str,
    user: User,
    content: bytes,
    content_type: str = "text/plain",
    mxc: str | None = None,
) -> Reply:
    """To Synapse, or through the product."""
    path = f"/_matrix/media/v3/upload{'/' + mxc.removeprefix('mxc://') if mxc else ''}"
    async with session.request(
        "PUT" if mxc else "POST",
        base + path,
        data=io.BytesIO(content),
        headers={**user.headers, "Content-Type": content_type},
    ) as answer:
        return Reply(answer.status, await answer.json(), answer.headers.get("Retry-After"))


async def download(
    session: aiohttp.ClientSession, base: str, user: User, mxc: str, what: str = "download", **query: str
) -> tuple[int, bytes]:
    path = f"/_matrix/client/v1/media/{what}/{mxc.removeprefix('mxc://')}"
    async with session.get(base + path, params=query, headers=user.headers) as answer:
        return answer.status, await answer.read()


def inspected(product: Product) -> float:
    """How often the engines judged something for the module."""
    return product.metric("scans_total", source="inspect")


def letter(size: int = 0) -> bytes:
    """A clean text unlike any other."""
    return samples.text().ljust(size, b".")


def infected() -> bytes:
    """EICAR in an archive unlike any other."""
    return samples.infected_zip()


# -- installation --------------------------------------------------------------------------------


def test_the_environment_has_synapse_and_the_module_and_nothing_else_of_ours(stage: Stage) -> None:
    lacking = ("aiohttp", "uvloop", "typer", "magic", "pyclamd", "rich")
    tried = "; ".join(f"print({name!r}, bool(find_spec({name!r})))" for name in ("synapse", *lacking))
    told = subprocess.run(
        [stage.python, "-I", "-c", f"from importlib.util import find_spec; {tried}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["synapse", "True", *(word for name in lacking for word in (name, "False"))]


def test_a_mistake_in_its_configuration_is_named_at_the_start(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("c2hvcnQ=")
    wrong = Synapse({"modules": [module(stage.operations, tmp_path / "short")]}, stage.python)
    with pytest.raises(AssertionError, match="secret_file") as ended, wrong:
        pass
    assert "must hold 32 bytes in base64" in str(ended.value)
    assert "c2hvcnQ" not in str(ended.value)


# -- what it does --------------------------------------------------------------------------------


async def test_an_infected_upload_past_us_is_refused_and_not_stored(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    for content in (samples.eicar(), infected()):
        assert (await upload(session, stage.synapse.url, alice, content)).refusal == BAD
        assert not stage.synapse.stores(content)
    lines = [json.loads(line) for line in product.output(until="media-blocked").splitlines() if '"' in line]
    alerts = [line for line in lines if line.get("event", {}).get("action") == "media-blocked"]
    assert all(
        line["media_scanner"]["mxc"].startswith(f"mxc://{stage.synapse.server_name}/") for line in alerts
    )
    assert "Withheld local media" in stage.synapse.log()
    assert stage.secret.read_text() not in stage.synapse.log() + product.output()


async def test_clean_media_pass_and_are_judged_once(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    before, content = inspected(product), letter()
    replies = [await upload(session, stage.synapse.url, alice, content) for _ in range(3)]
    assert [reply.status for reply in replies] == [200] * 3
    mxc = replies[0].content["content_uri"]
    assert await download(session, stage.synapse.url, alice, mxc) == (200, content)
    assert inspected(product) == before + 1


async def test_what_came_through_us_needs_no_bytes_again(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    before = inspected(product)
    assert (await upload(session, product.url, alice, letter())).status == 200
    assert inspected(product) == before


async def test_thumbnails_are_judged_as_well(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    before = inspected(product)
    reply = await upload(session, stage.synapse.url, alice, samples.png(), "image/png")
    assert reply.status == 200
    assert inspected(product) > before + 1
    status, picture = await download(
        session,
        stage.synapse.url,
        alice,
        reply.content["content_uri"],
        "thumbnail",
        width="32",
        height="32",
        method="crop",
    )
    assert (status, picture[:4]) == (200, b"\x89PNG")


@pytest.mark.skipif(not PREVIEWS, reason="needs beautifulsoup4")
async def test_what_previews_of_web_pages_bring_is_judged_before_it_is_stored(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    pictures = {"clean": samples.png(), "infected": samples.png() + infected()}
    async with website(pictures) as site:
        clean, bad = [await preview(session, stage.synapse, alice, f"{site}/{name}") for name in pictures]
        direct = await preview(session, stage.synapse, alice, f"{site}/infected.png")
    assert clean.content["og:image"].startswith(f"mxc://{stage.synapse.server_name}/")
    assert "og:image" not in bad.content
    assert direct.status == 404
    assert not stage.synapse.stores(pictures["infected"])
    assert "Withheld URL preview" in stage.synapse.log()


@asynccontextmanager
async def website(pictures: Mapping[str, bytes]) -> AsyncIterator[str]:
    """A page for each picture, and the picture as `NAME.png`; the URL that is before both."""

    async def answer(request: web.BaseRequest) -> web.Response:
        name, _, picture = request.path.strip("/").partition(".")
        if picture:
            return web.Response(body=pictures[name], content_type="image/png")
        page = f'<title>{name}</title><meta property="og:image" content="/{name}.png">'
        return web.Response(text=page, content_type="text/html")

    [port] = free_ports(1)
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def preview(session: aiohttp.ClientSession, synapse: Synapse, user: User, url: str) -> Reply:
    path = f"{synapse.url}/_matrix/client/v1/media/preview_url"
    async with session.get(path, params={"url": url}, headers=user.headers) as answer:
        return Reply(answer.status, await answer.json())


async def test_a_reserved_id_can_be_used_after_a_refusal(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    mxc = await stage.synapse.reserve(alice)
    assert (await upload(session, stage.synapse.url, alice, infected(), mxc=mxc)).refusal == BAD
    assert (await upload(session, stage.synapse.url, alice, letter(), mxc=mxc)).status == 200


async def test_what_is_larger_than_the_scanner_takes_is_unscannable(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    assert (await upload(session, stage.synapse.url, alice, letter(MEDIA))).status == 200
    assert (await upload(session, stage.synapse.url, alice, letter(MEDIA + 1))).refusal == BAD
    assert "unscannable, limit" in stage.synapse.log()


# -- the scanner is away -------------------------------------------------------------------------


async def test_while_the_scanner_is_away_nothing_is_stored_and_then_it_goes_on(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    product.stop()
    try:
        content = letter()
        began = time.monotonic()
        reply = await upload(session, stage.synapse.url, alice, content)
        assert (reply.status, reply.content["errcode"], reply.retry_after) == (503, "M_UNKNOWN", "5")
        assert time.monotonic() - began < 2
        assert not stage.synapse.stores(content)
    finally:
        product.__enter__()
    assert (await upload(session, stage.synapse.url, alice, letter())).status == 200


async def test_while_clamd_is_away_nothing_is_stored_either(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    stage.clamd.stop()
    try:
        reply = await upload(session, stage.synapse.url, alice, letter())
        assert (reply.status, reply.content["errcode"]) == (503, "M_UNKNOWN")
    finally:
        stage.clamd.start()


async def test_who_prefers_media_to_safety_gets_them(
    stage: Stage, product: Product, session: aiohttp.ClientSession
) -> None:
    [nobody] = free_ports(1)
    lenient = module(f"127.0.0.1:{nobody}", stage.secret, when_unavailable="deliver")
    with Synapse({"modules": [lenient]}, stage.python) as synapse:
        bob = await synapse.register("bob")
        assert (await upload(session, synapse.url, bob, infected())).status == 200
        assert "Stored UNSCANNED local media" in synapse.log()


# -- the command line ----------------------------------------------------------------------------


async def test_files_are_scanned_by_the_running_service(
    stage: Stage, product: Product, tmp_path: Path
) -> None:
    contents = {"letter": letter(), "big": letter(MEDIA), "empty": b"", "virus": infected()}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    before = inspected(product)

    for _ in range(2):
        found = await asyncio.to_thread(remote_scan, stage, tmp_path)
        assert (found["letter"], found["big"], found["empty"]) == ("clean",) * 3
        assert found["virus"] == "infected"
    assert inspected(product) == before + 4


def remote_scan(stage: Stage, folder: Path) -> dict[str, str]:
    """The result for each file by its name."""
    url = f"http://{stage.operations}"
    done = media_scanner_process("scan", "--json", "--remote", url, "--secret-file", stage.secret, folder)
    assert (done.returncode, done.stderr) == (1, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines.pop()["summary"]["complete"] is True
    return {Path(line["path"]).name: line["result"] for line in lines}


# -- room, time ----------------------------------------------------------------------------------


@pytest.mark.alone
async def test_synapse_answers_others_while_the_scanner_takes_its_time(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    """More files than Synapse has threads are in hand, and clamd does not answer for three seconds."""
    stage.clamd.pause()
    try:
        uploads = [
            asyncio.create_task(upload(session, stage.synapse.url, alice, letter(MEDIA if n < 2 else 0)))
            for n in range(14)
        ]
        await asyncio.sleep(1.0)  # Synapse itself is at the bodies
        waits = await _answer_times(session, stage.synapse.url, 2.0)
        assert not any(task.done() for task in uploads)
    finally:
        stage.clamd.resume()
    assert [reply.status for reply in await asyncio.gather(*uploads)] == [200] * len(uploads)
    assert len(waits) > 20
    assert max(waits) < 0.5


async def _answer_times(session: aiohttp.ClientSession, base: str, seconds: float) -> list[float]:
    waits = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        async with session.get(f"{base}/_matrix/client/versions") as answer:
            await answer.read()
        waits.append(time.monotonic() - began)
        await asyncio.sleep(0.02)
    return waits


@pytest.mark.alone
async def test_many_large_uploads_at_once_stay_within_the_budget(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    scanner, synapse = product.process.pid, stage.synapse.pid
    before = memory_of(scanner), memory_of(synapse)
    content = [letter(MEDIA) for _ in range(12)]
    uploads = [asyncio.create_task(upload(session, stage.synapse.url, alice, each)) for each in content]
    most = [0, 0]
    while not all(task.done() for task in uploads):
        most = [
            max(so_far, memory_of(pid) - at_first)
            for so_far, pid, at_first in zip(most, (scanner, synapse), before, strict=True)
        ]
        assert product.metric("buffer_bytes") <= MEMORY
        await asyncio.sleep(0.1)
    assert [task.result().status for task in uploads] == [200] * 12
    assert most[0] < 2 * MEDIA + 40 * MIB
    assert most[1] < 4 * MEDIA
    assert product.metric("buffer_bytes") == 0


async def test_uploads_whose_inspection_comes_back_to_us_all_end_with_every_share_full(
    stage: Stage, product: Product, session: aiohttp.ClientSession, alice: User
) -> None:
    """Nothing is remembered, so that each upload through us holds its share while its bytes come again."""
    bob = await stage.synapse.register(f"bob-{secrets.token_hex(4)}")
    limits = {"media_size": MEDIA, "memory": MEMORY, "queue_wait": "25s"}
    with stage.other(product, limits=limits, verdict_cache={"clean_ttl": "1ms"}) as other:
        stored = await upload(session, other.url, alice, letter(MEDIA))
        before = inspected(other)
        mxc = stored.content["content_uri"]
        uploads = [
            upload(session, base, user, letter(MEDIA))
            for base in (other.url, stage.synapse.url)
            for user in (alice, bob)
            for _ in range(2)
        ]
        downloads = [download(session, other.url, bob, mxc) for _ in range(2)]
        pictures = [upload(session, other.url, bob, samples.png(), "image/png") for _ in range(2)]
        async with asyncio.timeout(60):
            replies, served, _ = await asyncio.gather(
                asyncio.gather(*uploads), asyncio.gather(*downloads), asyncio.gather(*pictures)
            )
        assert [reply.status for reply in replies] == [200] * 8
        assert [status for status, _ in served] == [200] * 2
        assert inspected(other) >= before + 8
        assert other.metric("buffer_bytes") == 0


async def _seconds_of(asked: Awaitable[tuple[int, bytes]]) -> float:
    began = time.monotonic()
    assert (await asked)[0] == 200
    return time.monotonic() - began


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_sixty_large_uploads_through_us_and_back_to_us_leave_downloads_alone(
    stage: Stage, product: Product, session: aiohttp.ClientSession
) -> None:
    """Each holds its share while the module asks about it; the memory is the default."""
    users = [await stage.synapse.register(f"user-{secrets.token_hex(4)}") for _ in range(6)]
    limits = {"media_size": MEDIA, "memory": 256 * MIB, "queue_wait": "100s"}
    patient: dict[str, dict[str, Any]] = {
        "limits": limits,
        "homeserver": {"first_byte_timeout": "60s", "idle_timeout": "60s", "total_timeout": "60s"},
        "verdict_cache": {"clean_ttl": "1ms"},
    }
    with stage.other(product, **patient) as other:
        mxc = (await upload(session, other.url, users[0], letter(0))).content["content_uri"]
        judged, pid = inspected(other), other.process.pid
        before, most, beside, alone = memory_of(pid), 0, list[float](), list[float]()
        content = letter(MEDIA)[:-4]
        uploads = [
            asyncio.create_task(upload(session, other.url, users[n % 6], content + b"%04d" % n))
            for n in range(60)
        ]
        while not all(task.done() for task in uploads):
            through_us, from_synapse = await asyncio.gather(
                *(
                    _seconds_of(download(session, base, users[0], mxc))
                    for base in (other.url, stage.synapse.url)
                )
            )
            beside.append(through_us)
            alone.append(from_synapse)
            most = max(most, memory_of(pid) - before)
            assert other.metric("buffer_bytes") <= 256 * MIB
            await asyncio.sleep(0.05)
        assert [task.result().status for task in uploads] == [200] * 60
        assert inspected(other) >= judged + 60
        assert most < 256 * MIB
        assert statistics.median(beside) < 0.5
        assert max(beside) < max(alone) + 3  # Synapse itself has 60 bodies to read
        assert other.metric("buffer_bytes") == 0
