"""YAML without its traps: a scalar is text or null (no dates, no base 60), and a key stands once."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from scanner.errors import ConfigError

_NULL = "tag:yaml.org,2002:null"
_KINDS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a file; an empty file has an empty one. Raises ConfigError, in one line."""
    try:
        tree = yaml.load(path.read_bytes(), _Loader)  # noqa: S506 - safer than the safe one
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        problem = error.problem if isinstance(error, _GivenTwice) else "not valid YAML"
        raise ConfigError(f"{path}:{line} {problem}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: must be a mapping of sections")
    return tree


def read_value(text: str) -> Any:  # noqa: ANN401 - whatever stands there
    """A value; plain text where it is no YAML, such as [::1]:8080."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - safer than the safe one
    except (yaml.YAMLError, RecursionError):
        return text


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [rule for rule in rules if rule[0] == _NULL]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012 - as PyYAML has it
        tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (_NULL, *_KINDS, None)
    }

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - as PyYAML has it
    ) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep)
        given = set()
        for key, _ in node.value:
            if key.value in given:
                raise _GivenTwice(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            given.add(key.value)
        return mapping


class _GivenTwice(yaml.MarkedYAMLError):
    """One key twice in one mapping; YAML forbids it, PyYAML takes the last."""
