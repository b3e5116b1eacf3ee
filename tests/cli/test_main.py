from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from scanner.cli import main
from scanner.errors import ConfigError
from tests.cli.command import media_scanner, media_scanner_process, refused


@pytest.mark.slow
def test_help_lists_the_commands() -> None:
    done = media_scanner_process("--help")
    assert done.returncode == 0
    for command in ("serve", "scan", "check-config", "config", "keys", "verdict"):
        assert f"\n  {command} " in done.stdout


def test_versions_are_printed_the_scanners_first() -> None:
    done = media_scanner("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("media-scanner ")
    assert all(len(line.split(" ", 1)) == 2 for line in done.stdout.splitlines())


@pytest.mark.parametrize("arguments", [("--version", "--json"), ("--json", "--version")])
def test_versions_are_json_where_asked(arguments: tuple[str, ...]) -> None:
    versions = json.loads(media_scanner(*arguments).stdout)
    assert {"media-scanner", "clamd", "libmagic", "Python", "aiohttp"} <= versions.keys()


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group, by the words that call it."""
    command = command or typer.main.get_command(main.app)
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_help_reads_well_at_80_columns(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = media_scanner(*path, "--help")
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        assert len(line) <= 80, line
        assert not re.fullmatch(r"  [a-z-]+ .*\.\.\.", line), f"cut short in the list of commands: {line}"


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=lambda part: str(part)[:20])
def test_every_command_and_every_option_has_its_help(path: tuple[str, ...], command: Any) -> None:
    assert command.help, path
    for parameter in command.params:
        assert parameter.help, (path, parameter.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("media-scanner ke", {"keys"}),
        ("media-scanner keys ", {"generate", "show-public", "rotate", "import-pickle"}),
        ("media-scanner config show --co", {"--config"}),
    ],
)
def test_bash_completes_commands_and_options(words: str, offered: set[str]) -> None:
    """With what --show-completion prints, sourced by a real bash."""
    program = Path(sys.executable).with_name("media-scanner")
    script = f"""
source <({program} --show-completion bash)
COMP_WORDS=({words} {'""' if words.endswith(" ") else ""})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
completion=$(complete -p media-scanner | sed -E 's/.*-F ([^ ]+) .*/\\1/')
$completion media-scanner
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{program.parent}:{os.defpath}"
    done = subprocess.run(
        ["bash", "-ec", script], env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == offered, done


@pytest.mark.parametrize("arguments", [(), ("unknown",), ("--unknown",), ("check-config", "x"), ("keys",)])
def test_wrong_usage_is_exit_code_2_without_a_traceback(arguments: tuple[str, ...]) -> None:
    done = media_scanner(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [("serve",), ("scan", "-"), ("check-config",), ("keys", "show-public")])
def test_bad_configuration_ends_every_command_with_exit_code_2_and_one_line(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    file = tmp_path / "scanner.yaml"
    file.write_text("server: {listen: nowhere}")
    said = refused(media_scanner_process(*command, "--config", file))
    assert said == f"{file}: server.listen: must be host:port, like 127.0.0.1:8080"


def test_what_names_contain_does_not_break_the_line_or_move_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**named: str) -> None:
        raise ConfigError("/é/a\nb\r\x1b[2Jc\u202ed\udcffe")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "media-scanner: /é/a\\x0ab\\x0d\\x1b[2Jc\\x202ed\\xffe\n"


def test_every_command_of_an_analysts_prints_json_where_asked() -> None:
    asked = {
        path: [option for each in command.params for option in each.opts]
        for path, command in commands()
        if len(path) == 2 and path[0] in ("quarantine", "verdict", "audit")
    }
    assert len(asked) == 17
    assert [path for path, options in asked.items() if "--json" not in options] == []
