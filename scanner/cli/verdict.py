"""`media-scanner verdict`: what is remembered of media."""

from __future__ import annotations

from typing import Annotated

import typer

from scanner.cli.options import ConfigFile
from scanner.config import Config
from scanner.epoch import Epoch

app = typer.Typer(help="Forget verdicts.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Forget verdicts."""


@app.command()
def forget(
    everything: Annotated[bool, typer.Option("--all", help="Every verdict. There is no way to name fewer.")],
    config: ConfigFile,
) -> None:
    """Have every file scanned anew.

    For a change of clamd's that we cannot see. A service that runs with the same state_dir notices within
    seconds, another one when it is started again.
    """
    Epoch(Config.load(config).state_dir).advance()
    typer.echo("All verdicts are forgotten: files are scanned anew.", err=True)
