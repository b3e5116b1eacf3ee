"""Reading the configuration again: what can be changed under way, and what needs a restart.

All of a new configuration that can be put in force is, at once, or nothing: files are read and everything is
made in a thread first, and only then one thing replaces another. Requests under way end as they began.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from scanner.config import Config
from scanner.errors import ConfigError
from scanner.events import Publish, Reloaded, ReloadFailed

_SECRET = "crypto.secret_file"
# Every other setting needs a restart. Secret files are read again even where their names stay.
RELOADABLE = frozenset(
    {
        "server.trusted_proxies",
        _SECRET,
        "crypto.retired_secret_files",
        "archives.depth",
        "archives.members",
        "archives.unpacked",
        "archives.time",
        "archives.ratio",
        "policy.mode",
        "policy.language",
        "policy.allowed_types",
        "policy.blocked_types",
        "policy.types_in_archives",
        "policy.encrypted_archives",
        "policy.encrypted_documents",
        "policy.unscannable",
        "policy.opaque_uploads",
        "policy.opaque_downloads",
        "quarantine.analysts",
        "quarantine.four_eyes",
        "log.level",
    }
)


@dataclass(frozen=True)
class Preparation:
    """What a configuration needs, made. `put_in_force` takes no time and does not fail."""

    put_in_force: Callable[[], None]
    has_new_secret: bool


class Reloader:
    """Holds the configuration in force, and replaces what can be replaced of it.

    `prepare` is called in a thread and raises ConfigError. `succeeded_at` is Unix time; the start counts.
    """

    def __init__(self, config: Config, *, prepare: Callable[[Config], Preparation], publish: Publish) -> None:
        self.config = config
        self.successful = True
        self.succeeded_at = time.time()
        self._prepare = prepare
        self._publish = publish

    async def reload(self, load: Callable[[], Config]) -> Reloaded | ReloadFailed:
        """Put in force what `load` returns; one at a time. A ConfigError changes nothing."""
        told: Reloaded | ReloadFailed
        try:
            told = await self._reload(load)
            self.succeeded_at = time.time()
        except ConfigError as error:
            told = ReloadFailed(error.info)
        self.successful = isinstance(told, Reloaded)
        self._publish(told)
        return told

    async def _reload(self, load: Callable[[], Config]) -> Reloaded:
        wanted = await asyncio.to_thread(load)
        config = _adopted(self.config, wanted)
        preparation = await asyncio.to_thread(self._prepare, config)
        preparation.put_in_force()
        changed = _differing(self.config, config)
        if preparation.has_new_secret:
            changed |= {_SECRET}
        self.config = config
        return Reloaded(tuple(sorted(changed)), tuple(sorted(_differing(config, wanted))))


def _adopted(running: Config, wanted: Config) -> Config:
    """`running` with what is reloadable of `wanted`."""
    values = wanted.settings()
    updates: defaultdict[str, dict[str, object]] = defaultdict(dict)
    for setting in RELOADABLE:
        section, _, key = setting.partition(".")
        updates[section][key] = values[setting]
    sections = {name: getattr(running, name).model_copy(update=keys) for name, keys in updates.items()}
    return running.model_copy(update=sections)


def _differing(one: Config, other: Config) -> set[str]:
    """Names of the settings that have other values."""
    values = other.settings()
    return {name for name, value in one.settings().items() if values[name] != value}
