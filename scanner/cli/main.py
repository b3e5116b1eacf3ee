"""`media-scanner`: one file a command group."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from scanner.cli import audit, check_config, config, doctor, keys, quarantine, scan, serve, verdict
from scanner.cli.terminal import one_line
from scanner.cli.version import all_versions
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
app.command("scan")(scan.scan)
app.command("check-config")(check_config.check_config)
app.command("doctor")(doctor.doctor)
app.add_typer(audit.app, name="audit")
app.add_typer(config.app, name="config")
app.add_typer(keys.app, name="keys")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(verdict.app, name="verdict")


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the versions of the scanner and of what it stands on.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --version: print JSON.")] = False,
) -> None:
    """An antivirus proxy in front of a Matrix homeserver's media, encrypted attachments included."""
    if version:
        versions = all_versions()
        lines = "\n".join(f"{name} {number}" for name, number in versions.items())
        typer.echo(json.dumps(versions) if as_json else lines)
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("Missing command.")


def main() -> None:
    """Run the command line; what the operator must change ends it with one line and exit code 2."""
    try:
        app(prog_name="media-scanner")
    except ScannerError as error:
        typer.echo(f"media-scanner: {one_line(error.info)}", err=True)
        sys.exit(EXIT_UNUSABLE)
