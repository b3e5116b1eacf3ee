from __future__ import annotations

from pathlib import Path

import pytest

from scanner.errors import ConfigError
from scanner.strict_yaml import read_mapping, read_value


def test_scalars_are_text_or_null(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("a: [2024-01-01, 1:30, 0777, no, 1.5]\nb:\nc: ~\nd: 'x'")
    assert read_mapping(file) == {
        "a": ["2024-01-01", "1:30", "0777", "no", "1.5"],
        "b": None,
        "c": None,
        "d": "x",
    }


def test_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_text("# nothing\n")
    assert read_mapping(file) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", " line 3: a is given twice"),
        ("a: [", " line 1: not valid YAML"),
        ("a: !!python/name:os.system x", " line 1: not valid YAML"),
        ("- a", " must be a mapping of sections"),
        ("[" * 20_000, " not valid YAML"),
    ],
)
def test_what_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_mapping(file)
    assert refused.value.info == f"{file}:{said}"


def test_value_that_is_no_yaml_is_text() -> None:
    assert read_value("[::1]:8080") == "[::1]:8080"
    assert read_value("[a, b]") == ["a", "b"]
    assert read_value("~") is None
