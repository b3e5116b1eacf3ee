"""Options that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from scanner.cli.option_groups import grouped

heard: list[object] = []


@dataclass(frozen=True)
class Place:
    where: Annotated[str, typer.Option("--where", help="Needed.")]
    depth: Annotated[int, typer.Option("--depth", help="Not needed.")] = 3


@grouped
def dig(
    name: Annotated[str, typer.Argument(help="Of the hole.")],
    place: Place,
    deep: Annotated[bool, typer.Option("--deep", help="Very.")] = False,
) -> None:
    """Dig a hole."""
    heard.append((name, place, deep))


app = typer.Typer()
app.command()(dig)


def run(*arguments: str) -> int:
    heard.clear()
    return CliRunner().invoke(app, arguments).exit_code


def test_fields_are_options_and_arrive_as_one_argument() -> None:
    assert run("a", "--where", "here", "--depth", "5", "--deep") == 0
    assert heard == [("a", Place("here", 5), True)]


def test_defaults_are_those_of_the_fields_and_what_has_none_is_needed() -> None:
    assert run("a", "--where", "here") == 0
    assert heard == [("a", Place("here", 3), False)]
    assert run("a") == 2


def test_help_is_the_commands_own_with_all_options() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert all(words in shown for words in ("Dig a hole.", "--where", "Not needed.", "--deep"))
