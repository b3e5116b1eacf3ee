"""`python -m tests.bench` compares the product with the reference and the floor; README.md tells how."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Never

import typer
from rich.console import Console

from tests.bench.bars import BARS, Bar
from tests.bench.comparison import Options, compare
from tests.bench.publish import publish as publish_record
from tests.bench.record import Record
from tests.bench.scenarios import COMPARISON, LONG, chosen
from tests.bench.services import CHECKOUT, BenchError
from tests.bench.tables import bars_table, measured_table, ratio_table
from tests.bench.targets import FLOOR, PRODUCT, REFERENCE, TARGETS

FOLDER = CHECKOUT / ".bench"
KEPT = FOLDER / "comparison.json"

_OPEN_FILES = 65536

app = typer.Typer(
    name="tests.bench",
    help="Compare the scanner with matrix-content-scanner (the reference) and bare clamd (the floor).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def run(
    *,
    only: Annotated[str, typer.Option(help="Scenarios: names with wildcards, commas between.")] = "",
    targets: Annotated[str, typer.Option(help="Who takes part.")] = ",".join(TARGETS),
    rounds: Annotated[int, typer.Option(min=1, help="Times that each meets each scenario.")] = 2,
    seconds: Annotated[float, typer.Option(help="Multiplies the time of each scenario.")] = 1.0,
    budget: Annotated[float, typer.Option(help="Seconds after which no scenario begins.")] = 600.0,
    scale: Annotated[float, typer.Option(help="Of the signatures; 1 is near the real size.")] = 0.0,
    port: Annotated[int, typer.Option(help="The first of four ports of 127.0.0.1.")] = 21000,
    bars: Annotated[bool, typer.Option("--bars", help="Judge the bars; exit 1 if one is missed.")] = False,
    require: Annotated[list[str] | None, typer.Option(help="A bar, e.g. 'thumb-*.files_s>=5'.")] = None,
    json: Annotated[Path, typer.Option(help="Where the figures are kept.")] = KEPT,
) -> None:
    """Run scenarios against all targets in turns, print the tables, keep the figures."""
    judges = [Bar.parse(text) for text in (*(BARS if bars else ()), *(require or ()))]
    options = Options(chosen(only), targets.split(","), rounds, seconds, budget, scale, port, FOLDER)
    FOLDER.mkdir(exist_ok=True)
    record = compare(options, lambda line: typer.echo(line, err=True))
    record.save(json)
    passed = _show(record, judges)
    typer.echo(f"kept in {json}", err=True)
    if not passed:
        raise typer.Exit(1)


def _show(record: Record, judges: Iterable[Bar]) -> bool:
    """Whether every bar was passed and every answer of the product was right."""
    console = Console(soft_wrap=True)
    console.print(measured_table(record))
    for to in (REFERENCE, FLOOR):
        if table := ratio_table(record, PRODUCT, to):
            console.print("", table)
    judged = [each for bar in judges for each in bar.judge(record)]
    if judged:
        console.print("", bars_table(judged))
    for target in TARGETS:
        for what, number in record.errors(target).items():
            console.print(f"{target}: {number} x {what}")
    return all(each.passed for each in judged) and not record.errors(PRODUCT)


@app.command()
def publish(
    json: Annotated[Path, typer.Argument(help="Figures that a run has kept.")] = KEPT,
) -> None:
    """Put figures into docs/performance.md: the table, the plots, the JSON."""
    if not json.exists():
        raise BenchError(f"{json} is not there; `make bench` makes it")
    for path in publish_record(Record.load(json)):
        typer.echo(f"wrote {path.relative_to(CHECKOUT)}")


@app.command()
def scenarios() -> None:
    """List the scenarios."""
    names = {each.name for each in COMPARISON}
    for scenario in [*chosen(""), *LONG]:
        kind = "compared" if scenario.name in names else "plotted"
        typer.echo(f"{scenario.name:22} {'long' if scenario in LONG else kind:9} {scenario.title}")


def _terminate(*_: object) -> Never:
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """What the user can do something about ends it with one line and exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, _OPEN_FILES), most))
    try:
        app()
    except BenchError as error:
        typer.echo(f"bench: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
