"""`media-scanner check-config`: what would be used, and whether it can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
import yaml

from scanner.config import Config
from scanner.key_files import read_secret


def check_config(
    config: Annotated[Path | None, typer.Option("--config", help="Configuration file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the effective configuration, or what is wrong with it.

    Exits with 2 where something is. Opens every file that is named, writes nothing, and needs
    neither state_dir nor clamd.
    """
    loaded = Config.load(config)
    for key, file in _named_files(loaded):
        read_secret(file, key)
    tree = loaded.model_dump(mode="json")
    typer.echo(json.dumps(tree) if as_json else yaml.safe_dump(tree, sort_keys=False).rstrip())


def _named_files(config: Config) -> list[tuple[str, Path]]:
    crypto = config.crypto
    named = [
        ("crypto.secret_file", crypto.secret_file),
        ("crypto.index_secret_file", crypto.index_secret_file),
    ]
    retired = [("crypto.retired_secret_files", file) for file in crypto.retired_secret_files]
    return [(key, file) for key, file in named if file is not None] + retired
