"""Where the quarantine is that a command works on: as configured, or as the command line says."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from scanner.analysts import rules_of
from scanner.cli.options import SYSTEM_FILE, system_file
from scanner.config import Config
from scanner.errors import ConfigError
from scanner.ports import Store
from scanner.quarantine.actions import Rules
from scanner.safekeeping import store_of
from scanner.stores.local import Local


@dataclass(frozen=True)
class Place:
    """Options of every command that works on a store; credentials come from the standard AWS places."""

    config: Annotated[
        Path | None,
        typer.Option("--config", help=f"Configuration that says where, if not {SYSTEM_FILE}."),
    ] = None
    store: Annotated[
        Path | None, typer.Option("--store", metavar="DIR", help="A local store's directory.")
    ] = None
    bucket: Annotated[str | None, typer.Option("--bucket", metavar="NAME", help="An S3 bucket.")] = None
    endpoint_url: Annotated[
        str | None, typer.Option("--endpoint-url", metavar="URL", help="Of the bucket's server, if not AWS.")
    ] = None
    prefix: Annotated[str, typer.Option("--prefix", help="Before all names in the bucket.")] = ""
    region: Annotated[str | None, typer.Option("--region", help="Of the bucket.")] = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        """The store. Raises ConfigError where none is named, or more than one, or it cannot be there."""
        named = [self.config, self.store, self.bucket]
        if len([each for each in named if each is not None]) > 1:
            raise ConfigError("--config, --store, --bucket: only one of them says where the quarantine is")
        if self.bucket is None and (self.endpoint_url or self.prefix or self.region):
            raise ConfigError("--endpoint-url, --prefix and --region go with --bucket")
        if self.store is not None:
            _look_into(self.store, "--store")
            yield Local(self.store)
            return
        config = self._configured()
        if config.quarantine.store == "local":
            _look_into(config.state_dir, "state_dir")
        async with AsyncExitStack() as stack:
            yield await store_of(config, stack)

    def rules(self) -> Rules:
        """Whose signatures count there: only a configuration says so."""
        return rules_of(Config.load(None, {}) if self.store else self._configured())

    def retention(self) -> timedelta:
        """How long things are kept there: only a configuration says so. Raises ConfigError."""
        if self.store or self.bucket:
            raise ConfigError("--older-than: needed where no configuration has quarantine.retention")
        return timedelta(seconds=self._configured().quarantine.retention)

    def _configured(self) -> Config:
        if self.bucket is None:
            config = Config.load(self.config or system_file())
            if config.quarantine.store == "off":
                raise ConfigError("quarantine.store: off: nothing is kept")
            return config
        s3 = {"BUCKET": self.bucket, "ENDPOINT_URL": self.endpoint_url, "REGION": self.region}
        named = {f"S3__{name}": value for name, value in {**s3, "PREFIX": self.prefix}.items() if value}
        settings = {"STORE": "s3", **named}
        return Config.load(None, {f"MEDIA_SCANNER__QUARANTINE__{key}": settings[key] for key in settings})


def _look_into(directory: Path, key: str) -> None:
    """What may not be looked into would pass for empty."""
    if not (os.path.isdir(directory) and os.access(directory, os.R_OK | os.X_OK)):  # noqa: PTH112 - a Path raises
        raise ConfigError(f"{key}: {directory}: is not there, or not open to this user")
