"""`media-scanner keys`: the secret that clients seal request bodies to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from scanner.config import Config
from scanner.crypto.pk import ServerKeys
from scanner.errors import ConfigError
from scanner.key_files import REQUEST_SECRET, read_secret, write_secret

app = typer.Typer(help="Make and show keys.", no_args_is_help=True)


@app.command()
def generate(
    file: Annotated[Path, typer.Argument(help="Where to write the new secret; must not exist.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a new secret (mode 0600) and print its public key."""
    try:
        write_secret(file)
    except FileExistsError:
        raise ConfigError(f"{file}: exists already; a secret is never overwritten") from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    _print_public(file, as_json=as_json)


@app.command("show-public")
def show_public(
    config: Annotated[Path | None, typer.Option("--config", help="Configuration file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the public key that `GET public_key` answers."""
    loaded = Config.load(config)
    named, generated = loaded.crypto.secret_file, loaded.state_dir / REQUEST_SECRET
    if named is None and not generated.exists():
        raise ConfigError(f"{generated}: not there yet; it is made at the first start")
    _print_public(named or generated, as_json=as_json)


def _print_public(file: Path, *, as_json: bool) -> None:
    public_key = ServerKeys(read_secret(file, "crypto.secret_file")).public_key
    typer.echo(json.dumps({"public_key": public_key}) if as_json else public_key)
