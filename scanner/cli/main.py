"""`media-scanner`: one file a command group."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from scanner.cli import check_config, keys, serve
from scanner.cli.version import product_version
from scanner.errors import ScannerError

EXIT_UNUSABLE = 2

app = typer.Typer(
    name="media-scanner",
    help="An antivirus proxy in front of a Matrix homeserver's media, encrypted attachments included.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it prints local variables, keys among them
    rich_markup_mode=None,
)
app.command("serve")(serve.serve)
app.command("check-config")(check_config.check_config)
app.add_typer(keys.app, name="keys")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"media-scanner {product_version()}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An antivirus proxy in front of a Matrix homeserver's media, encrypted attachments included."""


def main() -> None:
    """Run the command line; what the operator must change ends it with one line and exit code 2."""
    try:
        app()
    except ScannerError as error:
        typer.echo(f"media-scanner: {_one_line(error.info)}", err=True)
        sys.exit(EXIT_UNUSABLE)


def _one_line(text: str) -> str:
    """Names of keys and files may hold line feeds and terminal escapes."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
