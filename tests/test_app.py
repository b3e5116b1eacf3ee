"""The composition: what `running` opens it closes again, in reverse, and an error leaves as itself."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from scanner.app import Service, running
from scanner.clamd.supervisor import EmbeddedClamd
from scanner.config import Config
from scanner.crypto.pk import ServerKeys, generate_secret
from scanner.engines.clamav import ClamAV
from scanner.engines.mime import Mime
from scanner.errors import ConfigError
from scanner.event_sinks.log import Log
from scanner.events import Reloaded, ReloadFailed
from scanner.key_files import read_or_generate_secret, read_secret, rotate_secret
from scanner.quarantine.outbox import Outbox
from scanner.upstream.connection import Connection
from scanner.verdict_cache.sqlite import Sqlite
from scanner.web.routes import API
from scanner.web.server import Site
from tests.crypto.test_envelope import opened
from tests.fake_homeserver import FakeHomeserver, serving, until
from tests.raw_client import connected, request
from tests.real_clamd import EICAR, Clamd, free_port
from tests.surface import gauges
from tests.web.service import Attachment, seal

Run = Callable[[Coroutine[Any, Any, None]], None]
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


def configured(state: Path, homeserver: str = "http://127.0.0.1:9", **sections: dict[str, Any]) -> Config:
    tree: dict[str, Any] = {
        "state_dir": state,
        "homeserver": {"url": homeserver},
        "server": {"listen": f"127.0.0.1:{free_port()}", "ops_listen": f"127.0.0.1:{free_port()}"},
        "clamav": {"addresses": ["unix:/nonexistent/clamd.sock"], "freshclam": "off"},
    }
    for name, keys in sections.items():
        tree[name] = {**tree.get(name, {}), **keys}
    return Config.model_validate(tree)


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


async def get(address: str, path: str) -> tuple[int, bytes]:
    async with connected(port(address)) as client:
        reply = await client.ask(request(path, "alice"))
        return reply.status, reply.body


async def gauges_of(service: Service) -> dict[str, float]:
    _, text = await get(service.config.server.ops_listen, "/metrics")
    lines = [line.split() for line in text.decode().splitlines() if line.startswith("media_scanner_")]
    return {name.removeprefix("media_scanner_"): float(value) for name, value in lines}


def descriptors() -> list[str]:
    """What every descriptor of ours is."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(re.sub(r"[0-9]+", "", str(descriptor.readlink())))
    return sorted(found)


async def held() -> tuple[list[str], set[asyncio.Task[Any]], list[str]]:
    """Descriptors, tasks and threads but the event loop's own, once those that are ending have ended.

    One thread, which frees memory, is everybody's.
    """
    await asyncio.sleep(0.1)
    names = [thread.name for thread in threading.enumerate()]
    threads = [name for name in names if not name.startswith(("asyncio_", "uvloop_", "freeing"))]
    return descriptors(), asyncio.all_tasks(), threads


@pytest.mark.real
@LOOPS
def test_a_service_serves_and_finds(tmp_path: Path, clamd: Clamd, run: Run) -> None:
    async def serve() -> None:
        async with FakeHomeserver() as homeserver:
            config = configured(tmp_path, homeserver.url, clamav={"addresses": [f"unix:{clamd.socket}"]})
            async with running(config, "1") as service:
                await until(lambda: service.clamav.backends[0].up, 5)
                homeserver.script = serving(EICAR)
                assert (await get(config.server.listen, f"{API}/download/a.org/eicar"))[0] == 403
                homeserver.script = serving(b"a letter")
                assert await get(config.server.listen, f"{API}/download/a.org/letter") == (200, b"a letter")
                assert service.cache.entries() == 2

    run(serve())
    secrets = {"request-secret", "index-secret", "quarantine-key", "audit-key"}
    assert {path.name for path in tmp_path.iterdir()} == secrets | {
        *("verdicts.sqlite", "deliveries.sqlite", "outbox", "quarantine"),
    }
    [sample] = (tmp_path / "quarantine" / "v1" / "objects").rglob("*/sha256/*/*/*")
    key = read_secret(tmp_path / "quarantine-key", "")
    assert opened(sample.read_bytes(), key) == EICAR
    assert len([*(tmp_path / "quarantine" / "v1" / "detections").rglob("*.json")]) == 1
    assert not any(path.is_file() for path in (tmp_path / "outbox").rglob("*"))
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


