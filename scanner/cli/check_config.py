"""`media-scanner check-config`: what would be used, and whether it can be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import yaml

from scanner.cli.options import ConfigFile
from scanner.config import Config
from scanner.key_files import read_secret, read_token, retired_secret_files
from scanner.safekeeping import bucket_of, named_keys
from scanner.tls import trusting


def check_config(
    config: ConfigFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the effective configuration, or what is wrong with it.

    Exits with 2 where something is. Opens every file that is named, writes nothing, and needs
    neither state_dir nor clamd. Values of headers are masked.
    """
    loaded = Config.load(config)
    for key, file in _secrets(loaded):
        read_secret(file, key)
    if loaded.homeserver.ca_file is not None:
        trusting(loaded.homeserver.ca_file, "homeserver.ca_file")
    named_keys(loaded.quarantine)
    bucket_of(loaded)
    if loaded.homeserver.admin_token_file is not None:
        read_token(loaded.homeserver.admin_token_file, "homeserver.admin_token_file")
    tree = loaded.model_dump(mode="json")
    typer.echo(json.dumps(tree) if as_json else yaml.safe_dump(tree, sort_keys=False).rstrip())


def _secrets(config: Config) -> Iterator[tuple[str, Path]]:
    """Every secret file that is named, and those that were rotated away beside it."""
    crypto = config.crypto
    if config.server.inspect_secret_file is not None:
        yield "server.inspect_secret_file", config.server.inspect_secret_file
    if crypto.secret_file is not None:
        for file in (crypto.secret_file, *retired_secret_files(crypto.secret_file)):
            yield "crypto.secret_file", file
    if crypto.index_secret_file is not None:
        yield "crypto.index_secret_file", crypto.index_secret_file
    for file in crypto.retired_secret_files:
        yield "crypto.retired_secret_files", file
