"""`media-scanner keys`: the secret that clients seal request bodies to, and keys of other kinds."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scanner.cli.options import ConfigFile
from scanner.config import Config
from scanner.crypto.olm_pickle import unpickle_secret
from scanner.crypto.pk import ServerKeys, format_secret
from scanner.crypto.signing import Signer, format_public_key
from scanner.errors import ConfigError
from scanner.key_files import AUDIT_KEY, REQUEST_SECRET, read_secret, read_small, rotate_secret, write_secret
from scanner.migration import pickled_secret

_KEY = "crypto.secret_file"

app = typer.Typer(help="Make, show, rotate and import keys.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Kind(StrEnum):
    """What a key is for: to open what clients seal, to open quarantined samples, to sign as an analyst."""

    REQUEST = "request"
    QUARANTINE = "quarantine"
    SIGNING = "signing"


class Own(StrEnum):
    """Which of a scanner's own public keys."""

    REQUEST = "request"
    AUDIT = "audit"


NewFile = Annotated[Path, typer.Argument(metavar="SECRET", help="Where to write the secret; must not exist.")]


@app.command()
def generate(
    file: NewFile,
    kind: Annotated[Kind, typer.Option("--kind", help="What it is for.")] = Kind.REQUEST,
    as_json: AsJson = False,
) -> None:
    """Write a new secret (mode 0600) and print its public key.

    A request secret opens what clients seal, a quarantine key what is quarantined. An analyst signs with a
    signing key: its public half goes into quarantine.analysts.
    """
    _write(file)
    _print_key(_signing_public(file) if kind is Kind.SIGNING else _public(file), as_json=as_json)


@app.command("show-public")
def show_public(
    config: ConfigFile,
    kind: Annotated[Own, typer.Option("--kind", help="Of which key.")] = Own.REQUEST,
    as_json: AsJson = False,
) -> None:
    """Print the public key that `GET public_key` answers.

    Or, of the kind audit, the one that belongs to what this scanner signs in the audit chain: list it in
    quarantine.audit_public_keys of those who verify the chain elsewhere.
    """
    loaded = Config.load(config)
    if kind is Own.AUDIT:
        _print_key(_signing_public(_existing(loaded.state_dir / AUDIT_KEY)), as_json=as_json)
    else:
        _print_public(_current(loaded), as_json=as_json)


@app.command()
def rotate(config: ConfigFile, as_json: AsJson = False) -> None:
    """Make a new secret; the old one still opens bodies.

    The old one stays beside the new one as NAME.retired-TIME, where the service finds it. Keep it there:
    clients may not ask for the new public key for months. A service that runs takes up both on SIGHUP, or
    when it is started again. Prints the new public key.
    """
    file = _current(Config.load(config))
    read_secret(file, _KEY)
    try:
        retired = rotate_secret(file)
    except OSError as error:
        raise ConfigError(
            f"{_KEY}: {file}: cannot be rotated in its folder: {error.strerror}; make another with "
            f"`keys generate`, name it there, and this one in crypto.retired_secret_files"
        ) from None
    if as_json:
        typer.echo(json.dumps({"public_key": _public(file), "retired_file": str(retired)}))
        return
    typer.echo(_public(file))
    typer.echo(f"The old secret is {retired}; keep it.", err=True)
    typer.echo("Now send SIGHUP to the service, or start it again.", err=True)


@app.command("import-pickle")
def import_pickle(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="The other scanner's configuration, which names pickle and pickle key."
        ),
    ],
    file: NewFile,
    as_json: AsJson = False,
) -> None:
    """Write the secret that another scanner has pickled.

    The Node scanner and matrix-content-scanner up to 1.2 kept it in a pickle of libolm. Prints its public
    key, which must be the one that clients know.
    """
    pickle, pickle_key = pickled_secret(config)
    try:
        secret = unpickle_secret(read_small(pickle), pickle_key)
    except OSError as error:
        raise ConfigError(f"{pickle}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{pickle}: {error}") from None
    _write(file, format_secret(secret))
    _print_public(file, as_json=as_json)


def _current(config: Config) -> Path:
    return config.crypto.secret_file or _existing(config.state_dir / REQUEST_SECRET)


def _existing(generated: Path) -> Path:
    if not generated.exists():
        raise ConfigError(f"{generated}: not there yet; it is made at the first start")
    return generated


def _write(file: Path, secret: str | None = None) -> None:
    try:
        write_secret(file, secret)
    except FileExistsError:
        raise ConfigError(f"{file}: exists already; a secret is never overwritten") from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None


def _public(file: Path) -> str:
    return ServerKeys(read_secret(file, _KEY)).public_key


def _signing_public(file: Path) -> str:
    return format_public_key(Signer(read_secret(file, "state_dir")).public_key)


def _print_public(file: Path, *, as_json: bool) -> None:
    _print_key(_public(file), as_json=as_json)


def _print_key(public_key: str, *, as_json: bool) -> None:
    typer.echo(json.dumps({"public_key": public_key}) if as_json else public_key)
