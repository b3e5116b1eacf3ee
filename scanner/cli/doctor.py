"""`media-scanner doctor`: what is wrong with an installation, and the one thing to do about each fault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from scanner.clamd.freshclam import find_daemon
from scanner.clamd.home import SERVICE_PREFIX
from scanner.clamd.protocol import ClamdAddress
from scanner.cli.doctor_output import as_document, show
from scanner.cli.options import ConfigFile
from scanner.cli.version import all_versions, product_version
from scanner.config import Config
from scanner.doctor import clamd, homeserver, keys, machine, s3, service, unpacking, updates
from scanner.doctor.clamd import Patient
from scanner.doctor.examination import examine, worst
from scanner.doctor.finding import Notes, Status
from scanner.doctor.keys import Secret
from scanner.doctor.s3_policy import bucket_policy, lifecycle
from scanner.doctor.signatures import Terms
from scanner.errors import ConfigError
from scanner.events import Event, ProcessChanged
from scanner.judge import clamd_beside
from scanner.key_files import INDEX_SECRET, REQUEST_SECRET, read_small
from scanner.safekeeping import bucket_of

_ALL = "all"
_EMBEDDED = "embedded"
# Seconds for a clamd that was started for the check: what remains is for the check itself.
_LOADING = 15.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the groups are given. `file` is the configuration's own."""

    config: Config
    file: Path | None
    access_token: str | None = field(repr=False)
    maintenance: str | None = None