@LOOPS
def test_nothing_is_left_when_it_ends(tmp_path: Path, run: Run) -> None:
    """Neither descriptors nor tasks nor threads, a request in between or not."""

    async def once() -> None:
        async with FakeHomeserver() as homeserver:
            config = configured(tmp_path, homeserver.url)
            async with running(config, "1"):
                assert (await get(config.server.listen, f"{API}/scan/a.org/letter"))[0] == 503
                assert (await get(config.server.ops_listen, "/health/ready"))[0] == 503
            async with running(config, "1"):
                pass

    async def several() -> None:
        await once()  # imports, caches and the threads of the event loop stay
        before = await held()
        for _ in range(3):
            await once()
        assert await held() == before

    run(several())


@pytest.mark.real
async def test_resources_are_closed_in_the_reverse_order_of_their_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    closed: list[str] = []

    def note(kind: type, method: str, names: list[str]) -> None:
        original = getattr(kind, method)

        async def noted(self: object, *arguments: object) -> object:
            names.append(kind.__name__)
            return await original(self, *arguments)

        monkeypatch.setattr(kind, method, noted)

    for kind in (Log, EmbeddedClamd, ClamAV, Mime, Sqlite, Outbox, Connection):
        note(kind, "__aenter__", opened)
        note(kind, "__aexit__", closed)
    note(Site, "listen", opened)
    note(Site, "drain", closed)

    async with running(configured(tmp_path, clamav={"addresses": ["embedded"]}), "1"):
        pass

    engines = ["ClamAV", "Mime"]
    assert opened == ["Log", "EmbeddedClamd", "Sqlite", "Outbox", *engines, "Connection", "Site", "Site"]
    assert closed == opened[::-1]


@LOOPS
@pytest.mark.parametrize("key", ["listen", "ops_listen"])
def test_a_busy_port_is_a_configuration_error_and_leaves_nothing_behind(
    tmp_path: Path, run: Run, key: str
) -> None:
    async def attempt(config: Config, problem: str) -> None:
        with pytest.raises(ConfigError) as refused:
            async with running(config, "1"):
                pass
        assert (
            str(refused.value) == f"server.{key}: cannot listen on {getattr(config.server, key)}: {problem}"
        )

    async def several() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            busy = configured(tmp_path, server={key: f"127.0.0.1:{other.getsockname()[1]}"})
            await attempt(busy, "Address already in use")
            before = await held()
            await attempt(busy, "Address already in use")
            assert await held() == before

    run(several())


@LOOPS
def test_a_host_that_does_not_exist_is_a_configuration_error(tmp_path: Path, run: Run) -> None:
    async def attempt() -> None:
        with pytest.raises(
            ConfigError, match=r"server\.listen: cannot listen on .*: .*(not known|resolution)"
        ):
            async with running(configured(tmp_path, server={"listen": "nowhere.invalid:8080"}), "1"):
                pass

    run(attempt())


@pytest.mark.parametrize(
    ("crypto", "problem"),
    [
        ({"secret_file": "/nonexistent/secret"}, "crypto.secret_file: /nonexistent/secret: No such file"),
        ({"index_secret_file": "/dev/null"}, "crypto.index_secret_file: /dev/null: "),
        ({"retired_secret_files": ["/"]}, "crypto.retired_secret_files: /: Is a directory"),
    ],
)
async def test_a_secret_that_cannot_be_had_is_a_configuration_error(
    tmp_path: Path, crypto: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        async with running(configured(tmp_path, crypto=crypto), "1"):
            pass


async def test_a_state_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"state_dir: .*: Not a directory"):
        async with running(configured(tmp_path / "file" / "state"), "1"):
            pass


@LOOPS
def test_an_error_of_the_block_leaves_as_itself(tmp_path: Path, run: Run) -> None:
    async def fail() -> None:
        with pytest.raises(LookupError, match="ours"):
            async with running(configured(tmp_path), "1"):
                raise LookupError("ours")

    run(fail())


async def test_a_secret_of_the_inspection_route_that_cannot_be_had_is_a_configuration_error(
    tmp_path: Path,
) -> None:
    config = configured(tmp_path, server={"inspect_secret_file": "/nonexistent/secret"})
    with pytest.raises(ConfigError, match=r"server\.inspect_secret_file: /nonexistent/secret: No such file"):
        async with running(config, "1"):
            pass


