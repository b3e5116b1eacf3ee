from __future__ import annotations

from pathlib import Path

import pytest

from scanner.cli import main
from scanner.errors import ConfigError
from tests.cli.command import media_scanner, media_scanner_process, refused


@pytest.mark.slow
def test_help_lists_the_commands() -> None:
    done = media_scanner_process("--help")
    assert done.returncode == 0
    for command in ("serve", "check-config", "keys"):
        assert f"\n  {command} " in done.stdout


def test_version_is_printed() -> None:
    done = media_scanner("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("media-scanner ")


@pytest.mark.parametrize("arguments", [(), ("unknown",), ("--unknown",), ("check-config", "x"), ("keys",)])
def test_wrong_usage_is_exit_code_2_without_a_traceback(arguments: tuple[str, ...]) -> None:
    done = media_scanner(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [("serve",), ("check-config",), ("keys", "show-public")])
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
    def fail() -> None:
        raise ConfigError("/é/a\nb\r\x1b[2Jc\u202ed\udcffe")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "media-scanner: /é/a\\x0ab\\x0d\\x1b[2Jc\\x202ed\\xdcffe\n"
