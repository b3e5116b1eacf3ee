"""`media-scanner audit`: who did what to the quarantine, and whether that is all of it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from scanner.analysts import audit_keys
from scanner.cli.options import ConfigFile
from scanner.cli.quarantine_output import tell, tell_json
from scanner.cli.quarantine_store import Place
from scanner.cli.statements import AsJson
from scanner.config import Config
from scanner.errors import ConfigError
from scanner.key_files import read_small
from scanner.quarantine.audit import Head, Keys, Problem, Record, digest, problems
from scanner.quarantine.chain import read_heads, read_records

_EXIT_BROKEN = 1
_PLAIN = re.compile(r"([0-9]{1,9}):([0-9a-f]{64})")

app = typer.Typer(help="Verify and read the audit chain.", no_args_is_help=True)


@app.command()
def verify(
    config: ConfigFile,
    head: Annotated[
        str | None,
        typer.Option("--head", metavar="HEAD", help="NUMBER:SHA256, or a file with one, or with a log line."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find every change to the audit chain, and a cut-off end.

    Edits, gaps, swaps, another order, forged records and heads.

    The end of a chain can be cut off together with what is kept beside it. So the scanner writes a line
    `audit head` into its log whenever the chain has grown: give the last one as --head. What this prints as
    head will do, too.

    Exits with 1 where something is wrong.
    """
    known = _known(head) if head is not None else None
    records, found = uvloop.run(_verified(Place(config=config), audit_keys(Config.load(config)), known))
    last = max(records, default=0)
    ends = f"{last}:{digest(records[last])}" if last else None
    if as_json:
        tell_json({"records": len(records), "head": ends, "problems": [asdict(each) for each in found]})
    else:
        for problem in found:
            tell(f"record {problem.number}: {problem.what}")
        tell(f"records: {len(records)}, problems: {len(found)}, head: {ends or 'none'}")
    if found:
        raise typer.Exit(_EXIT_BROKEN)


@app.command()
def tail(
    config: ConfigFile,
    number: Annotated[int, typer.Option("-n", "--lines", min=1, help="So many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a line for each record.")] = False,
) -> None:
    """Print the last records of the audit chain. Whether they are true is for `audit verify` to say."""
    for at, data in uvloop.run(_last(Place(config=config), number)).items():
        try:
            record = asdict(Record.from_json(data))
        except ValueError:
            record = {"number": at, "problem": "no audit record"}
        if as_json:
            tell_json(record)
        else:
            tell(_line(record))


async def _verified(place: Place, keys: Keys, known: Head | None) -> tuple[dict[int, bytes], list[Problem]]:
    async with place.opened() as store:
        heads = await read_heads(store)  # first: what is written meanwhile is no contradiction
        records = await read_records(store)
    return records, problems(records, heads, keys, known)


async def _last(place: Place, number: int) -> dict[int, bytes]:
    async with place.opened() as store:
        return await read_records(store, number)


def _line(record: dict[str, Any]) -> str:
    if "problem" in record:
        return f"{record['number']} {record['problem']}"
    return f"{record['number']} {record['at']} {record['author']}: {record['action']} {record['subject']}"


def _known(text: str) -> Head:
    """From `NUMBER:SHA256`, or from a file with that or JSON: a head, or the line of a log about one."""
    return _plain(text) or _in_file(Path(text))


def _plain(text: str) -> Head | None:
    found = _PLAIN.fullmatch(text.strip())
    return Head(int(found[1]), found[2]) if found else None


def _in_file(file: Path) -> Head:
    try:
        text = read_small(file).decode()
        if (plain := _plain(text)) is not None:
            return plain
        content = json.loads(text)
        fields = content.get("media_scanner", content)
        return Head(int(fields["number"]), str(fields["sha256"]), str(fields.get("at", "")))
    except OSError as error:
        raise ConfigError(f"--head: {file}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"--head: {file}: holds neither NUMBER:SHA256 nor a head") from None