@pytest.mark.parametrize("inspected", [True, False])
async def test_the_inspection_route_and_its_share_are_there_only_with_a_secret(
    tmp_path: Path, inspected: bool
) -> None:
    (tmp_path / "secret").write_text(generate_secret())
    config = configured(tmp_path, server={"inspect_secret_file": tmp_path / "secret"} if inspected else {})
    async with running(config, "1") as service, connected(port(config.server.ops_listen)) as client:
        reply = await client.ask(request("/_media_scanner/v1/inspect", method="POST", body=b""))
        assert reply.content["errcode"] == ("M_MISSING_TOKEN" if inspected else "M_UNRECOGNIZED")
        assert service.budget.inspections.capacity == (config.limits.memory // 8 if inspected else 0)


async def test_a_secret_that_was_rotated_away_still_opens_bodies(tmp_path: Path) -> None:
    async def answer_to(body: bytes) -> int:
        sent = request(f"{API}/scan_encrypted", "alice", method="POST", body=body)
        config = configured(tmp_path)
        async with running(config, "1"), connected(port(config.server.listen)) as client:
            return (await client.ask(sent)).status

    old = ServerKeys(read_or_generate_secret(None, tmp_path / "request-secret", "state_dir")).public_key
    sealed, to_another = (
        seal(Attachment.of(b"").json, key) for key in (old, ServerKeys(bytes(32)).public_key)
    )
    assert [await answer_to(sealed), await answer_to(to_another)] == [502, 403]
    rotate_secret(tmp_path / "request-secret")
    assert [await answer_to(sealed), await answer_to(to_another)] == [502, 403]


async def test_every_gauge_has_its_number_from_the_start(tmp_path: Path) -> None:
    addresses = ["unix:/nonexistent/clamd.sock", "tcp:127.0.0.1:9"]
    async with running(configured(tmp_path, clamav={"addresses": addresses}), "1") as service:
        numbers = await gauges_of(service)
    not_known_yet = ("engine_signature", "engine_info", "signature_update")
    for name in [name for name in gauges() if not name.startswith(not_known_yet)]:
        assert any(re.fullmatch(rf"{name}(\{{.*)?", line) for line in numbers), name
    for address in addresses:
        assert numbers[f'engine_up{{backend="{address}",engine="clamav"}}'] == 0
    assert numbers['buffer_limit_bytes{kind="memfd"}'] == service.config.limits.memory
    assert numbers["http_requests_in_flight"] == 0


@pytest.mark.parametrize("url", ["memory", "sqlite"])
async def test_verdicts_are_kept_where_the_configuration_says(tmp_path: Path, url: str) -> None:
    async with running(configured(tmp_path, verdict_cache={"url": url}), "1") as service:
        numbers = await gauges_of(service)
        assert numbers[f'verdict_cache_entries{{tier="{url}"}}'] == 0
    assert (tmp_path / "verdicts.sqlite").exists() is (url == "sqlite")


async def test_what_libraries_log_becomes_an_event_without_its_arguments(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(configured(tmp_path), "1"):
        logging.getLogger("aiohttp.server").warning("cannot read %s", "syt_secret")
        logging.getLogger("aiohttp.server").info("unheard")
    written = capfd.readouterr().out
    assert '"problem":"cannot read %s"' in written
    assert "syt_secret" not in written
    assert "unheard" not in written


async def test_a_reload_reaches_whatever_it_may_change_and_nothing_else(tmp_path: Path) -> None:
    def wanted() -> Config:
        return configured(
            tmp_path / "another",
            server={"trusted_proxies": ["127.0.0.0/8"]},
            policy={"mode": "observe", "language": "fr", "allowed_types": ["image/png"]},
        )

    async with running(configured(tmp_path), "1") as service:
        listen, ops_listen = service.config.server.listen, service.config.server.ops_listen
        (tmp_path / "request-secret").write_text(generate_secret())
        _, old_key = await get(listen, f"{API}/public_key")
        told = await service.reloader.reload(wanted)
        assert isinstance(told, Reloaded)
        assert set(told.pending) == {"state_dir", "server.listen", "server.ops_listen"}
        assert set(told.changed) == {
            "crypto.secret_file",
            "policy.allowed_types",
            "policy.language",
            "policy.mode",
            "server.trusted_proxies",
        }
        assert (await get(listen, f"{API}/public_key"))[1] != old_key
        _, answer = await get(listen, f"{API}/scan/a.org/b/c/d")
        assert "doit se terminer par" in json.loads(answer)["info"]
        _, ready = await get(ops_listen, "/health/ready")
        assert json.loads(ready)["mode"] == "observe"
        assert (await gauges_of(service))['policy_mode{mode="observe"}'] == 1
    assert not (tmp_path / "another").exists()


async def test_a_reload_that_cannot_have_its_secret_changes_nothing(tmp_path: Path) -> None:
    def wanted() -> Config:
        return configured(tmp_path, crypto={"secret_file": "/nonexistent/secret"}, policy={"mode": "observe"})

    async with running(configured(tmp_path), "1") as service:
        told = await service.reloader.reload(wanted)
        assert told == ReloadFailed("crypto.secret_file: /nonexistent/secret: No such file or directory")
        _, ready = await get(service.config.server.ops_listen, "/health/ready")
        assert json.loads(ready)["mode"] == "enforce"
