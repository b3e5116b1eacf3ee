"""`media-scanner quarantine export`: a sample in the clear, where somebody asked for it and nowhere else."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from scanner.cli.option_groups import grouped
from scanner.cli.quarantine_deeds import Deeds, Who
from scanner.cli.quarantine_found import Name, read_samples_named
from scanner.cli.quarantine_output import tell, tell_json
from scanner.cli.quarantine_store import Place
from scanner.cli.scan_output import note
from scanner.crypto.envelope import Header, public_key_of
from scanner.errors import ConfigError, EnvelopeError
from scanner.key_files import read_secret
from scanner.ports import Store
from scanner.quarantine.catalogue import SealedSample
from scanner.quarantine.samples import PASSWORD, envelope_of, examined, fits, needed, opened, zipped

KeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--key-file", metavar="FILE", help="The SOC's private key; again for each key that it takes."
    ),
]


@dataclass(frozen=True)
class Target:
    """Where a sample goes, and as what."""

    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where to write it; must not exist.")]
    raw: Annotated[
        bool, typer.Option("--raw", help="As it is, instead of in a ZIP with a password: live malware.")
    ] = False
    yes: Annotated[bool, typer.Option("--yes", help="With --raw: do not ask for the file twice.")] = False


@grouped
def export(
    name: Name,
    target: Target,
    who: Who,
    place: Place,
    key_files: KeyFiles = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Open a sample and write it to a file of its owner's alone.

    It is written as a ZIP archive, encrypted with AES-256 and the password `infected`. What does not have
    the SHA-256 that it was asked for by is not written at all.

    Exits with 1 where there is no such sample.
    """
    keys = private_keys(key_files)
    if not keys:
        raise ConfigError("--key-file: needed, it is what opens samples")
    _confirm(target)
    sample, size = uvloop.run(_export(place, name, keys, target, who))
    if as_json:
        form = "raw" if target.raw else "zip"
        tell_json({"sha256": sample.sha256, "file": str(target.to), "format": form, "size": size})
        return
    tell(f"{target.to}: {sample.sha256}, {size} bytes")
    note("It is live malware." if target.raw else f"The archive's password is {PASSWORD.decode()}.")


def private_keys(files: Sequence[Path] | None) -> list[bytes]:
    """32 bytes each. Raises ConfigError."""
    return [read_secret(file, "--key-file") for file in files or ()]


def _confirm(target: Target) -> None:
    """Live malware goes where somebody wrote down twice that it should."""
    if os.path.lexists(target.to):
        raise ConfigError(f"--to: {target.to}: exists already; nothing is overwritten")
    if not target.raw or target.yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("--raw: asks for the file once more, and nobody is there; with --yes it does not")
    again = typer.prompt("Live malware will be written. The same file once more", err=True)
    if Path(again) != target.to:
        raise ConfigError("--to: not the same file; nothing is written")


async def _export(
    place: Place, name: str, keys: Sequence[bytes], target: Target, who: Who
) -> tuple[SealedSample, int]:
    async with place.opened() as store:
        samples = await read_samples_named(store, name)
        sample, header, envelope = await openable(store, samples, keys)
        plaintext = opened(header, envelope, keys, sample.sha256)
        content = plaintext if target.raw else await asyncio.to_thread(zipped, plaintext, sample.sha256)
        await Deeds(store, who, place.rules()).audit(
            "export", f"{sample.sha256} {'raw' if target.raw else 'zip'}"
        )
        write_new(target.to, content)
        return sample, len(plaintext)


async def openable(
    store: Store, samples: Sequence[SealedSample], keys: Sequence[bytes]
) -> tuple[SealedSample, Header, bytes]:
    """The first copy that these keys open, with its envelope. Raises EnvelopeError, StoreError."""
    public_keys = [public_key_of(key) for key in keys]
    refusals = []
    for sample in samples:
        envelope = await envelope_of(store, sample)
        header = examined(sample, envelope)
        if fits(header, public_keys):
            return sample, header, envelope
        refusals.append(_who_opens(header, public_keys))
    raise EnvelopeError("; ".join(refusals))


def _who_opens(header: Header, ours: Sequence[bytes]) -> str:
    theirs = set(header.public_keys)
    given = len(theirs.intersection(ours))
    return f"the sample takes {needed(header)} of the {len(theirs)} keys that it is sealed to; given: {given}"


def write_new(file: Path, content: bytes) -> None:
    """With mode 0600, whole or not at all. Raises ConfigError."""
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise ConfigError(f"--to: {file}: {problem.strerror}") from None
    try:
        with open(fd, "wb") as opened_file:  # noqa: PTH123 - it is open already
            opened_file.write(content)
            opened_file.flush()
            os.fsync(fd)
    except OSError as problem:
        with suppress(OSError):
            file.unlink()
        raise ConfigError(f"--to: {file}: {problem.strerror}") from None
