from __future__ import annotations

import inspect
import re
from typing import Any

from scanner import errors
from scanner.errors import ScannerError

CLASSES: list[type[Any]] = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ScannerError)
]


def drawn(docstring: str) -> dict[str, str]:
    """Each class of the tree in the docstring, and the one it hangs on."""
    parents: dict[str, str] = {}
    branch = ["ScannerError"]
    for bars, name in re.findall(r"^ {4}((?:[│ ] {3})*[├└]── )(\w+)", docstring, re.MULTILINE):
        depth = len(bars) // 4
        parents[name] = branch[depth - 1]
        branch[depth:] = [name]
    return parents


def test_tree_is_as_it_is_drawn() -> None:
    bases = {kind.__name__: kind.__mro__[1].__name__ for kind in CLASSES if kind is not ScannerError}
    assert drawn(errors.__doc__ or "") == bases


def test_every_error_carries_the_text_that_users_see() -> None:
    for kind in CLASSES:
        others = {name: None for name in inspect.signature(kind).parameters if name != "info"}
        error = kind("what went wrong", **others)
        assert (error.info, str(error)) == ("what went wrong", "what went wrong")
