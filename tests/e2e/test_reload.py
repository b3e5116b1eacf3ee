"""SIGHUP to a service that runs: what is new from then on, what stays, and who is told."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from scanner.crypto.pk import ServerKeys
from tests.cli.command import media_scanner_process
from tests.e2e.samples import png
from tests.e2e.scanner_api import Reply
from tests.e2e.scene import REFUSED, Scene, letter, scene
from tests.fake_homeserver import Heard, Step, media_head
from tests.real_clamd import EICAR, Clamd
from tests.web.service import seal

pytestmark = pytest.mark.real

_ANSWERS = re.compile("^(Configuration (?:reloaded|refused).*)$", re.MULTILINE)
NOTHING = "Configuration reloaded: nothing has changed"


class Reloading:
    """A scene whose configuration file can be edited."""

    def __init__(self, stage: Scene, directory: Path) -> None:
        self.stage = stage
        self.file = directory / "media-scanner.yaml"
        self._directory = directory

    async def hang_up(self, answers: int = 1) -> list[str]:
        """Send SIGHUP; what was said of it on standard error: so many answers, and all between."""
        before = self.answers
        os.kill(self.stage.product.process.pid, signal.SIGHUP)
        await self.stage.until(lambda: len(self.answers) >= len(before) + answers)
        return self.answers[len(before) :]

    async def reload(self, **sections: dict[str, Any]) -> str:
        """Change these settings, and what was said of it."""
        self.edit(**sections)
        [answer] = await self.hang_up()
        return answer

    def edit(self, **sections: dict[str, Any]) -> None:
        tree = yaml.safe_load(self.file.read_text())
        for section, keys in sections.items():
            tree[section] = {**tree.get(section, {}), **keys}
        self.file.write_text(yaml.safe_dump(tree))

    @property
    def answers(self) -> list[str]:
        return _ANSWERS.findall(self.stage.product.output())

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The lines of the log with that message."""
        lines = (line for line in self.stage.product.output().splitlines() if line.startswith("{"))
        return [line for line in map(json.loads, lines) if line["message"].startswith(message)]

    async def logged(self, message: str) -> dict[str, Any]:
        """The last of them, once there is one: the log is written behind what it tells of."""
        await self.stage.until(lambda: bool(self.lines(message)))
        return self.lines(message)[-1]

    def new_secret(self, name: str) -> Path:
        """A secret file."""
        path = self._directory / name
        path.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        self.stage.secrets.add(path.read_text())
        return path

    async def sealed_scan(self, public_key: str) -> Reply:
        """The answer to a body that is sealed to this key."""
        content = json.dumps(self.stage.upload_encrypted(letter())).encode()
        return await self.stage.api.scan_encrypted(json.loads(seal(content, public_key)), self.stage.user)

    async def unjudged_download(self, mxc: str) -> Reply:
        """One that `Scene.check` does not have to approve of."""
        return await self.stage.api.download(mxc, self.stage.user)


@pytest.fixture
async def running(tmp_path: Path, clamd: Clamd) -> AsyncIterator[Reloading]:
    patient = {"idle_timeout": "5s", "total_timeout": "5s"}
    async with scene(tmp_path, f"unix:{clamd.socket}", homeserver=patient) as stage:
        await stage.until_ready()
        yield Reloading(stage, tmp_path)


# -- what is new at once -------------------------------------------------------------------------


async def test_observe_mode_comes_and_goes(running: Reloading) -> None:
    stage, mxc = running.stage, running.stage.upload(letter() + EICAR)
    assert (await running.unjudged_download(mxc)).refusal == REFUSED

    assert await running.reload(policy={"mode": "observe"}) == "Configuration reloaded: policy.mode"
    observed = await running.unjudged_download(mxc)
    assert (observed.status, EICAR in observed.body) == (200, True)
    assert (await stage.scan(mxc)).content["clean"] is False
    assert stage.metric("policy_mode", mode="observe") == 1
    assert stage.metric("fail_open_total", reason="observe") == 1
    assert stage.metric("would_block_total", reason="malware") == 2
    assert await stage.reasons() == set()
    assert "OBSERVING: downloads are handed over" in stage.product.output()
    line = await running.logged("infected media would be withheld")
    assert line["event"]["action"] == "media-would-block"

    await running.reload(policy={"mode": "enforce"})
    assert (await running.unjudged_download(mxc)).refusal == REFUSED
    assert stage.metric("policy_mode", mode="observe") == 0