def doctor(
    config: ConfigFile,
    groups: Annotated[
        list[str] | None,
        typer.Argument(metavar="|".join([*GROUPS, _ALL]), help="What to look at; several, if you like."),
    ] = None,
    access_token_file: Annotated[
        Path | None,
        typer.Option(
            "--access-token-file",
            envvar="MEDIA_SCANNER_ACCESS_TOKEN_FILE",
            help="File with the access token of any user, to see the homeserver's upload limit.",
        ),
    ] = None,
    maintenance_profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="AWS profile that may delete in the bucket: s3 then leaves nothing there."
        ),
    ] = None,
    print_policy: Annotated[
        bool,
        typer.Option("--print-policy", help="Print what to put in force at the bucket, and do nothing else."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look for what is wrong with this installation.

    Says what to do about it. Changes nothing, but for small probes below doctor/ in the bucket of the
    quarantine, if it is in one; takes half a minute at most. Run it as the service's user or
    as root: what another user may not see is skipped. Exits with 0 if nothing failed (warnings allowed), 1
    if something did, and 2 if the configuration cannot be used.
    """
    chosen = _chosen(groups or [_ALL])
    asked = _Asked(Config.load(config), config, _token(access_token_file), maintenance_profile)
    if print_policy:
        _print_policy(asked.config)
        return
    looks = {name: partial(GROUPS[name], asked) for name in chosen}
    sections = asyncio.run(examine(looks))
    if as_json:
        typer.echo(as_document(sections, product_version()))
    else:
        show(sections)
    raise typer.Exit(1 if worst(sections) is Status.FAILED else 0)


def _print_policy(config: Config) -> None:
    bucket = bucket_of(config)
    if bucket is None:
        raise ConfigError(f"quarantine.store: is {config.quarantine.store}, so that there is no bucket")
    document = {"bucket_policy": bucket_policy(bucket), "lifecycle": lifecycle(bucket)}
    typer.echo(json.dumps(document, indent=2))


def _chosen(names: Sequence[str]) -> list[str]:
    unknown = [name for name in names if name not in {*GROUPS, _ALL}]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join([*GROUPS, _ALL])}")
    return [name for name in GROUPS if name in names or _ALL in names]


def _token(file: Path | None) -> str | None:
    try:
        return None if file is None else read_small(file).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "holds no token"
        raise ConfigError(f"--access-token-file: {file}: {problem}") from None


async def _clamd(asked: _Asked, notes: Notes) -> None:
    clamav, limits = asked.config.clamav, asked.config.limits
    async with AsyncExitStack() as stack:
        patients = {
            address: Patient(ClamdAddress.parse(address))
            for address in clamav.addresses
            if address != _EMBEDDED
        }
        patients |= await _embedded(notes, asked.config, stack)
        _updates(notes, asked.config, patients.get(_EMBEDDED))
        terms = Terms(clamav.max_signature_age, clamav.accept_test_signatures)
        await clamd.examine(
            notes, patients, terms, media_size=limits.media_size, scan_timeout=clamav.scan_timeout
        )


def _updates(notes: Notes, config: Config, own: Patient | None) -> None:
    addresses = config.clamav.addresses
    if all(address.startswith("tcp:") for address in addresses):
        return
    socket = own.address.path if own is not None else None
    updates.examine(
        notes,
        daemon=find_daemon(),
        embedded=_EMBEDDED in addresses,
        by_service=config.clamav.freshclam != "off",
        passing=socket is not None and Path(socket).parent.name.startswith(SERVICE_PREFIX),
    )


async def _embedded(notes: Notes, config: Config, stack: AsyncExitStack) -> dict[str, Patient]:
    """The service's own clamd, or one that was started for the check; none where it does not come."""
    told: list[str] = []
    events: list[Event] = []
    beside = await clamd_beside(config, stack, events.append, told.append)
    if beside is None or beside.address.path is None:
        return {}
    end = asyncio.get_running_loop().time() + _LOADING
    while not Path(beside.address.path).exists():  # noqa: ASYNC240 - another process makes it
        states = {event.state: event.detail for event in events if isinstance(event, ProcessChanged)}
        if "missing" in states:
            notes.failed(_EMBEDDED, states["missing"], "apt-get install clamav-daemon")
            return {}
        if "problem" in states and "ended" in states:
            notes.failed(_EMBEDDED, f"does not start: {states['problem']}", "mend what clamd complains about")
            return {}
        if asyncio.get_running_loop().time() > end:
            found = f"still loads its signatures after {_LOADING:.0f} s"
            notes.skipped(_EMBEDDED, found, "start the service, and run doctor again when it is ready")
            return {}
        await asyncio.sleep(0.05)
    notes.ok(_EMBEDDED, " ".join(told))
    return {_EMBEDDED: Patient(beside.address, embedded=True)}


async def _homeserver(asked: _Asked, notes: Notes) -> None:
    configured = asked.config.homeserver
    there = homeserver.Homeserver(
        configured.url,
        asked.config.limits.media_size,
        ca_file=configured.ca_file,
        proxy=configured.proxy,
        headers={name: value.get_secret_value() for name, value in configured.additional_headers.items()},
        access_token=asked.access_token,
    )
    await homeserver.examine(notes, there)


async def _keys(asked: _Asked, notes: Notes) -> None:
    config, crypto = asked.config, asked.config.crypto
    request, index = crypto.secret_file, crypto.index_secret_file
    secrets = (
        Secret(
            "request secret",
            "crypto.secret_file",
            request or config.state_dir / REQUEST_SECRET,
            generated=request is None,
            public=True,
        ),
        *(
            Secret("retired secret", "crypto.retired_secret_files", path, public=True)
            for path in crypto.retired_secret_files
        ),
        Secret(
            "index secret",
            "crypto.index_secret_file",
            index or config.state_dir / INDEX_SECRET,
            generated=index is None,
        ),
    )
    if config.server.inspect_secret_file is not None:
        inspect = Secret("inspect secret", "server.inspect_secret_file", config.server.inspect_secret_file)
        secrets = (*secrets, inspect)
    holds_secrets = bool(config.homeserver.additional_headers)
    await keys.examine(notes, keys.Files(config.state_dir, secrets, asked.file, holds_secrets))


async def _machine(asked: _Asked, notes: Notes) -> None:
    limits, archives = asked.config.limits, asked.config.archives
    here = sum(not address.startswith("tcp:") for address in asked.config.clamav.addresses)
    demand = machine.Demand(limits.memory, limits.media_size, here, archives.unpacked)
    await machine.examine(notes, demand, await asyncio.to_thread(all_versions))
    await unpacking.examine(notes)


async def _service(asked: _Asked, notes: Notes) -> None:
    await service.examine(notes, asked.config.server.ops_listen)


async def _s3(asked: _Asked, notes: Notes) -> None:
    bucket = bucket_of(asked.config)
    if bucket is None:
        notes.skipped("store", f"quarantine.store is {asked.config.quarantine.store}, no bucket")
    else:
        await s3.examine(notes, bucket, asked.maintenance)


# Every group: a file in `scanner/doctor`, and a line here.
GROUPS: dict[str, Callable[[_Asked, Notes], Awaitable[None]]] = {
    "clamd": _clamd,
    "homeserver": _homeserver,
    "keys": _keys,
    "machine": _machine,
    "s3": _s3,
    "service": _service,
}
