from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from scanner.config import Config
from scanner.errors import ConfigError
from scanner.events import Event, Reloaded, ReloadFailed
from scanner.reload import RELOADABLE, Preparation, Reloader


def configured(**sections: dict[str, Any]) -> Config:
    return Config.model_validate(sections)


@dataclass
class Bench:
    """A reloader, and what it does: prepared and in force are in the order in which it came."""

    prepared: list[Config] = field(default_factory=list)
    in_force: list[Config] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    problem: str | None = None
    new_secret: bool = False

    def __post_init__(self) -> None:
        self.reloader = Reloader(configured(), prepare=self._prepare, publish=self.events.append)

    async def reload(self, **sections: dict[str, Any]) -> Reloaded | ReloadFailed:
        return await self.reload_from(lambda: configured(**sections))

    async def reload_from(self, load: Callable[[], Config]) -> Reloaded | ReloadFailed:
        def noted() -> Config:
            self.threads.append(threading.current_thread())
            return load()

        return await self.reloader.reload(noted)

    def _prepare(self, config: Config) -> Preparation:
        self.threads.append(threading.current_thread())
        if self.problem is not None:
            raise ConfigError(self.problem)
        self.prepared.append(config)
        return Preparation(lambda: self.in_force.append(config), self.new_secret)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def refuse() -> Config:
    raise ConfigError("config.yaml: foo: there is no such key")


def test_what_is_reloadable_is_a_setting() -> None:
    assert configured().settings().keys() >= RELOADABLE


async def test_what_is_reloadable_is_put_in_force_and_named(bench: Bench) -> None:
    told = await bench.reload(policy={"mode": "observe", "blocked_types": ["image/png"]})
    assert told == Reloaded(("policy.blocked_types", "policy.mode"), ())
    assert bench.events == [told]
    assert bench.in_force == bench.prepared == [bench.reloader.config]
    assert bench.reloader.config.policy.mode == "observe"


async def test_what_needs_a_restart_stays_and_is_named_until_it_is_back(bench: Bench) -> None:
    changed = {"server": {"listen": "127.0.0.1:9"}, "limits": {"media_size": "1MiB"}}
    told = await bench.reload(**changed, policy={"mode": "observe"})
    assert told == Reloaded(("policy.mode",), ("limits.media_size", "server.listen"))
    assert bench.reloader.config == configured(policy={"mode": "observe"})
    assert await bench.reload(**changed) == Reloaded(("policy.mode",), told.pending)
    assert await bench.reload() == Reloaded((), ())


@pytest.mark.parametrize("setting", sorted(configured().settings()))
async def test_every_setting_is_either_put_in_force_or_named(bench: Bench, setting: str) -> None:
    wanted = configured().settings() | {setting: "another"}
    told = await bench.reload_from(lambda: _Wanted(wanted))  # type: ignore[arg-type,return-value]
    assert isinstance(told, Reloaded)
    assert (told.changed, told.pending) == (((setting,), ()) if setting in RELOADABLE else ((), (setting,)))
    assert (bench.reloader.config.settings()[setting] == "another") is (setting in RELOADABLE)


@dataclass
class _Wanted:
    """A configuration whose values need not be valid."""

    values: dict[str, object]

    def settings(self) -> dict[str, object]:
        return self.values


async def test_a_secret_that_was_exchanged_in_its_file_is_named(bench: Bench) -> None:
    bench.new_secret = True
    assert await bench.reload() == Reloaded(("crypto.secret_file",), ())


@pytest.mark.parametrize("unprepared", [True, False])
async def test_a_new_configuration_that_cannot_be_used_changes_nothing(
    bench: Bench, unprepared: bool
) -> None:
    before, since = bench.reloader.config, bench.reloader.succeeded_at
    if unprepared:
        bench.problem = "crypto.secret_file: /x: No such file or directory"
        told = await bench.reload(policy={"mode": "observe"})
    else:
        told = await bench.reload_from(refuse)
    assert told == ReloadFailed(bench.problem or "config.yaml: foo: there is no such key")
    assert bench.events == [told]
    assert (bench.in_force, bench.reloader.config) == ([], before)
    assert (bench.reloader.successful, bench.reloader.succeeded_at) == (False, since)


async def test_a_good_one_after_a_bad_one_is_a_success(bench: Bench) -> None:
    assert bench.reloader.successful
    since = bench.reloader.succeeded_at
    await bench.reload_from(refuse)
    await bench.reload()
    assert bench.reloader.successful
    assert bench.reloader.succeeded_at > since


async def test_nothing_is_read_on_the_event_loop(bench: Bench) -> None:
    await bench.reload()
    assert len(bench.threads) == 2
    assert threading.current_thread() not in bench.threads