async def test_the_language_is_another(running: Reloading) -> None:
    mxc = running.stage.upload(letter())
    assert (await running.stage.scan(mxc)).content["info"] == "File is clean"
    await running.reload(policy={"language": "fr"})
    assert (await running.stage.scan(mxc)).content["info"] == "Ce fichier est sain"


async def test_type_lists_hold_for_what_was_judged_before_as_well(running: Reloading) -> None:
    stage, mxc = running.stage, running.stage.upload(png())
    assert (await stage.download(mxc)).status == 200
    await running.reload(policy={"blocked_types": ["image/*"]})
    assert (await stage.download(mxc)).refusal == (403, "MCS_MIME_TYPE_FORBIDDEN")
    judged = stage.metric("scans_total")
    await running.reload(policy={"blocked_types": None})
    assert (await stage.download(mxc)).status == 200
    assert stage.metric("scans_total") == judged, "under these lists it was judged already"


async def test_a_body_sealed_to_the_old_key_opens_after_a_rotation(running: Reloading) -> None:
    old_file = running.new_secret("old")
    await running.reload(crypto={"secret_file": str(old_file)})
    old = await running.stage.api.public_key()
    new_file = running.new_secret("new")
    told = await running.reload(
        crypto={"secret_file": str(new_file), "retired_secret_files": [str(old_file)]}
    )
    assert told == "Configuration reloaded: crypto.retired_secret_files, crypto.secret_file"
    new = await running.stage.api.public_key()
    assert new != old
    for public_key in (old, new):
        assert (await running.sealed_scan(public_key)).content["clean"] is True

    await running.reload(crypto={"retired_secret_files": []})
    assert (await running.sealed_scan(old)).refusal == (403, "MCS_BAD_DECRYPTION")


async def test_sighup_after_keys_rotate_offers_the_new_key_and_opens_what_was_sealed_to_the_old(
    running: Reloading,
) -> None:
    old, secret_file = await running.stage.api.public_key(), running.file.with_name("request_secret")
    rotated = await asyncio.to_thread(media_scanner_process, "keys", "rotate", "--config", running.file)
    assert rotated.returncode == 0, rotated
    assert "send SIGHUP to the service" in rotated.stderr
    running.stage.secrets.add(secret_file.read_text())
    assert await running.hang_up() == ["Configuration reloaded: crypto.secret_file"]

    new = await running.stage.api.public_key()
    assert rotated.stdout == f"{new}\n"
    assert new != old
    for public_key in (old, new):
        assert (await running.sealed_scan(public_key)).content["clean"] is True


async def test_a_secret_that_was_exchanged_in_its_file_is_read_again(running: Reloading) -> None:
    file = running.new_secret("secret")
    await running.reload(crypto={"secret_file": str(file)})
    running.new_secret("secret")
    assert await running.hang_up() == ["Configuration reloaded: crypto.secret_file"]
    secret = base64.b64decode(file.read_text())
    assert await running.stage.api.public_key() == ServerKeys(secret).public_key
    assert await running.hang_up() == [NOTHING]


async def test_the_level_of_the_log_is_another(running: Reloading) -> None:
    await running.stage.download(running.stage.upload(letter()))
    await running.reload(log={"level": "debug"})
    assert running.lines("answered") == []
    await running.stage.download(running.stage.upload(letter()))
    assert (await running.logged("answered"))["log"]["level"] == "debug"


async def test_a_proxy_is_trusted_from_then_on(running: Reloading) -> None:
    await running.stage.download(running.stage.upload(letter()))
    assert running.stage.homeserver.heard[-1].header("x-forwarded-for") == "127.0.0.1"
    await running.reload(server={"trusted_proxies": ["127.0.0.0/8"]})
    url = f"{running.stage.product.url}/_matrix/media_proxy/unstable/scan/a.org/other"
    async with aiohttp.request("GET", url, headers={"X-Forwarded-For": "192.0.2.7"}):
        pass
    assert running.stage.homeserver.heard[-1].header("x-forwarded-for") == "192.0.2.7"


# -- what is not ---------------------------------------------------------------------------------


async def test_what_needs_a_restart_is_named_and_the_rest_holds(running: Reloading) -> None:
    told = await running.reload(
        policy={"language": "fr"}, limits={"media_size": "1MiB"}, clamav={"scan_timeout": "9s"}
    )
    assert told == "Configuration reloaded: policy.language"
    line = await running.logged("configuration reloaded")
    assert line["log"]["level"] == "warning"
    assert line["media_scanner"] == {
        "changed": ["policy.language"],
        "needs_restart": ["clamav.scan_timeout", "limits.media_size"],
    }
    output = running.stage.product.output(until="Needs a restart: limits.media_size")
    assert "Needs a restart: clamav.scan_timeout" in output
    assert (await running.stage.download(running.stage.upload(letter() + bytes(1_500_000)))).status == 200


