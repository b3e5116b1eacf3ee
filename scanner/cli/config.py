"""`media-scanner config`: the configuration in force, its schema, and other scanners' made ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from scanner.cli.options import ConfigFile
from scanner.cli.terminal import one_line
from scanner.config import Config, Origin
from scanner.migration import import_config

_ORIGIN_COLUMN = 52

app = typer.Typer(help="Show, describe and import configurations.", no_args_is_help=True)


@app.command()
def show(
    config: ConfigFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every setting and where its value comes from.

    That is a default, the file or the environment. Values of headers are masked. Nothing is opened but the
    configuration file.
    """
    loaded, origins = Config.load_with_origins(config)
    tree = loaded.model_dump(mode="json")
    typer.echo(json.dumps(_explained(tree, origins)) if as_json else "\n".join(_commented(tree, origins)))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    typer.echo(json.dumps(Config.model_json_schema(), indent=2))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The other scanner's configuration (YAML).")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: the configuration, and what there is to say.")
    ] = False,
) -> None:
    """Print another scanner's configuration as one of ours.

    It may be of matrix-content-scanner, or of the Node scanner before it. What has no counterpart, or means
    something else here, is named on standard error. Nothing is written.
    """
    imported = import_config(file)
    if as_json:
        notes = [asdict(note) for note in imported.notes]
        typer.echo(json.dumps({"configuration": imported.sections, "notes": notes}))
        return
    typer.echo(yaml.safe_dump(imported.sections, sort_keys=False, allow_unicode=True), nl=False)
    for note in imported.notes:
        typer.echo(one_line(f"{note.key}: {note.note}"), err=True)


def _explained(tree: Mapping[str, Any], origins: Mapping[str, Origin], prefix: str = "") -> dict[str, Any]:
    """`tree` with an object in the place of each value: the value and its origin."""
    return {
        name: {"value": value, "origin": origins[key]}
        if (key := f"{prefix}{name}") in origins
        else _explained(value, origins, f"{key}.")
        for name, value in tree.items()
    }


def _commented(tree: Mapping[str, Any], origins: Mapping[str, Origin], prefix: str = "") -> Iterator[str]:
    """`tree` in YAML, with the origin of each value behind it."""
    indent = "  " * prefix.count(".")
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in origins:
            yield f"{indent}{name}: {_flow(value)}".ljust(_ORIGIN_COLUMN) + f"  # {origins[key]}"
        else:
            yield f"{indent}{name}:"
            yield from _commented(value, origins, f"{key}.")


def _flow(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=inf).removesuffix("...\n").rstrip()