BAD: dict[str, Callable[[Reloading], None]] = {
    "an unknown key": lambda running: running.edit(policy={"mode": "observe", "modus": "x"}),
    "a bad value": lambda running: running.edit(policy={"mode": "observe", "language": "de"}),
    "a secret that is not there": lambda running: running.edit(
        policy={"mode": "observe"}, crypto={"secret_file": "/nonexistent/secret"}
    ),
    "a retired secret that is none": lambda running: running.edit(
        policy={"mode": "observe"}, crypto={"retired_secret_files": ["/dev/null"]}
    ),
    "no YAML": lambda running: _append(running.file, "\n{"),
    "no file": lambda running: running.file.unlink(),
}


def _append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


async def test_a_bad_configuration_changes_nothing_and_says_why(running: Reloading) -> None:
    stage, mxc = running.stage, running.stage.upload(letter() + EICAR)
    good, public_key = running.file.read_text(), await running.stage.api.public_key()
    since = stage.metric("config_last_reload_success_timestamp_seconds")
    assert stage.metric("config_last_reload_successful") == 1
    for spoil in BAD.values():
        spoil(running)
        [told] = await running.hang_up()
        assert told.startswith("Configuration refused, nothing has changed: ")
        assert (await running.unjudged_download(mxc)).refusal == REFUSED
        assert await stage.api.public_key() == public_key
        assert stage.metric("config_last_reload_successful") == 0
        line = await running.logged("configuration refused")
        assert (line["log"]["level"], line["media_scanner"]["problem"]) == ("error", told.partition(": ")[2])
        running.file.write_text(good)
    assert stage.metric("config_last_reload_success_timestamp_seconds") == since
    assert await running.hang_up() == [NOTHING]
    assert stage.metric("config_last_reload_successful") == 1
    assert stage.metric("config_last_reload_success_timestamp_seconds") > since


async def test_requests_under_way_end_as_they_began(running: Reloading) -> None:
    stage, infected = running.stage, letter() + EICAR
    mxc = stage.upload(infected)
    reloaded = asyncio.Event()

    def hesitating(heard: Heard) -> Iterator[Step]:
        yield media_head(len(infected))
        while not reloaded.is_set():
            yield 0.05
        yield infected

    stage.but(hesitating)
    asked = asyncio.create_task(running.unjudged_download(mxc))
    await stage.until(lambda: stage.metric("http_requests_in_flight") == 1)
    await running.reload(policy={"mode": "observe", "language": "fr"})
    reloaded.set()
    assert (await asked).content["info"] == "Malware was found in this file"
    assert (await running.unjudged_download(mxc)).body == infected


# -- how it is done ------------------------------------------------------------------------------


async def test_requests_are_answered_while_files_are_read_and_later_signals_wait(running: Reloading) -> None:
    """The configuration comes out of a pipe that nobody has written to yet."""
    stage, file, secret = running.stage, running.file, running.new_secret("secret")
    running.edit(crypto={"secret_file": str(secret)})
    text = file.read_text()
    file.unlink()
    os.mkfifo(file)
    os.kill(stage.product.process.pid, signal.SIGHUP)
    await asyncio.sleep(0.3)
    assert await stage.well()
    for _ in range(20):
        os.kill(stage.product.process.pid, signal.SIGHUP)
    assert await stage.well()
    assert running.answers == []
    await asyncio.to_thread(file.write_text, text)
    await stage.until(lambda: len(running.answers) == 1)
    assert await stage.api.public_key() == ServerKeys(base64.b64decode(secret.read_text())).public_key
    await asyncio.to_thread(file.write_text, text)
    await stage.until(lambda: len(running.answers) == 2)
    assert running.answers == ["Configuration reloaded: crypto.secret_file", NOTHING]
    assert await stage.well()


async def test_nothing_is_lost_when_reloads_and_requests_come_at_once(running: Reloading) -> None:
    stage = running.stage
    for number in range(10):
        running.edit(policy={"language": "fr" if number % 2 else "en", "blocked_types": None})
        os.kill(stage.product.process.pid, signal.SIGHUP)
        replies = await asyncio.gather(*(stage.clean() for _ in range(5)), stage.infected())
        assert [reply.status for reply in replies] == [200] * 5 + [403]
    await stage.until(lambda: stage.metric("config_last_reload_successful") == 1)
    assert stage.metric("http_requests_total", code="500") == 0
